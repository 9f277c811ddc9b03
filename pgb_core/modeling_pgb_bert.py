"""A BERT classifier pruned by permutation and grouping (PGB): everything that runs, in one file.

It needs torch and transformers and nothing else. The library imports these classes from here, and an exported folder
holds a copy of this file, which `AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)`
runs. `PGBBertConfig.sublayers` gives the sizes of every block; with `output_attentions` each layer gives the attention
of the heads that it kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, BertModel
from transformers import initialization as init
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.bert.modeling_bert import BertSelfAttention, eager_attention_forward

# --- linear layers in blocks ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BlockSizes:
    """Sizes of a `GroupedLinear`: group g maps `columns[g]` inputs to `parts` times `rows[g]` outputs."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    parts: int = 1
    rest: int = 0
    """Outputs in no group: they are their bias."""
    gather: bool = False
    scatter: bool = False
    zeros: bool = False
    """Removed weights are still there, as zeros: what is zero stays zero."""


def take_columns(x: Tensor, order: Tensor) -> Tensor:
    """(T, n) -> (T, m), x[:, order].

    On a CPU `index_select` works on one thread, however many there are, and `gather` on all; its gradient is slow.
    """
    threads = 1 if torch.compiler.is_compiling() or x.device.type != "cpu" else torch.get_num_threads()
    if threads == 1 or torch.is_grad_enabled():
        return x.index_select(1, order)
    return x.gather(1, order.expand(len(x), -1))


class GroupedLinear(nn.Module):
    """A linear layer of G blocks: y_g = x_g W_g^T + b_g, inputs gathered by `gather`, outputs scattered by `scatter`.

    With `parts` > 1 each block stacks the rows of several matrices that read the same inputs (query, key and value).
    """

    gather: Tensor | None
    scatter: Tensor | None

    def __init__(self, sizes: BlockSizes) -> None:
        super().__init__()
        self.sizes = sizes
        pairs = list(zip(sizes.rows, sizes.columns, strict=True))
        self.weights = nn.ParameterList([nn.Parameter(torch.empty(sizes.parts * r, c)) for r, c in pairs])
        outputs = sizes.parts * sum(sizes.rows) + sizes.rest
        self.bias = nn.Parameter(torch.empty(outputs))  # groups one after another, then the rest
        self.register_buffer("gather", torch.empty(sum(sizes.columns), dtype=torch.int64) if sizes.gather else None)
        self.register_buffer("scatter", torch.empty(outputs, dtype=torch.int64) if sizes.scatter else None)

    @property
    def linears(self) -> tuple[GroupedLinear, ...]:
        """As an entry: this one alone."""
        return (self,)

    @property
    def part_size(self) -> int:
        """Outputs of each part."""
        return sum(self.sizes.rows)

    @property
    def removed(self) -> int:
        """Weights that are held, and multiplied with, although they were removed."""
        if not self.sizes.zeros:
            return 0
        return sum(weight.numel() - int(torch.count_nonzero(weight)) for weight in self.weights)

    def feeds(self, exit_: GroupedLinear) -> bool:
        """Whether block g of `exit_` reads what block g of this entry gives, and nothing else."""
        moved = self.scatter is not None or exit_.gather is not None
        return not moved and not self.sizes.rest and self.sizes.rows == exit_.sizes.columns

    def inputs(self, x: Tensor) -> tuple[Tensor, ...]:
        """(..., inputs) -> one (tokens, columns[g]) per group."""
        x = x.flatten(0, -2)  # two dimensions: a slice of columns then needs no copy before the product
        if self.gather is not None:
            x = take_columns(x, self.gather)
        inputs: tuple[Tensor, ...] = x.split(self.sizes.columns, dim=1)
        return inputs

    def block(self, g: int, x: Tensor) -> Tensor:
        """(tokens, columns[g]) -> (tokens, parts * rows[g]), group g alone."""
        weight: Tensor = self.weights[g]
        if self.sizes.zeros and torch.is_grad_enabled():
            weight = weight * (weight.detach() != 0)  # in training, zeros get no gradient where they are to stay
        start = self.sizes.parts * sum(self.sizes.rows[:g])
        return F.linear(x, weight, self.bias[start : start + len(weight)])

    def join(self, outputs: Sequence[Tensor], leading: Sequence[int]) -> Tensor:
        """What `block` gave for each group -> (*leading, outputs), for `parts` = 1."""
        found = list(outputs)
        if self.sizes.rest:
            found.append(self.bias[-self.sizes.rest :].expand(found[0].shape[0], -1).to(found[0].dtype))
        y = found[0] if len(found) == 1 else torch.cat(found, dim=1)
        if self.scatter is not None:
            y = take_columns(y, self.scatter)
        output: Tensor = y.unflatten(0, leading)
        return output

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs), for `parts` = 1."""
        return self.join([self.block(g, z) for g, z in enumerate(self.inputs(x))], x.shape[:-1])

    def groups(self, x: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """(..., inputs) -> for each group in turn, `parts` tensors (..., rows[g])."""
        for g, z in enumerate(self.inputs(x)):
            yield self.block(g, z).unflatten(0, x.shape[:-1]).chunk(self.sizes.parts, dim=-1)

    def forward_parts(self, x: Tensor) -> tuple[Tensor, ...]:
        """(..., inputs) -> `parts` tensors (..., part_size); of several, each has the groups one after another."""
        if self.sizes.parts == 1:
            return (self(x),)
        return tuple(torch.cat(part, dim=-1) for part in zip(*self.groups(x), strict=True))


class SeparateLinears(nn.Module):
    """Entry matrices that share nothing but their input: one `GroupedLinear` for each."""

    linears: Sequence[GroupedLinear]

    def __init__(self, linears: Sequence[GroupedLinear]) -> None:
        super().__init__()
        self.linears = nn.ModuleList(linears)  # type: ignore[assignment]

    @property
    def part_size(self) -> int:
        """Outputs of each matrix."""
        return self.linears[0].part_size

    def forward_parts(self, x: Tensor) -> tuple[Tensor, ...]:
        """(..., inputs) -> one (..., part_size) per matrix."""
        return tuple(linear(x) for linear in self.linears)


Entry = GroupedLinear | SeparateLinears
"""What reads the hidden state in a pruned sublayer: `linears`, `part_size` and `forward_parts`."""


class Constant(nn.Module):
    """What is left of a dropped sublayer before its LayerNorm: a bias, whatever the input."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.empty(size))

    def forward(self, x: Tensor) -> Tensor:
        # detached, or tools that hook modules (MemTracker) take it for the parameter that it is a view of
        bias = self.bias if torch.is_grad_enabled() else self.bias.detach()
        return bias.expand(*x.shape[:-1], -1)


def run_sublayer(entry: Entry, exit_: GroupedLinear, mix: Callable[[tuple[Tensor, ...]], Tensor], x: Tensor) -> Tensor:
    """(B, L, hidden) -> (B, L, hidden), before residual and LayerNorm.

    Where groups own whole units each is run from the entry to the exit by itself. Nothing is put together in between,
    and what a group computes stays in the cache: the feed-forward of BERT-base, 8 x 128 tokens on one core, reaches
    0.99, 0.84 and 0.68 of its ideal speed-up with 2, 4 and 8 groups; put together before the activation, 0.78, 0.77 and
    0.59; as batched products, with their transposed copies, 0.86, 0.71 and 0.65. Only of a single short text (1 x 32)
    are batched products an eighth faster.

    Args:
        mix: from the outputs of the entry matrices, each (B, L, units), to what the exit reads, (B, L, units).
    """
    if isinstance(entry, SeparateLinears) or not entry.feeds(exit_):
        output: Tensor = exit_(mix(entry.forward_parts(x)))
        return output
    groups = (exit_.block(g, mix(parts).flatten(0, -2)) for g, parts in enumerate(entry.groups(x)))
    return exit_.join(list(groups), x.shape[:-1])


def entry_module(linears: Sequence[GroupedLinear]) -> Entry:
    """The entry of a sublayer that is not dropped."""
    return linears[0] if len(linears) == 1 else SeparateLinears(linears)


# --- attention -----------------------------------------------------------------------------------------------------


class _PrunedSelfAttention(BertSelfAttention):
    """In the place of `BertSelfAttention`, and one by class: by it transformers knows whose attentions to record."""

    is_causal = False

    def __init__(self, config: Any, size: int) -> None:
        nn.Module.__init__(self)  # the dense projections of `BertSelfAttention` are not wanted
        self.config = config
        self.attention_head_size: int = config.hidden_size // config.num_attention_heads
        self.all_head_size = size
        self.num_attention_heads = size // self.attention_head_size

    def implementation(self, output_attentions: bool) -> str:
        """How attention is computed, by its name in transformers.

        Raises:
            ValueError: attentions are asked for, and that way of computing them gives none.
        """
        name: str = self.config._attn_implementation  # noqa: SLF001  # as in every model of transformers
        if output_attentions and name != "eager":
            raise ValueError(
                f"attn_implementation {name!r} gives no attentions; call model.set_attn_implementation('eager') first."
            )
        return name


class GroupedSelfAttention(_PrunedSelfAttention):
    """Self-attention of any number of heads, from the entry to the exit, whose place in BERT is then an identity."""

    def __init__(self, config: Any, entry: Entry, exit_: GroupedLinear) -> None:
        super().__init__(config, entry.part_size)
        self.entry = entry
        self.exit = exit_
        self.dropout = config.attention_probs_dropout_prob

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        """(B, L, hidden) -> the same and, of eager attention, the weights (B, heads, L, L)."""
        for unused in ("past_key_values", "encoder_hidden_states"):
            kwargs.pop(unused, None)
        implementation = self.implementation(kwargs.get("output_attentions", False))
        attention = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)
        width = self.attention_head_size
        weights: list[Tensor | None] = []

        def mix(parts: tuple[Tensor, ...]) -> Tensor:
            query, key, value = (split_heads(x, width) for x in parts)
            context, found = attention(
                self,
                query,
                key,
                value,
                attention_mask,
                dropout=self.dropout if self.training else 0.0,
                scaling=1 / math.sqrt(width),
                **kwargs,
            )
            weights.append(found)
            joined: Tensor = context.flatten(2)
            return joined

        output = run_sublayer(self.entry, self.exit, mix, hidden_states)
        of_groups = [found for found in weights if found is not None]
        return output, torch.cat(of_groups, dim=1) if of_groups else None


class NoAttention(_PrunedSelfAttention):
    """What is left of a dropped attention: its input, handed on to a `Constant`.

    Its attentions are those of no heads, so that the tuple of all attentions still has one entry per layer.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config, 0)

    def forward(self, hidden_states: Tensor, *_: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        """(B, L, hidden) -> the same and, of eager attention, weights (B, 0, L, L)."""
        if self.implementation(kwargs.get("output_attentions", False)) != "eager":
            return hidden_states, None
        batch, length = hidden_states.shape[:2]
        return hidden_states, hidden_states.new_empty(batch, 0, length, length)


def split_heads(x: Tensor, width: int) -> Tensor:
    """(B, L, heads * width) -> (B, heads, L, width)."""
    heads: Tensor = x.unflatten(-1, (-1, width)).transpose(1, 2)
    return heads


class GroupedFeedForward(nn.Module):
    """In the place of `BertIntermediate`: from the entry to the exit, whose place in BERT is then an identity."""

    def __init__(self, entry: Entry, exit_: GroupedLinear, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.entry = entry
        self.exit = exit_
        self.activation = activation

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(B, L, hidden) -> the same."""
        return run_sublayer(self.entry, self.exit, lambda parts: self.activation(parts[0]), hidden_states)


# --- sublayers -----------------------------------------------------------------------------------------------------


def sublayer_modules(config: Any, sizes: Mapping[str, Any]) -> tuple[Entry | None, GroupedLinear | Constant]:
    """Entry and exit of a pruned sublayer with the `sizes` that pgb.json lists, uninitialized; no entry if dropped."""
    if "matrices" in sizes:
        *entries, exit_ = [GroupedLinear(_matrix_sizes(matrix)) for matrix in sizes["matrices"]]
        return entry_module(entries), exit_
    groups = sizes["groups"]
    if not groups:
        return None, Constant(config.hidden_size)
    attention = sizes["kind"] == "attention"
    width = config.hidden_size // config.num_attention_heads if attention else 1
    units, columns, rows = (tuple(int(group[name]) for group in groups) for name in ("units", "columns", "rows"))
    inner = tuple(width * size for size in units)
    first = BlockSizes(inner, columns, 3 if attention else 1, gather=bool(sizes["gather"]))
    last = BlockSizes(rows, inner, rest=config.hidden_size - sum(rows), scatter=bool(sizes["scatter"]))
    return GroupedLinear(first), GroupedLinear(last)


def _matrix_sizes(sizes: Mapping[str, Any]) -> BlockSizes:
    rows, columns = (tuple(int(group[name]) for group in sizes["groups"]) for name in ("rows", "columns"))
    gather, scatter, zeros = (bool(sizes[name]) for name in ("gather", "scatter", "zeros"))
    return BlockSizes(rows, columns, gather=gather, scatter=scatter, zeros=zeros)


def replace_sublayer(
    encoder: nn.Module, layer: int, kind: str, entry: Entry | None, exit_: GroupedLinear | Constant
) -> None:
    """Put pruned modules in the place of a sublayer's matrices; its LayerNorm, activation and residual stay.

    Args:
        encoder: a `BertEncoder`.
        kind: `attention` or `feed_forward`.
        entry: None where nothing is left to compute before the exit.
    """
    base: Any = encoder
    target = base.layer[layer]
    whole = None if entry is None or isinstance(exit_, Constant) else (entry, exit_)
    if kind == "attention":
        attention = NoAttention(base.config) if whole is None else GroupedSelfAttention(base.config, *whole)
        # a model that has given attentions before has hooks that record them
        attention._forward_hooks.update(target.attention.self._forward_hooks)  # noqa: SLF001
        target.attention.self, output = attention, target.attention.output
    else:
        activation = target.intermediate.intermediate_act_fn
        target.intermediate = nn.Identity() if whole is None else GroupedFeedForward(*whole, activation)
        output = target.output
    output.dense = exit_ if whole is None else nn.Identity()


# --- the model -----------------------------------------------------------------------------------------------------


class PGBBertConfig(BertConfig):
    """The configuration of the dense BERT, and in `sublayers` what was kept of it, as pgb.json lists it."""

    model_type = "pgb_bert"

    def __init__(self, sublayers: Sequence[Mapping[str, Any]] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sublayers = list(sublayers)


class PGBBertModel(BertModel):
    """The encoder whose sublayers are those that the configuration lists."""

    config_class = PGBBertConfig

    def __init__(self, config: PGBBertConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config, add_pooling_layer)
        for sizes in config.sublayers:
            entry, exit_ = sublayer_modules(config, sizes)
            replace_sublayer(self.encoder, sizes["layer"], sizes["kind"], entry, exit_)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """For a model that is not loaded: random weights, everything in its original order."""
        super()._init_weights(module)
        if isinstance(module, GroupedLinear):
            for weight in module.weights:
                init.normal_(weight, std=self.config.initializer_range)
            for order in (module.gather, module.scatter):
                if order is not None:
                    init.copy_(order, torch.arange(len(order), device=order.device))
        if isinstance(module, GroupedLinear | Constant):
            init.zeros_(module.bias)


class PGBBertForSequenceClassification(BertForSequenceClassification):
    """A pruned classifier with the forward signature and outputs of `BertForSequenceClassification`."""

    config_class = PGBBertConfig

    def __init__(self, config: PGBBertConfig) -> None:
        super().__init__(config)
        self.bert = PGBBertModel(config)
        self.post_init()

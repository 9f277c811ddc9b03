"""A BERT classifier pruned by permutation and grouping (PGB): everything that runs, in one file.

It needs torch and transformers and nothing else. The library imports these classes from here, and an exported folder
holds a copy of this file, which `AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)`
runs. `PGBBertConfig.sublayers` gives the sizes of every block; with `output_attentions` each layer gives the attention
of the heads that it kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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

    def block_weights(self) -> Sequence[Tensor]:
        """(parts * rows[g], columns[g]) of each group; in training, zeros get no gradient where they are to stay."""
        if self.sizes.zeros and torch.is_grad_enabled():
            return [weight * (weight.detach() != 0) for weight in self.weights]
        return list(self.weights)

    def blocks(self, x: Tensor) -> list[Tensor]:
        """(..., inputs) -> one (tokens, parts * rows[g]) per group."""
        x = x.flatten(0, -2)  # two dimensions: a slice of columns then needs no copy before the product
        if self.gather is not None:
            x = x.index_select(1, self.gather)
        inputs = x.split(self.sizes.columns, dim=1)
        biases = self.bias.split([*(self.sizes.parts * r for r in self.sizes.rows), self.sizes.rest])
        return [F.linear(i, w, b) for i, w, b in zip(inputs, self.block_weights(), biases, strict=False)]

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs), for `parts` = 1."""
        outputs = self.blocks(x)
        if self.sizes.rest:
            outputs.append(self.bias[-self.sizes.rest :].expand(outputs[0].shape[0], -1).to(outputs[0].dtype))
        y = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)
        if self.scatter is not None:
            y = y.index_select(1, self.scatter)
        output: Tensor = y.unflatten(0, x.shape[:-1])
        return output

    def forward_parts(self, x: Tensor) -> tuple[Tensor, ...]:
        """(..., inputs) -> `parts` tensors (..., part_size); of several, each has the groups one after another."""
        if self.sizes.parts == 1:
            return (self(x),)
        by_group = [block.chunk(self.sizes.parts, dim=1) for block in self.blocks(x)]
        return tuple(torch.cat(part, dim=1).unflatten(0, x.shape[:-1]) for part in zip(*by_group, strict=True))


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
        return self.bias.expand(*x.shape[:-1], -1)


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
    """Self-attention of any number of heads, projected by one module for query, key and value."""

    def __init__(self, config: Any, entry: Entry) -> None:
        super().__init__(config, entry.part_size)
        self.entry = entry
        self.dropout = config.attention_probs_dropout_prob

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        """(B, L, hidden) -> context (B, L, heads * width) and, of eager attention, the weights (B, heads, L, L)."""
        for unused in ("past_key_values", "encoder_hidden_states"):
            kwargs.pop(unused, None)
        implementation = self.implementation(kwargs.get("output_attentions", False))
        width = self.attention_head_size
        query, key, value = (split_heads(x, width) for x in self.entry.forward_parts(hidden_states))
        attention = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)
        context, weights = attention(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.dropout if self.training else 0.0,
            scaling=1 / math.sqrt(width),
            **kwargs,
        )
        return context.flatten(2), weights


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


def replace_sublayer(encoder: nn.Module, layer: int, kind: str, entry: Entry | None, exit_: nn.Module) -> None:
    """Put pruned modules in the place of a sublayer's matrices; its LayerNorm, activation and residual stay.

    Args:
        encoder: a `BertEncoder`.
        kind: `attention` or `feed_forward`.
        entry: None where nothing is left to compute before the exit.
        exit_: in the place of the output linear layer.
    """
    base: Any = encoder
    target = base.layer[layer]
    if kind == "attention":
        attention = NoAttention(base.config) if entry is None else GroupedSelfAttention(base.config, entry)
        # a model that has given attentions before has hooks that record them
        attention._forward_hooks.update(target.attention.self._forward_hooks)  # noqa: SLF001
        target.attention.self = attention
        target.attention.output.dense = exit_
    else:
        if entry is None:
            target.intermediate = nn.Identity()
        else:
            target.intermediate.dense = entry
        target.output.dense = exit_


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

"""The sublayers of an encoder that was pruned by permutation and grouping (PGB), whatever its family.

It needs torch, transformers and `pgb_blocks.py`. A family, `modeling_pgb_bert.py` for one, says in `Places` where its
layers keep what is replaced. With `output_attentions` each layer gives the attention of the heads that it kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.bert.modeling_bert import eager_attention_forward

from .pgb_blocks import BlockSizes, Constant, Entry, GroupedLinear, entry_module, run_sublayer

# --- attention -----------------------------------------------------------------------------------------------------


class PrunedSelfAttention(nn.Module):
    """In the place of a family's self-attention, whose class it is to have as well.

    By that class transformers knows whose attentions to record; its dense projections are not made.
    """

    is_causal = False
    dropout_key = "attention_probs_dropout_prob"
    """Where the configuration has the dropout of attention weights."""

    def __init__(self, config: Any, size: int) -> None:
        nn.Module.__init__(self)
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


class GroupedSelfAttention(PrunedSelfAttention):
    """Self-attention of any number of heads, from the entry to the exit, whose own place is then an identity."""

    def __init__(self, config: Any, entry: Entry, exit_: GroupedLinear) -> None:
        super().__init__(config, entry.part_size)
        self.entry = entry
        self.exit = exit_
        self.dropout: float = getattr(config, self.dropout_key)

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


class NoAttention(PrunedSelfAttention):
    """What is left of a dropped attention: its input, handed on to a `Constant`, here or where the family has its exit.

    Its attentions are those of no heads, so that the tuple of all attentions still has one entry per layer.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config, 0)
        self.exit: nn.Module = nn.Identity()

    def forward(self, hidden_states: Tensor, *_: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        """(B, L, hidden) -> the same and, of eager attention, weights (B, 0, L, L)."""
        if self.implementation(kwargs.get("output_attentions", False)) != "eager":
            return self.exit(hidden_states), None
        batch, length = hidden_states.shape[:2]
        return self.exit(hidden_states), hidden_states.new_empty(batch, 0, length, length)


def split_heads(x: Tensor, width: int) -> Tensor:
    """(B, L, heads * width) -> (B, heads, L, width)."""
    return x.view(*x.shape[:-1], x.shape[-1] // width, width).transpose(1, 2)


class GroupedFeedForward(nn.Module):
    """In the place of the first matrix: from the entry to the exit, whose own place is then an identity."""

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


# --- where they go -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Places:
    """Where a family of encoders keeps what pruning replaces: paths below one of its layers, unless said otherwise."""

    layers: str
    """The list of layers, below the base model."""
    attention: str
    """What gives the pair of an output and the attentions."""
    attention_exit: str
    feed_forward: str
    """What reads the hidden state."""
    activation: str
    feed_forward_exit: str
    grouped_attention: type[GroupedSelfAttention]
    no_attention: type[NoAttention]

    def of(self, kind: str) -> tuple[str, str]:
        """Place of the pruned module, and of the exit, of an `attention` or a `feed_forward`."""
        if kind == "attention":
            return self.attention, self.attention_exit
        return self.feed_forward, self.feed_forward_exit

    def layers_of(self, base: nn.Module) -> list[nn.Module]:
        """The transformer layers of a base model, dense or pruned."""
        return list(base.get_submodule(self.layers).children())


def replace_sublayer(
    base: nn.Module, places: Places, layer: int, kind: str, entry: Entry | None, exit_: GroupedLinear | Constant
) -> None:
    """Put pruned modules in the place of a sublayer's matrices; its LayerNorm, activation and residual stay.

    Args:
        base: a model without a head, e.g. `BertModel`.
        kind: `attention` or `feed_forward`.
        entry: None where nothing is left to compute before the exit.
    """
    config: Any = base.config
    target = places.layers_of(base)[layer]
    whole = None if entry is None or isinstance(exit_, Constant) else (entry, exit_)
    place, exit_place = places.of(kind)
    new: nn.Module
    if kind == "attention":
        new = places.no_attention(config) if whole is None else places.grouped_attention(config, *whole)
        # a model that has given attentions before has hooks that record them
        new._forward_hooks.update(target.get_submodule(place)._forward_hooks)  # noqa: SLF001
    else:
        activation = target.get_submodule(places.activation)
        target.set_submodule(places.activation, nn.Identity())
        new = nn.Identity() if whole is None else GroupedFeedForward(*whole, activation)
    target.set_submodule(exit_place, nn.Identity())
    target.set_submodule(place, new)  # with the exit in it, or above it
    if whole is None:
        target.set_submodule(exit_place, exit_)


def pruned_sublayer(layer: nn.Module, places: Places, kind: str) -> tuple[Entry | None, GroupedLinear | Constant]:
    """Entry and exit that `replace_sublayer` has put into a transformer layer; no entry where it is dropped."""
    place, exit_place = places.of(kind)
    exit_ = layer.get_submodule(exit_place)
    if isinstance(exit_, Constant):
        return None, exit_
    module: Any = layer.get_submodule(place)
    return module.entry, module.exit


class PrunedEncoder:
    """Before the class of a dense base model: an encoder whose sublayers are those that its configuration lists."""

    places: Places

    def __init__(self, config: Any, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)  # type: ignore[call-arg]
        base: Any = self
        for sizes in config.sublayers:
            entry, exit_ = sublayer_modules(config, sizes)
            replace_sublayer(base, self.places, sizes["layer"], sizes["kind"], entry, exit_)
        base.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """For a model that is not loaded: random weights, everything in its original order."""
        base: Any = super()
        base._init_weights(module)  # noqa: SLF001
        if isinstance(module, GroupedLinear):
            config: Any = self.config  # type: ignore[attr-defined]
            for weight in module.weights:
                init.normal_(weight, std=config.initializer_range)
            for order in (module.gather, module.scatter):
                if order is not None:
                    init.copy_(order, torch.arange(len(order), device=order.device))
        if isinstance(module, GroupedLinear | Constant):
            init.zeros_(module.bias)

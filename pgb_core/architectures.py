"""The only file that knows the module paths of `transformers`.

An encoder is seen as a list of `Sublayer`s in the order of the forward pass (attention, feed-forward, attention, ...),
each `x -> norm(x + exit(mix(entries(x))))`: BERT is post-LayerNorm. Everything else in `pgb_core` works on that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.bert.modeling_bert import BertSelfAttention, eager_attention_forward

from pgb_core.layout import Kind, SublayerShape

Mix = Callable[[tuple[Tensor, ...], Tensor | None], Tensor]
"""Entry outputs, each (B, L, k * width), and a mask -> input of the exit matrix, (B, L, k * width)."""


@dataclass(frozen=True, eq=False)
class Sublayer:
    """A dense attention or feed-forward sublayer inside a live model; its modules are shared, not copied."""

    layer: int
    layers: int
    """Of the whole encoder."""
    shape: SublayerShape
    entries: tuple[nn.Linear, ...]
    exit: nn.Linear
    norm: nn.LayerNorm
    mix: Mix
    prefix: str
    """Path of the transformer layer in the model, e.g. `bert.encoder.layer.0`."""
    paths: tuple[str, ...]
    """Path of each matrix below `prefix`, in the order of `shape.matrices`."""

    @property
    def key(self) -> tuple[int, Kind]:
        return self.layer, self.shape.kind

    @property
    def name(self) -> str:
        """In words, layers counted from 1 as on the pages, e.g. `feed-forward of layer 1 of 6`."""
        return f"{self.shape.kind.replace('_', '-')} of layer {self.layer + 1} of {self.layers}"

    def tensor_name(self, matrix: str) -> str:
        """Name of a matrix in the checkpoint, e.g. `bert.encoder.layer.0.output.dense.weight`."""
        return f"{self.prefix}.{self.paths[self.shape.matrices.index(matrix)]}.weight"

    def hidden(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, L, hidden) -> (B, L, inner), what the exit matrix reads."""
        return self.mix(tuple(entry(x) for entry in self.entries), mask)


def attention_mask(mask: Tensor) -> Tensor | None:
    """(B, L) of ones and zeros -> boolean (B, 1, 1, L) for `mix`; None when nothing is masked."""
    return None if bool(mask.all()) else mask.bool()[:, None, None, :]


def embed(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """(B, L, hidden): what the first sublayer reads."""
    base: Any = model.bert
    embedded: Tensor = base.embeddings(input_ids=inputs["input_ids"], token_type_ids=inputs["token_type_ids"])
    return embedded


def encoder_sublayers(model: nn.Module) -> list[Sublayer]:
    """The sublayers of a dense `BertForSequenceClassification`, in the order of the forward pass."""
    base: Any = model.bert
    config = base.config
    width = config.hidden_size // config.num_attention_heads
    sublayers: list[Sublayer] = []
    for i, layer in enumerate(base.encoder.layer):
        prefix = f"bert.encoder.layer.{i}"
        projections = layer.attention.self
        sublayers.append(
            Sublayer(
                i,
                config.num_hidden_layers,
                SublayerShape("attention", config.hidden_size, config.num_attention_heads, width),
                (projections.query, projections.key, projections.value),
                layer.attention.output.dense,
                layer.attention.output.LayerNorm,
                attention_mix(width),
                prefix,
                ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"),
            )
        )
        sublayers.append(
            Sublayer(
                i,
                config.num_hidden_layers,
                SublayerShape("feed_forward", config.hidden_size, config.intermediate_size, 1),
                (layer.intermediate.dense,),
                layer.output.dense,
                layer.output.LayerNorm,
                activation_mix(layer.intermediate.intermediate_act_fn),
                prefix,
                ("intermediate.dense", "output.dense"),
            )
        )
    return sublayers


def classify(model: nn.Module, hidden: Tensor) -> Tensor:
    """(B, L, hidden), what the last sublayer gave -> logits (B, labels), without dropout."""
    base: Any = model
    logits: Tensor = base.classifier(base.bert.pooler(hidden))
    return logits


def replace_sublayer(model: nn.Module, layer: int, kind: Kind, entry: nn.Module | None, exit_: nn.Module) -> None:
    """Put pruned modules in the place of a sublayer's matrices; its LayerNorm, activation and residual stay.

    Args:
        entry: for attention, a module with the signature of `BertSelfAttention`; for feed-forward, of the
            intermediate linear layer. None where nothing is left to compute before the exit.
        exit_: in the place of the output linear layer.
    """
    base: Any = model.bert
    target = base.encoder.layer[layer]
    if kind == "attention":
        target.attention.self = entry if entry is not None else _NoAttention()
        target.attention.output.dense = exit_
    else:
        if entry is None:
            target.intermediate = nn.Identity()
        else:
            target.intermediate.dense = entry
        target.output.dense = exit_


class GroupedSelfAttention(nn.Module):
    """In the place of `BertSelfAttention`: any number of heads, projected by one module for query, key and value."""

    is_causal = False

    def __init__(self, config: Any, entry: nn.Module, width: int) -> None:
        super().__init__()
        self.config = config
        self.entry = entry
        self.width = width
        self.dropout = config.attention_probs_dropout_prob

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        """(B, L, hidden) -> context (B, L, heads * width) and attention weights where the implementation has them."""
        for unused in ("past_key_values", "encoder_hidden_states"):
            kwargs.pop(unused, None)
        entry: Any = self.entry
        query, key, value = (split_heads(x, self.width) for x in entry.forward_parts(hidden_states))
        implementation = self.config._attn_implementation  # noqa: SLF001  # as in every model of transformers
        attention = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)
        context, weights = attention(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.dropout if self.training else 0.0,
            scaling=1 / math.sqrt(self.width),
            **kwargs,
        )
        return context.flatten(2), weights


def attention_sizes(model: nn.Module) -> list[int]:
    """Sizes, heads * width, of every attention that `model`, dense or pruned, still computes."""
    sizes: list[int] = []
    for module in model.modules():
        if isinstance(module, GroupedSelfAttention):
            sizes.append(module.entry.part_size)  # type: ignore[arg-type]
        elif isinstance(module, BertSelfAttention):
            sizes.append(module.all_head_size)
    return sizes


def encoder_of(model: nn.Module) -> nn.Module:
    """The module that holds the transformer layers, dense or pruned."""
    base: Any = model.bert
    encoder: nn.Module = base.encoder
    return encoder


def grouped_attention(model: nn.Module, entry: nn.Module, width: int) -> nn.Module:
    """The attention module of a pruned sublayer of `model`, around its `entry`."""
    return GroupedSelfAttention(model.config, entry, width)


class _NoAttention(nn.Module):
    """In the place of `BertSelfAttention` in a dropped sublayer: hands its input on, without attention weights."""

    def forward(self, hidden_states: Tensor, **_: Any) -> tuple[Tensor, None]:
        return hidden_states, None


def split_heads(x: Tensor, width: int) -> Tensor:
    """(B, L, heads * width) -> (B, heads, L, width)."""
    heads: Tensor = x.unflatten(-1, (-1, width)).transpose(1, 2)
    return heads


def attention_mix(width: int) -> Mix:
    """Softmax attention over heads of `width`, for any number of heads."""

    def mix(entries: tuple[Tensor, ...], mask: Tensor | None) -> Tensor:
        query, key, value = (split_heads(x, width) for x in entries)
        context = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=1 / math.sqrt(width))
        return context.transpose(1, 2).flatten(2)

    return mix


def activation_mix(activation: Callable[[Tensor], Tensor]) -> Mix:
    """The feed-forward activation, neuron by neuron."""

    def mix(entries: tuple[Tensor, ...], mask: Tensor | None) -> Tensor:
        return activation(entries[0])

    return mix

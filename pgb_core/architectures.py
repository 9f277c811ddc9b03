"""The only file, beside `modeling_pgb_bert.py`, that knows the module paths of `transformers`.

That file is what runs of a pruned model, and stands alone; this one is how the library sees a model, dense or pruned.
An encoder is seen as a list of `Sublayer`s in the order of the forward pass (attention, feed-forward, attention, ...),
each `x -> norm(x + exit(mix(entries(x))))`: BERT is post-LayerNorm. Everything else in `pgb_core` works on that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.bert.modeling_bert import BertEmbeddings, BertSelfAttention

from pgb_core.layout import Kind, SublayerShape
from pgb_core.modeling_pgb_bert import (
    Constant,
    Entry,
    GroupedLinear,
    PGBBertConfig,
    PGBBertForSequenceClassification,
    split_heads,
)

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


def sublayer_shapes(hidden: int, heads: int, intermediate: int) -> tuple[SublayerShape, SublayerShape]:
    """Attention and feed-forward of each layer of a dense BERT."""
    return (
        SublayerShape("attention", hidden, heads, hidden // heads),
        SublayerShape("feed_forward", hidden, intermediate, 1),
    )


def encoder_sublayers(model: nn.Module) -> list[Sublayer]:
    """The sublayers of a dense `BertForSequenceClassification`, in the order of the forward pass."""
    base: Any = model.bert
    config = base.config
    attention, feed_forward = sublayer_shapes(config.hidden_size, config.num_attention_heads, config.intermediate_size)
    sublayers: list[Sublayer] = []
    for i, layer in enumerate(base.encoder.layer):
        prefix = f"bert.encoder.layer.{i}"
        projections = layer.attention.self
        sublayers.append(
            Sublayer(
                i,
                config.num_hidden_layers,
                attention,
                (projections.query, projections.key, projections.value),
                layer.attention.output.dense,
                layer.attention.output.LayerNorm,
                attention_mix(attention.width),
                prefix,
                ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"),
            )
        )
        sublayers.append(
            Sublayer(
                i,
                config.num_hidden_layers,
                feed_forward,
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


def empty_pruned(config: Mapping[str, Any], sublayers: Sequence[Mapping[str, Any]]) -> PGBBertForSequenceClassification:
    """A pruned classifier whose tensors have their sizes and no memory: all of them are to be assigned.

    Args:
        config: arguments of `BertConfig`, of the dense model.
        sublayers: of the manifest pgb.json.
    """
    settings = PGBBertConfig(sublayers=sublayers, **config, attn_implementation="sdpa")
    with torch.device("meta"):
        model = PGBBertForSequenceClassification(settings)
    model.bert.embeddings = BertEmbeddings(settings)  # it has tables of its own that no checkpoint holds
    return model


def pruned_modules(model: nn.Module) -> Iterator[tuple[Entry | None, GroupedLinear | Constant]]:
    """Entry and exit of every sublayer of a pruned model, in the order of the forward pass; no entry where dropped."""
    base: Any = model.bert
    for layer in base.encoder.layer:
        for module, output in ((layer.attention.self, layer.attention.output), (layer.intermediate, layer.output)):
            dropped = isinstance(output.dense, Constant)
            yield (None, output.dense) if dropped else (module.entry, module.exit)


def attention_sizes(model: nn.Module) -> list[int]:
    """Sizes, heads * width, of every attention of `model`, dense or pruned; 0 where it is dropped."""
    return [module.all_head_size for module in model.modules() if isinstance(module, BertSelfAttention)]


def encoder_of(model: nn.Module) -> nn.Module:
    """The module that holds the transformer layers, dense or pruned."""
    base: Any = model.bert
    encoder: nn.Module = base.encoder
    return encoder


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

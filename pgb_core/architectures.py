"""The only file, beside the `modeling_pgb_*.py`, that knows the module paths of `transformers`.

Those files are what runs of pruned models, and stand alone; this one is how the library sees a model, dense or pruned.
An encoder is seen as a list of `Sublayer`s in the order of the forward pass (attention, feed-forward, attention, ...),
each `x -> norm(x + exit(mix(entries(x))))`: all families here are post-LayerNorm. Everything else in `pgb_core` works
on that. What is different about a family is in its class (`Bert`, `DistilBert`, `Roberta`), one of `FAMILIES`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from pgb_core import modeling_pgb_bert, modeling_pgb_distilbert, modeling_pgb_roberta
from pgb_core.families import PRUNED_PREFIX, Head, class_name
from pgb_core.layout import Kind, SublayerShape
from pgb_core.pgb_blocks import Constant, Entry, GroupedLinear
from pgb_core.pgb_sublayers import Places, PrunedSelfAttention, pruned_sublayer, replace_sublayer, split_heads

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
    place: str
    """Path below `prefix` of what holds entry and exit once it is pruned."""

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


# --- families ------------------------------------------------------------------------------------------------------


class Family(ABC):
    """A family of encoders, as transformers writes it: paths below a transformer layer, and what is not alike.

    A new one is a class like `DistilBert`, its entry in `families.FAMILIES` and its `modeling_pgb_*.py`.
    """

    name: str
    """Its `model_type`."""
    portable: Any
    """The module with the classes of pruned models, and `PLACES`."""
    attention: tuple[str, ...]
    """Query, key, value and output matrix."""
    attention_norm: str
    feed_forward: tuple[str, ...]
    feed_forward_norm: str
    neurons: str = "intermediate_size"
    """Where the configuration has the size of the feed-forward."""
    embedded: tuple[str, ...] = ("input_ids", "token_type_ids")
    """The inputs that its embeddings take."""

    @abstractmethod
    def classify(self, model: Any, hidden: Tensor) -> Tensor:
        """(B, L, hidden) -> (B, labels), what the head for sequences gives without dropout."""

    def positions(self, config: Any) -> int:
        """Most tokens of a text."""
        positions: int = config.max_position_embeddings
        return positions

    @property
    def places(self) -> Places:
        """Where it keeps what pruning replaces."""
        places: Places = self.portable.PLACES
        return places


class Bert(Family):
    """BERT: a pooler, which reads the first token, before the classifier."""

    name = "bert"
    portable = modeling_pgb_bert
    attention = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense")
    attention_norm = "attention.output.LayerNorm"
    feed_forward = ("intermediate.dense", "output.dense")
    feed_forward_norm = "output.LayerNorm"

    def classify(self, model: Any, hidden: Tensor) -> Tensor:
        logits: Tensor = model.classifier(model.bert.pooler(hidden))
        return logits


class Roberta(Bert):
    """RoBERTa: BERT's layers; positions count from the padding's index on; a head of two matrices."""

    name = "roberta"
    portable = modeling_pgb_roberta

    def classify(self, model: Any, hidden: Tensor) -> Tensor:
        head = model.classifier
        logits: Tensor = head.out_proj(torch.tanh(head.dense(hidden[:, 0])))
        return logits

    def positions(self, config: Any) -> int:
        padding: int = config.pad_token_id
        return super().positions(config) - padding - 1


class DistilBert(Family):
    """DistilBERT: no token types, no pooler."""

    name = "distilbert"
    portable = modeling_pgb_distilbert
    attention = ("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin")
    attention_norm = "sa_layer_norm"
    feed_forward = ("ffn.lin1", "ffn.lin2")
    feed_forward_norm = "output_layer_norm"
    neurons = "hidden_dim"
    embedded = ("input_ids",)

    def classify(self, model: Any, hidden: Tensor) -> Tensor:
        logits: Tensor = model.classifier(F.relu(model.pre_classifier(hidden[:, 0])))
        return logits


FAMILIES: Mapping[str, Family] = {family.name: family for family in (Bert(), DistilBert(), Roberta())}
"""By `model_type` of the dense models."""


def family_of(config: Any) -> Family:
    """The family of a model, dense or pruned, by its configuration."""
    return FAMILIES[config.model_type.removeprefix(PRUNED_PREFIX)]


def dense_config(family: str, values: Mapping[str, Any]) -> Any:
    """The configuration of a dense model of transformers."""
    return getattr(transformers, class_name(family, "Config"))(**values)


def dense_class(family: str, head: Head | None) -> Any:
    """The class of dense models with that head, or of the base model without one, in transformers."""
    return getattr(transformers, class_name(family, head or "Model"))


def empty_pruned(
    family: str, head: Head, config: Mapping[str, Any], sublayers: Sequence[Mapping[str, Any]]
) -> nn.Module:
    """A pruned model whose tensors have their sizes and no memory: all of them are to be assigned.

    Args:
        config: arguments of the family's configuration, of the dense model.
        sublayers: of the manifest pgb.json.
    """
    portable = FAMILIES[family].portable
    settings = getattr(portable, class_name(family, "Config", pruned=True))(
        sublayers=sublayers, **config, attn_implementation="sdpa"
    )
    with torch.device("meta"):
        model: nn.Module = getattr(portable, class_name(family, head, pruned=True))(settings)
    base = base_of(model)
    base.embeddings = type(base.embeddings)(settings)  # it has tables of its own that no checkpoint holds
    return model


# --- the parts of a model ------------------------------------------------------------------------------------------


def base_of(model: nn.Module) -> Any:
    """The model without its head: embeddings and encoder, and BERT's pooler."""
    base: Any = model
    return base.base_model


def encoder_of(model: nn.Module) -> nn.Module:
    """The module that holds the transformer layers, dense or pruned."""
    places = family_of(model.config).places
    encoder: nn.Module = base_of(model).get_submodule(places.layers.rpartition(".")[0])
    return encoder


def attention_mask(mask: Tensor) -> Tensor | None:
    """(B, L) of ones and zeros -> boolean (B, 1, 1, L) for `mix`; None when nothing is masked."""
    return None if bool(mask.all()) else mask.bool()[:, None, None, :]


def input_names(model: nn.Module) -> tuple[str, ...]:
    """What its forward pass reads: token types only where it has several of them."""
    config: Any = model.config
    typed = "token_type_ids" in family_of(config).embedded and config.type_vocab_size > 1
    return ("input_ids", "attention_mask", *(["token_type_ids"] if typed else []))


def max_length(model: nn.Module) -> int:
    """Most tokens of a text, as far as there are positions."""
    return family_of(model.config).positions(model.config)


def embed(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """(B, L, hidden): what the first sublayer reads."""
    taken = {name: inputs[name] for name in family_of(model.config).embedded if name in inputs}
    embedded: Tensor = base_of(model).embeddings(**taken)
    return embedded


def sublayer_shapes(hidden: int, heads: int, intermediate: int) -> tuple[SublayerShape, SublayerShape]:
    """Attention and feed-forward of each layer of a dense encoder."""
    return (
        SublayerShape("attention", hidden, heads, hidden // heads),
        SublayerShape("feed_forward", hidden, intermediate, 1),
    )


def all_shapes(config: Any) -> list[SublayerShape]:
    """Of every sublayer of the dense model, in the order of the forward pass."""
    neurons: int = getattr(config, family_of(config).neurons)
    layers: int = config.num_hidden_layers
    return [*sublayer_shapes(config.hidden_size, config.num_attention_heads, neurons)] * layers


def encoder_sublayers(model: nn.Module) -> list[Sublayer]:
    """The sublayers of a dense model, in the order of the forward pass."""
    config: Any = model.config
    family, base = family_of(config), base_of(model)
    prefix = "" if base is model else f"{base.base_model_prefix}."
    layers = family.places.layers_of(base)
    sublayers = []
    for place, shape in enumerate(all_shapes(config)):
        n, attention = place // 2, shape.kind == "attention"
        layer: Any = layers[n]
        paths = family.attention if attention else family.feed_forward
        *entries, exit_ = (layer.get_submodule(path) for path in paths)
        norm = layer.get_submodule(family.attention_norm if attention else family.feed_forward_norm)
        activation = layer.get_submodule(family.places.activation)
        mix = attention_mix(shape.width) if attention else activation_mix(activation)
        where = f"{prefix}{family.places.layers}.{n}"
        pruned = family.places.of(shape.kind)[0]
        sublayers.append(Sublayer(n, len(layers), shape, tuple(entries), exit_, norm, mix, where, paths, pruned))
    return sublayers


def put(model: nn.Module, sub: Sublayer, entry: Entry | None, exit_: GroupedLinear | Constant) -> None:
    """Put pruned modules in the place of `sub` in `model`; no entry where it is dropped."""
    replace_sublayer(base_of(model), family_of(model.config).places, sub.layer, sub.shape.kind, entry, exit_)


def pruned_modules(model: nn.Module) -> Iterator[tuple[Entry | None, GroupedLinear | Constant]]:
    """Entry and exit of every sublayer of a pruned model, in the order of the forward pass; no entry where dropped."""
    places = family_of(model.config).places
    for layer in places.layers_of(base_of(model)):
        for kind in ("attention", "feed_forward"):
            yield pruned_sublayer(layer, places, kind)


def attention_sizes(model: nn.Module) -> list[int]:
    """Sizes, heads * width, of every attention of `model`, dense or pruned; 0 where it is dropped."""
    config: Any = model.config
    places = family_of(config).places
    modules = [layer.get_submodule(places.attention) for layer in places.layers_of(base_of(model))]
    return [
        module.all_head_size if isinstance(module, PrunedSelfAttention) else config.hidden_size for module in modules
    ]


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


# --- heads ---------------------------------------------------------------------------------------------------------


def head_of(model: nn.Module) -> Head:
    """What the model answers: a class, a number, or where an answer starts and ends."""
    if hasattr(model, "qa_outputs"):
        return "question_answering"
    config: Any = model.config
    return "regression" if config.num_labels == 1 else "classification"


def predict(model: nn.Module, hidden: Tensor) -> Tensor:
    """(B, L, hidden), what the last sublayer gave -> predictions, without dropout.

    (B, labels) logits of classes, (B, 1) numbers of a regression, (B, L, 2) logits of an answer's start and end.
    """
    head: Any = model
    if head_of(model) == "question_answering":
        spans: Tensor = head.qa_outputs(hidden)
        return spans
    return family_of(model.config).classify(model, hidden)


def predictions_of(outputs: Any) -> Tensor:
    """What a forward pass gave, in the shape that `predict` gives it."""
    if hasattr(outputs, "start_logits"):
        return torch.stack([outputs.start_logits, outputs.end_logits], dim=-1)
    logits: Tensor = outputs.logits
    return logits

"""A DistilBERT pruned by permutation and grouping (PGB): what runs of it.

It needs torch, transformers and the two files that it imports from its own folder. The library imports these classes
from here; an exported folder holds a copy of the three files, which transformers runs with `trust_remote_code=True`.
`PGBDistilBertConfig.sublayers` gives the sizes of every block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import (
    DistilBertConfig,
    DistilBertForQuestionAnswering,
    DistilBertForSequenceClassification,
    DistilBertModel,
)
from transformers.models.distilbert.modeling_distilbert import DistilBertSelfAttention

from .pgb_sublayers import GroupedSelfAttention, NoAttention, Places, PrunedEncoder


class GroupedDistilBertAttention(GroupedSelfAttention, DistilBertSelfAttention):
    """In the place of `DistilBertSelfAttention`."""

    dropout_key = "attention_dropout"


class NoDistilBertAttention(NoAttention, DistilBertSelfAttention):
    """In the place of a `DistilBertSelfAttention` that was dropped."""


PLACES = Places(
    layers="transformer.layer",
    attention="attention",
    attention_exit="attention.exit",  # below the attention, which holds its own output matrix
    feed_forward="ffn.lin1",
    activation="ffn.activation",
    feed_forward_exit="ffn.lin2",
    grouped_attention=GroupedDistilBertAttention,
    no_attention=NoDistilBertAttention,
)


class PGBDistilBertConfig(DistilBertConfig):
    """The configuration of the dense DistilBERT, and in `sublayers` what was kept of it, as pgb.json lists it."""

    model_type = "pgb_distilbert"

    def __init__(self, sublayers: Sequence[Mapping[str, Any]] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sublayers = list(sublayers)


class PGBDistilBertModel(PrunedEncoder, DistilBertModel):
    """The encoder whose sublayers are those that the configuration lists."""

    config_class = PGBDistilBertConfig
    places = PLACES


class PGBDistilBertForSequenceClassification(DistilBertForSequenceClassification):
    """A pruned classifier, or regressor, that is called as a `DistilBertForSequenceClassification`."""

    config_class = PGBDistilBertConfig

    def __init__(self, config: PGBDistilBertConfig) -> None:
        super().__init__(config)
        self.distilbert = PGBDistilBertModel(config)
        self.post_init()


class PGBDistilBertForQuestionAnswering(DistilBertForQuestionAnswering):
    """A pruned model for extractive question answering that is called as a `DistilBertForQuestionAnswering`."""

    config_class = PGBDistilBertConfig

    def __init__(self, config: PGBDistilBertConfig) -> None:
        super().__init__(config)
        self.distilbert = PGBDistilBertModel(config)
        self.post_init()

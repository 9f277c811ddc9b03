"""A BERT pruned by permutation and grouping (PGB): what runs of it.

It needs torch, transformers and the two files that it imports from its own folder. The library imports these classes
from here; an exported folder holds a copy of the three files, which transformers runs with `trust_remote_code=True`.
`PGBBertConfig.sublayers` gives the sizes of every block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import BertConfig, BertForQuestionAnswering, BertForSequenceClassification, BertModel
from transformers.models.bert.modeling_bert import BertSelfAttention

from .pgb_sublayers import GroupedSelfAttention, NoAttention, Places, PrunedEncoder


class GroupedBertAttention(GroupedSelfAttention, BertSelfAttention):
    """In the place of `BertSelfAttention`."""


class NoBertAttention(NoAttention, BertSelfAttention):
    """In the place of a `BertSelfAttention` that was dropped."""


PLACES = Places(
    layers="encoder.layer",
    attention="attention.self",
    attention_exit="attention.output.dense",
    feed_forward="intermediate",
    activation="intermediate.intermediate_act_fn",
    feed_forward_exit="output.dense",
    grouped_attention=GroupedBertAttention,
    no_attention=NoBertAttention,
)


class PGBBertConfig(BertConfig):
    """The configuration of the dense BERT, and in `sublayers` what was kept of it, as pgb.json lists it."""

    model_type = "pgb_bert"

    def __init__(self, sublayers: Sequence[Mapping[str, Any]] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sublayers = list(sublayers)


class PGBBertModel(PrunedEncoder, BertModel):
    """The encoder whose sublayers are those that the configuration lists."""

    config_class = PGBBertConfig
    places = PLACES


class PGBBertForSequenceClassification(BertForSequenceClassification):
    """A pruned classifier, or regressor, that is called as a `BertForSequenceClassification`."""

    config_class = PGBBertConfig

    def __init__(self, config: PGBBertConfig) -> None:
        super().__init__(config)
        self.bert = PGBBertModel(config)
        self.post_init()


class PGBBertForQuestionAnswering(BertForQuestionAnswering):
    """A pruned model for extractive question answering that is called as a `BertForQuestionAnswering`."""

    config_class = PGBBertConfig

    def __init__(self, config: PGBBertConfig) -> None:
        super().__init__(config)
        self.bert = PGBBertModel(config, add_pooling_layer=False)
        self.post_init()

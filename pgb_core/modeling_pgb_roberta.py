"""A RoBERTa pruned by permutation and grouping (PGB): what runs of it.

It needs torch, transformers and the two files that it imports from its own folder. The library imports these classes
from here; an exported folder holds a copy of the three files, which transformers runs with `trust_remote_code=True`.
`PGBRobertaConfig.sublayers` gives the sizes of every block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import RobertaConfig, RobertaForQuestionAnswering, RobertaForSequenceClassification, RobertaModel
from transformers.models.roberta.modeling_roberta import RobertaSelfAttention

from .pgb_sublayers import GroupedSelfAttention, NoAttention, Places, PrunedEncoder


class GroupedRobertaAttention(GroupedSelfAttention, RobertaSelfAttention):
    """In the place of `RobertaSelfAttention`."""


class NoRobertaAttention(NoAttention, RobertaSelfAttention):
    """In the place of a `RobertaSelfAttention` that was dropped."""


PLACES = Places(
    layers="encoder.layer",
    attention="attention.self",
    attention_exit="attention.output.dense",
    feed_forward="intermediate",
    activation="intermediate.intermediate_act_fn",
    feed_forward_exit="output.dense",
    grouped_attention=GroupedRobertaAttention,
    no_attention=NoRobertaAttention,
)


class PGBRobertaConfig(RobertaConfig):
    """The configuration of the dense RoBERTa, and in `sublayers` what was kept of it, as pgb.json lists it."""

    model_type = "pgb_roberta"

    def __init__(self, sublayers: Sequence[Mapping[str, Any]] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sublayers = list(sublayers)


class PGBRobertaModel(PrunedEncoder, RobertaModel):
    """The encoder whose sublayers are those that the configuration lists."""

    config_class = PGBRobertaConfig
    places = PLACES


class PGBRobertaForSequenceClassification(RobertaForSequenceClassification):
    """A pruned classifier, or regressor, that is called as a `RobertaForSequenceClassification`."""

    config_class = PGBRobertaConfig

    def __init__(self, config: PGBRobertaConfig) -> None:
        super().__init__(config)
        self.roberta = PGBRobertaModel(config, add_pooling_layer=False)
        self.post_init()


class PGBRobertaForQuestionAnswering(RobertaForQuestionAnswering):
    """A pruned model for extractive question answering that is called as a `RobertaForQuestionAnswering`."""

    config_class = PGBRobertaConfig

    def __init__(self, config: PGBRobertaConfig) -> None:
        super().__init__(config)
        self.roberta = PGBRobertaModel(config, add_pooling_layer=False)
        self.post_init()

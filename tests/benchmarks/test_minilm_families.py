"""BERT's weights in the layout of another family give BERT's hidden states."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel

from benchmarks.minilm_families import FAMILIES, to_distilbert


def random_bert(**changes: Any) -> BertModel:
    sizes = {"vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = BertConfig(**sizes, intermediate_size=40, max_position_embeddings=30, initializer_range=0.3, **changes)
        return BertModel(config).eval()


@pytest.mark.parametrize(("family", "tolerance"), [("distilbert", 1e-5), ("roberta", 0.0)])
def test_hidden_states_are_those_of_the_bert(family: str, tolerance: float) -> None:
    bert = random_bert()
    other = FAMILIES[family](bert)
    ids = torch.randint(1, 50, (4, 30), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(30) < torch.tensor([30, 17, 5, 1])[:, None]).long()
    inputs = {"input_ids": ids * mask, "attention_mask": mask}
    with torch.no_grad():
        expected, found = (model(**inputs, output_hidden_states=True).hidden_states for model in (bert, other))
    assert len(found) == 4
    for state, wanted in zip(found, expected, strict=True):
        assert float((state - wanted)[mask.bool()].abs().max()) <= tolerance


def test_an_epsilon_that_distilbert_does_not_have_is_told() -> None:
    with pytest.raises(ValueError, match="1e-12, not 1e-05"):
        to_distilbert(random_bert(layer_norm_eps=1e-5))

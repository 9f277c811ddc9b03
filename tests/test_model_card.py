"""The model card says what was measured, and no more than is known."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from huggingface_hub import ModelCard

from pgb_core import console, store
from pgb_core.checkpoints import describe
from pgb_core.export import FORMATS
from pgb_core.families import FAMILIES, Head
from pgb_core.inspection import CheckpointInfo
from pgb_core.model_card import Facts, model_card
from pgb_core.spec import METHODS
from tests.sample_run import make_sample_run


@pytest.fixture
def facts(tiny_checkpoint: Path, tmp_path: Path) -> Facts:
    """Those of a finished and recovered run of the demo."""
    run = store.read_run(make_sample_run(tmp_path / "runs", recovered=True))
    kept = [("25.0%: 2 of 4 heads in 2 groups", "whole"), ("dropped", "50.0%: 32 of 64 neurons")]
    return Facts("safetensors", describe(tiny_checkpoint), kept, run.spec, run.result)


def header(card: str) -> dict[str, Any]:
    match = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
    assert match is not None
    found: dict[str, Any] = yaml.safe_load(match[1])
    assert ModelCard(card).data.to_dict() == found  # as the Hub reads it
    return found


def table(card: str, section: str) -> list[list[str]]:
    """The cells of the rows of all tables in a section."""
    text = card.split(f"\n## {section}\n")[1].split("\n## ", maxsplit=1)[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def with_spec(facts: Facts, **changes: Any) -> Facts:
    assert facts.spec is not None
    return replace(facts, spec={**facts.spec, **changes})


def test_the_header_names_the_demo_s_base_model_and_its_license(facts: Facts) -> None:
    assert header(model_card(facts)) == {
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        "base_model": "sentence-transformers/all-MiniLM-L6-v2",
        "license": "apache-2.0",
        "tags": ["bert", "pruning", "pgb"],
    }


def test_what_is_not_known_is_left_out(facts: Facts) -> None:
    of_hub = header(model_card(with_spec(facts, checkpoint_source="hub", checkpoint="hub:owner/name", revision="abc")))
    assert of_hub["base_model"] == "owner/name"
    assert "license" not in of_hub
    card = model_card(with_spec(facts, checkpoint_source="folder", checkpoint="/home/someone/secret/my model"))
    assert not header(card).keys() & {"base_model", "license"}
    assert "`my model`" in card
    assert "secret" not in card
    unknown = model_card(replace(facts, spec=None, result=None))
    assert not header(unknown).keys() & {"base_model", "license"}
    assert "What was measured" not in unknown
    assert "Where it comes from" in unknown
    dense = model_card(replace(facts, spec=None, result=None, kept=[], format="onnx"))
    assert "pruned" not in dense.lower()
    assert header(dense)["tags"] == ["bert", "onnx"]


def test_every_score_has_its_standard_error(facts: Facts) -> None:
    assert facts.result is not None
    score = facts.result["score"]
    head, _, *rows = table(model_card(facts), "What was measured")[:6]
    assert head == ["model", "accuracy", "standard error"]
    stages = ("dense", "masked", "compensated", "recovered")
    assert [row[1:] for row in rows] == [[f"{score[s]:.4f}", f"{score['standard_error'][s]:.4f}"] for s in stages]
    assert [row[0].endswith("this model**") for row in rows] == [False, False, False, True]
    without = {**facts.result, "score": {**score, "recovered": None, "standard_error": {}}}
    rows = table(model_card(replace(facts, result=without)), "What was measured")[2:5]
    assert [row[2] for row in rows] == ["", "", ""]
    assert rows[-1][0] == "**kept weights refitted by least squares: this model**"


def test_sizes_and_latency_are_those_of_the_result(facts: Facts) -> None:
    assert facts.result is not None
    card = model_card(facts)
    rows = {row[0]: row[1:] for row in table(card, "What was measured")}
    for name, key in (("parameters", "parameters"), ("bytes of `model.safetensors`", "bytes")):
        dense, pruned = (facts.result[key][which] for which in ("dense", "pruned"))
        assert rows[name] == [f"{dense:,}", f"{pruned:,}", f"{pruned / dense:.1%}"]
    assert f"Latency of a forward pass: {console.describe_latency(facts.result['latency'])}." in card
    assert "measured in torch, not with this graph" in model_card(replace(facts, format="onnx"))
    assert "Latency" not in model_card(replace(facts, result={**facts.result, "latency": None}))


@pytest.mark.parametrize("method", METHODS)
def test_it_says_which_method_removed_how_much(facts: Facts, method: str) -> None:
    assert facts.result is not None
    card = model_card(with_spec(facts, method=method))
    assert f"{facts.result['sparsity']['achieved']:.1%} of the weights were removed by method `{method}`" in card
    assert METHODS[method] in card


def test_what_is_left_of_every_layer(facts: Facts) -> None:
    assert table(model_card(facts), "What is left of the encoder")[2:] == [
        ["1", "25.0%: 2 of 4 heads in 2 groups", "whole"],
        ["2", "dropped", "50.0%: 32 of 64 neurons"],
    ]


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("head", get_args(Head))
def test_its_code_is_code_for_that_model(facts: Facts, format_: str, family: str, head: Head) -> None:
    info = replace(facts.info, family=family, head=head, token_types=2 if family == "bert" else 1)
    card = model_card(replace(facts, format=format_, info=info))
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    compile(code, "card", "exec")
    assert f"# A pruned {FAMILIES[family].title} " in card
    assert header(card)["tags"][0] == family
    assert ("question-answering" in card) == ("start_logits" in code) == (head == "question_answering")
    assert ("Labels: " in card) == (head == "classification")
    if format_ == "onnx":
        assert f"return_token_type_ids={family == 'bert'}" in code
    else:
        assert f"`modeling_pgb_{family}.py`" in card
        assert ("import AutoModelForQuestionAnswering" in code) == (head == "question_answering")


def test_labels_are_words_not_markup(facts: Facts, tiny_checkpoint: Path) -> None:
    info: CheckpointInfo = replace(describe(tiny_checkpoint), labels=("a|b", "`<script>`", "two\nlines", *"cdef" * 6))
    (line,) = [line for line in model_card(replace(facts, info=info)).splitlines() if line.startswith("Labels: ")]
    assert line.startswith("Labels: `a\\|b`, `'<script>'`, `two lines`, `c`")
    assert line.endswith("and 7 more.")

"""The table of files is that of the live models, and every family goes through the whole pipeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import transformers

from pgb_core import PruneSpec, architectures, evaluation, families, load_pruned, prune
from pgb_core.batching import encode_texts
from pgb_core.checkpoints import load_tokenizer
from pgb_core.families import FAMILIES, Head, auto_map, class_name, portable_files
from tests.tiny import make_tiny_checkpoint, tiny_model, tiny_texts

HEADS: tuple[Head, ...] = get_args(Head)


def test_both_tables_have_the_same_families() -> None:
    assert architectures.FAMILIES.keys() == FAMILIES.keys()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("head", HEADS)
def test_the_tensors_of_the_table_are_those_of_the_model(family: str, head: Head) -> None:
    model: Any = tiny_model(family, head)
    files, config = FAMILIES[family], model.config.to_dict()
    prefix = f"{family}."
    expected = {prefix + name: shape for name, shape in files.encoder_shapes(config, pruned=False).items()}
    expected |= files.head_shapes(head, 32, model.config.num_labels, prefix)
    assert expected == {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert files.positions(config) == architectures.max_length(model)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_defaults_of_the_table_are_those_of_transformers(family: str) -> None:
    files = FAMILIES[family]
    config: Any = getattr(transformers, class_name(family, "Config"))()
    for name, value in files.sizes.items():
        assert getattr(config, files.key(name)) == value
    for name, number in files.numbers.items():
        assert getattr(config, name) == number
    assert config.pad_token_id == files.pad


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("head", HEADS)
def test_the_classes_that_a_config_names_are_in_the_files_that_it_comes_with(family: str, head: Head) -> None:
    assert hasattr(transformers, class_name(family, head))
    for auto, reference in auto_map(family, head).items():
        module, _, name = reference.partition(".")
        assert hasattr(transformers, auto)
        assert f"{module}.py" in portable_files(family)
        assert hasattr(architectures.FAMILIES[family].portable, name)
    for file in portable_files(family):
        assert Path(families.__file__).with_name(file).is_file()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("family", ["distilbert", "roberta"])
def test_the_whole_pipeline(family: str, tiny_csv: Path, tmp_path: Path) -> None:
    checkpoint = make_tiny_checkpoint(tmp_path / family, family=family)
    spec = PruneSpec(
        str(checkpoint),
        "csv",
        0.5,
        train_file=str(tiny_csv),
        calibration_samples=128,
        recover_epochs=1,
        latency=False,
    )
    result = prune(spec, tmp_path / "run")
    assert result["sparsity"]["achieved"] == pytest.approx(0.5, abs=0.05)
    score = result["score"]
    assert score["dense"] > 0.8
    assert score["compensated"] > score["dense"] - 0.1
    assert json.loads((tmp_path / "run" / "model" / "pgb.json").read_text())["family"] == family
    found = evaluation.evaluate_checkpoint(str(tmp_path / "run" / "model"), "csv", train_file=str(tiny_csv))
    assert found["score"] == score["recovered"]
    model = load_pruned(tmp_path / "run" / "model")
    texts, labels = tiny_texts(40, seed=9)
    examples = encode_texts(texts, None, labels, load_tokenizer(tmp_path / "run" / "model"), 64)
    assert examples[0].token_type_ids is None
    assert np.mean(evaluation.logits(model, examples).argmax(axis=1) == labels) > 0.7

"""Regression and question answering through the whole pipeline: train, prune, evaluate, reload."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
import torch

from pgb_core import PruneSpec, answers, evaluation, judging, load_pruned, prune, store
from pgb_core.__main__ import main
from pgb_core.answers import Graded
from pgb_core.checkpoints import load_model, load_tokenizer
from pgb_core.console import describe_result
from pgb_core.errors import TaskError
from pgb_core.spec import BASELINES
from pgb_core.tasks import load_task
from tests.answering import make_answering_checkpoint, make_valued_csv, make_valuing_checkpoint, questions
from tests.hub_copy import write_glue, write_squad
from tests.tiny import make_tiny_checkpoint

STAGES = {"dense", "masked", "compensated"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data folder with SQuAD 1.1 and 2.0 of our own, and caches of this module."""
    base = tmp_path_factory.mktemp("squad")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGB_DATA_DIR", str(base / "data"))
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", base / "cache")
        write_squad(questions(960, 0), questions(120, 1))
        write_squad(questions(960, 2, unanswerable=0.3), questions(120, 3, unanswerable=0.3), "squad_v2")
        yield base


@pytest.fixture(scope="module")
def answering(data: Path) -> Path:
    return make_answering_checkpoint(data / "answering")


@pytest.fixture(scope="module")
def valuing(data: Path) -> tuple[Path, Path]:
    """A regression and its file."""
    file = make_valued_csv(data / "values.csv")
    return make_valuing_checkpoint(data / "valuing", file), file


@pytest.fixture(autouse=True)
def _data_folder(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGB_DATA_DIR", str(data / "data"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", data / "cache")


def run(folder: Path, **values: Any) -> dict[str, Any]:
    spec = PruneSpec(**{"sparsity": 0.5, "calibration_samples": 96, "latency": False, "max_length": 32, **values})
    return prune(spec, folder)


def test_a_question_answering_model_prunes_evaluates_and_reloads(answering: Path, tmp_path: Path) -> None:
    result = run(tmp_path / "run", checkpoint=str(answering), task="squad", recover_epochs=1)
    score = result["score"]
    assert (score["metric"], score["samples"], score["majority"]) == ("f1", 120, 0.0)
    assert score["dense"] > 0.9
    assert score["compensated"] > 0.5
    assert score["recovered"] >= score["compensated"] - 0.05
    assert score["secondary"]["exact_match"]["dense"] <= score["dense"]
    assert score["standard_error"].keys() == {*STAGES, "recovered"}
    assert abs(result["sparsity"]["achieved"] - 0.5) < 0.1
    json.dumps(result, allow_nan=False)

    model = load_pruned(tmp_path / "run" / "model")
    assert hasattr(model, "qa_outputs")
    found = evaluation.evaluate_checkpoint(str(tmp_path / "run" / "model"), "squad", max_length=32)
    assert found["score"] == pytest.approx(score["recovered"])
    assert found["secondary"]["exact_match"]["score"] == score["secondary"]["exact_match"]["recovered"]

    kept = answers.read_answers(store.read_run(tmp_path / "run"))
    assert isinstance(kept, Graded)
    assert (kept.unit, kept.points.keys()) == ("F1", {*STAGES, "recovered"})
    assert kept.points["dense"].mean() == pytest.approx(score["dense"])


def test_paragraphs_longer_than_a_window_are_answered(answering: Path) -> None:
    """Windows of 10 tokens, of which 6 are of the paragraph of 8: an answer is in one of two windows, or both."""
    found = evaluation.evaluate_checkpoint(str(answering), "squad", max_length=10)
    split = judging.evaluation_of(
        (data := load_task("squad", id2label={0: "a", 1: "b"})).task, data.evaluation, load_tokenizer(answering), 10
    )
    assert len(split.windows) == 2 * len(split.rows)
    assert found["score"] > 0.8


def test_questions_without_answers_are_part_of_squad_2(data: Path, tmp_path: Path) -> None:
    checkpoint = make_answering_checkpoint(data / "answering2", "squad_v2", epochs=10)
    result = run(tmp_path / "run", checkpoint=str(checkpoint), task="squad_v2", sparsity=0.3)
    score = result["score"]
    share = load_task("squad_v2", id2label={0: "a", 1: "b"}).evaluation["label"][:].count(0) / 120
    assert score["majority"] == pytest.approx(share)
    assert score["dense"] > share + 0.3
    assert score["compensated"] > share


def test_a_regression_prunes_evaluates_and_reloads(valuing: tuple[Path, Path], tmp_path: Path) -> None:
    checkpoint, file = valuing
    result = run(tmp_path / "run", checkpoint=str(checkpoint), task="csv", train_file=str(file), recover_epochs=1)
    score = result["score"]
    assert (score["metric"], score["majority"]) == ("pearson_spearman", 0.0)
    assert abs(score["samples"] - 400 / 5) <= 2  # a fifth of each fifth of the values, rounded
    assert score["dense"] > 0.9
    assert score["compensated"] > 0.8
    assert score["secondary"].keys() == {"pearson", "spearman"}
    means = [score["secondary"][name]["compensated"] for name in ("pearson", "spearman")]
    assert score["compensated"] == pytest.approx(sum(means) / 2)

    found = evaluation.evaluate_checkpoint(str(tmp_path / "run" / "model"), "csv", train_file=str(file), max_length=32)
    assert found["score"] == pytest.approx(score["recovered"], abs=1e-6)
    kept = answers.read_answers(store.read_run(tmp_path / "run"))
    assert isinstance(kept, Graded)
    assert (kept.unit, len(kept.rows)) == ("less the squared error", score["samples"])
    assert (kept.points["dense"] <= 0).all()


@pytest.mark.parametrize("method", [method for method in BASELINES if method != "magnitude"])
@pytest.mark.parametrize("head", ["regression", "question_answering"])
def test_the_methods_of_others_know_every_head(
    answering: Path, valuing: tuple[Path, Path], tmp_path: Path, head: str, method: str
) -> None:
    values = {"checkpoint": str(answering), "task": "squad"}
    if head == "regression":
        values = {"checkpoint": str(valuing[0]), "task": "csv", "train_file": str(valuing[1])}
    result = run(tmp_path / "run", method=method, sparsity=0.2, eval_samples=40, **values)
    assert np.isfinite(result["score"]["compensated"])
    assert abs(result["sparsity"]["achieved"] - 0.2) < 0.1


def test_a_task_for_another_head_is_refused_in_one_line(answering: Path, valuing: tuple[Path, Path]) -> None:
    for checkpoint, task in ((answering, "sst2"), (valuing[0], "squad"), (valuing[0], "mnli")):
        with pytest.raises(TaskError, match=f"task {task} is for") as caught:
            evaluation.evaluate_checkpoint(str(checkpoint), task)
        assert "\n" not in str(caught.value)


def test_predictions_do_not_depend_on_the_batch(answering: Path) -> None:
    data = load_task("squad", id2label={0: "a", 1: "b"})
    split = judging.evaluation_of(data.task, data.evaluation, load_tokenizer(answering), 32, samples=20)
    model = load_model(answering)
    together, alone = (evaluation.logits(model, split.examples, batch_size=size) for size in (20, 1))
    assert np.array_equal(np.isneginf(together), np.isneginf(alone))
    assert torch.allclose(torch.from_numpy(together), torch.from_numpy(alone), atol=1e-5)


def test_the_command_line_maps_columns_and_labels(
    tiny_checkpoint: Path, tiny_csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pd.read_csv(tiny_csv)
    rows = table.rename(columns={"text": "review"}).assign(label=table["label"].map({"negative": 1, "positive": 5}))
    file = tmp_path / "mine.jsonl"
    rows.rename(columns={"label": "stars"}).to_json(file, orient="records", lines=True)
    common = ["evaluate", f"--checkpoint={tiny_checkpoint}", "--task=csv", "--json", "--eval-samples=40"]
    mapped = ["--text-column=review", "--label-column=stars", "--label-map=1=negative", "--label-map=5=positive"]
    found = []
    for arguments in ([f"--train-file={file}", *mapped], [f"--train-file={tiny_csv}"]):
        assert main([*common, *arguments]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0] == found[1]
    assert main([*common, f"--train-file={file}", *mapped[:3]]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("pgb: ")]
    assert "has the label '5', which names none" in line
    assert main([*common[:2], "--task=bbc-news", "--label-map=1=negative"]) == 2
    assert "belong to files of task csv" in capsys.readouterr().err


def test_a_run_that_takes_labels_by_number_says_so(data: Path, tmp_path: Path) -> None:
    write_glue()
    checkpoint = make_tiny_checkpoint(tmp_path / "nameless", labels=("LABEL_0", "LABEL_1"), train=False)
    result = run(tmp_path / "run", checkpoint=str(checkpoint), task="cola", sparsity=0.2)
    assert result["note"].endswith("0 is unacceptable, 1 is acceptable")
    assert (result["score"]["metric"], result["score"]["secondary"].keys()) == ("matthews", {"accuracy"})
    assert result["note"] in (tmp_path / "run" / "log.txt").read_text()
    assert f"note        {result['note']}" in describe_result(result)
    found = evaluation.evaluate_checkpoint(str(checkpoint), "cola")
    assert found["note"] == result["note"]
    assert found["score"] == pytest.approx(result["score"]["dense"])

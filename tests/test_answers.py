"""Answers of a run's models, example by example."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pgb_core import RunError, answers, store
from pgb_core.answers import Answers, Graded
from tests.sample_run import make_sample_run


def some(count: int = 50, names: tuple[str, ...] = ("no", "yes", "perhaps")) -> tuple[Answers, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, len(names), count)
    logits = {stage: rng.normal(0, 3, (count, len(names))).astype(np.float32) for stage in ("dense", "compensated")}
    said = {stage: answers.said(values, labels) for stage, values in logits.items()}
    return Answers(np.arange(count) * 3, labels, names, said), logits


def test_probabilities_are_the_softmax_and_labels_its_largest() -> None:
    found, logits = some()
    for stage, values in logits.items():
        expected = torch.from_numpy(values).double().softmax(dim=1).numpy()
        said = found.said[stage]
        assert np.array_equal(said.predicted, expected.argmax(axis=1))
        assert np.allclose(said.probability, expected.max(axis=1), atol=1e-6)
        assert np.allclose(said.right_probability, expected[np.arange(50), found.labels], atol=1e-6)
        assert np.array_equal(found.right(stage), said.predicted == found.labels)


def test_logits_of_any_size_give_probabilities() -> None:
    shares = answers.softmax(np.array([[1e4, -1e4], [0, 0]], dtype=np.float32))
    assert shares.tolist() == [[1.0, 0.0], [0.5, 0.5]]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    found, _ = some()
    run = store.read_run(make_sample_run(tmp_path))
    answers.write_answers(run.path, found)
    read = answers.read_answers(run)
    assert read is not None
    assert read.same_examples(found)
    assert read.label_names == found.label_names
    assert read.said.keys() == found.said.keys()
    for stage, said in found.said.items():
        assert np.array_equal(read.said[stage].predicted, said.predicted)
        assert np.allclose(read.said[stage].probability, said.probability, atol=1e-3)
    assert (run.path / answers.FILE).stat().st_size < 50 * 40 + 1000
    assert not read.same_examples(Answers(found.rows + 1, found.labels, found.label_names, found.said))


def test_a_run_without_them_is_told_from_a_damaged_one(tmp_path: Path) -> None:
    run = store.read_run(make_sample_run(tmp_path, kept_answers=False))
    assert answers.read_answers(run) is None
    (run.path / answers.FILE).write_bytes(b"half a file")
    with pytest.raises(RunError, match="damaged"):
        answers.read_answers(run)


def test_a_run_that_did_not_end_well_keeps_none(tmp_path: Path) -> None:
    run = make_sample_run(tmp_path)
    store.discard_results(run)
    assert not (run / answers.FILE).exists()


def test_points_of_other_heads_are_kept_and_compared(tmp_path: Path) -> None:
    run = make_sample_run(tmp_path)
    points = {"dense": np.array([1.0, 0.5, 0.0]), "compensated": np.array([0.5, 0.5, 0.25])}
    graded = Graded(np.array([4, 7, 9]), "F1", points)
    answers.write_answers(run, graded)
    found = answers.read_answers(store.read_run(run))
    assert isinstance(found, Graded)
    assert (found.unit, found.rows.tolist()) == ("F1", [4, 7, 9])
    assert {stage: values.tolist() for stage, values in found.points.items()} == {
        stage: values.tolist() for stage, values in points.items()
    }
    assert found.same_examples(graded)
    assert not found.same_examples(Graded(graded.rows, "less the squared error", points))
    assert not found.same_examples(Graded(np.array([4, 7, 8]), "F1", points))

"""The sample runs that are shipped: small, whole, and silent about the machine that made them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import make_samples
from pgb_core import RunError, disk, files, matrices, store
from pgb_core.figures import matrix as figures
from pgb_core.spec import PruneSpec
from pgb_core.store import SAMPLES, Run
from tests.sample_run import make_sample_run

FOLDERS = sorted(path for path in SAMPLES.iterdir() if path.is_dir())


@pytest.fixture
def samples(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Run]:
    monkeypatch.setenv("PGB_SHOW_SAMPLES", "1")
    return store.list_runs(tmp_path)


def test_all_of_them_are_read_and_small(samples: list[Run]) -> None:
    assert len(samples) == len(FOLDERS) >= 4
    assert disk.below(SAMPLES) < 1_000_000
    assert {run.spec["task"] for run in samples}
    for run in samples:
        assert run.result is not None
        assert run.result["schema"] == 1
        assert run.result["method"] == run.spec["method"]
        assert PruneSpec.from_dict(run.spec).checkpoint == "demo"
        assert len(run.spec["fingerprint"]) == 64
        assert len(run.machine or "") > 5
        assert len(store.read_options(run)) == len(run.result["sublayers"])


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_nothing_tells_of_the_machine_that_made_them(folder: Path) -> None:
    for path in folder.iterdir():
        text = files.read_bytes(path.with_name(path.name.removesuffix(files.PACKED))).decode("utf-8", "replace")
        assert not re.search(r'"[^"]*(/root|/home|/tmp|/Users|/work|\\\\)[^"]*"', text), path.name
        assert not re.search(r'"(/|[A-Z]:)[^"]+"', text), path.name
        assert '"pid"' not in text


def test_their_matrices_are_read_and_drawn(samples: list[Run]) -> None:
    for run in samples:
        readable = matrices.readable(run)
        assert {(kind, name) for _, kind, name in readable} == set(make_samples.MATRICES)
        assert readable < matrices.read_layouts(run).keys()
        for key in readable:
            view = matrices.read_matrix(run, *key)
            assert view.importance.shape == (view.layout.rows, view.layout.columns)
            assert view.importance.max() == 1.0
            assert (view.pruned, view.dense) == (None, None)
            assert sum(view.kept_importance) <= 1 + 1e-6
            assert figures.overview(view, "permuted", "importance") is not None
            assert figures.overview(view, "permuted", "weight") is None
        with pytest.raises(RunError, match="came without 'key'"):
            matrices.read_matrix(run, 0, "attention", "key")


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_importance_in_steps_is_within_half_a_step(values: list[float]) -> None:
    importance = np.array([values], dtype=np.float32)
    back = matrices.from_levels(matrices.to_levels(importance))
    decades = np.log10(np.maximum(importance, 10.0**-matrices.DECADES)) - np.log10(back)
    assert np.abs(decades).max() <= matrices.DECADES / (matrices.LEVELS - 1) / 2 + 1e-5


def test_samples_are_made_of_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the same layout and importance, other results, and a folder of another name
    made = [
        make_sample_run(tmp_path / "runs", sparsity=0.6, seed=1, recovered=recovered, run_id=name)
        for recovered, name in ((False, None), (True, "recovered"))
    ]
    out = tmp_path / "samples"
    for _ in range(2):  # what was there before is replaced
        make_samples.main([*map(str, made), "--machine", "a test", "--out", str(out)])
    monkeypatch.setattr(store, "SAMPLES", out)
    monkeypatch.setenv("PGB_SHOW_SAMPLES", "1")
    samples = store.list_runs(tmp_path / "none")
    assert [run.machine for run in samples] == ["a test"] * 2
    assert len(list(out.glob("importance-*"))) == 1  # shared
    for run in samples:
        assert "checkpoint_path" not in run.spec
        own = next(own for own in map(store.read_run, made) if own.result == run.result)
        for key in matrices.readable(run):
            coarse, exact = matrices.read_matrix(run, *key), matrices.read_matrix(own, *key)
            np.testing.assert_array_equal(coarse.layout.row_order(), exact.layout.row_order())
            assert coarse.kept_importance == exact.kept_importance


def test_what_nobody_can_repeat_is_no_sample(tmp_path: Path) -> None:
    run = make_sample_run(tmp_path, checkpoint="mine", task="csv")
    with pytest.raises(SystemExit, match="not a finished run of the demo"):
        make_samples.main([str(run), "--out", str(tmp_path / "samples")])
    assert not (tmp_path / "samples").exists()

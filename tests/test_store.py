"""All runs of a server: found, listed, deleted; safe against foreign ids."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pgb_core import RunError, store
from pgb_core.label import Label
from tests.sample_run import make_sample_run, write_running


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return make_sample_run(tmp_path / "runs")


def test_new_runs_get_folders_of_their_own(tmp_path: Path) -> None:
    paths = [store.new_run(tmp_path / "deep" / "runs") for _ in range(20)]
    assert len(set(paths)) == 20
    assert all(path.is_dir() and not list(path.iterdir()) for path in paths)


# --- finding, listing, deleting ------------------------------------------------------------------------------------


def test_runs_are_listed_newest_first_and_damaged_ones_left_out(tmp_path: Path) -> None:
    assert store.list_runs(tmp_path / "nowhere") == []
    old, new = (write_running(tmp_path, created=created) for created in (10.0, 20.0))
    broken = store.new_run(tmp_path)
    (broken / "status.json").write_text("{")
    unfinished = write_running(tmp_path, created=30.0, state="done")  # without a result
    (tmp_path / "notes").mkdir()
    (tmp_path / ".queue.lock").touch()
    assert [run.path for run in store.list_runs(tmp_path)] == [new, old]
    assert not (unfinished / "result.json").exists()


def test_the_active_are_listed_in_the_order_of_their_submission(tmp_path: Path) -> None:
    second, first = (write_running(tmp_path, created=created) for created in (20.0, 10.0))
    write_running(tmp_path, created=1.0, state="done")
    write_running(tmp_path, created=2.0, pid_created=1.0)
    assert [path for path, _ in store.list_active(tmp_path)] == [first, second]


@pytest.mark.parametrize(
    "run_id", ["", ".", "..", "../secret", "/etc", "20250101-000000-abcdef/../..", "20250101-000000-ABCDEF", "x" * 999]
)
def test_what_is_no_run_id_never_becomes_a_path(tmp_path: Path, run_id: str) -> None:
    (tmp_path / "secret").mkdir()
    with pytest.raises(RunError, match="There is no run"):
        store.find_run(tmp_path / "runs", run_id)
    with pytest.raises(RunError, match="There is no run"):
        store.delete_run(tmp_path / "runs", run_id)
    assert (tmp_path / "secret").is_dir()


def test_a_trailing_newline_is_no_run_id(run_dir: Path) -> None:
    with pytest.raises(RunError, match="There is no run"):
        store.find_run(run_dir.parent, f"{run_dir.name}\n")


def test_a_finished_run_is_found_and_deleted(run_dir: Path) -> None:
    run = store.find_run(run_dir.parent, run_dir.name)
    assert (run.id, run.path, run.status.state) == (run_dir.name, run_dir, "done")
    assert run.result is not None
    assert run.result["schema"] == 1
    store.delete_run(run_dir.parent, run_dir.name)
    assert not run_dir.exists()


def test_an_active_run_is_not_deleted(tmp_path: Path) -> None:
    path = write_running(tmp_path)
    with pytest.raises(RunError, match="still active; cancel it first"):
        store.delete_run(tmp_path, path.name)
    assert path.is_dir()


# --- labels, lists that are read once, samples ---------------------------------------------------------------------


def test_a_label_is_read_back_and_survives_the_run(run_dir: Path) -> None:
    assert store.read_run(run_dir).label == Label()
    label = Label("Monday", "a note\nof two lines", pinned=True)
    store.write_label(run_dir.parent, run_dir.name, label)
    assert store.find_run(run_dir.parent, run_dir.name).label == label
    store.discard_results(run_dir)
    assert json.loads((run_dir / "label.json").read_text())["name"] == "Monday"


@pytest.mark.parametrize("run_id", ["../secret", "20250101-000000-abcdef", "20250101-000000-abcdef/..", ""])
def test_a_label_goes_to_a_run_or_nowhere(tmp_path: Path, run_id: str) -> None:
    (tmp_path / "secret").mkdir()
    with pytest.raises(RunError, match="There is no run"):
        store.write_label(tmp_path / "runs", run_id, Label("x"))
    assert list((tmp_path / "secret").iterdir()) == []


def test_a_damaged_run_can_be_deleted_and_what_an_interrupted_deletion_left_goes_with_it(run_dir: Path) -> None:
    runs_dir = run_dir.parent
    (run_dir / "status.json").write_text("{")
    (runs_dir / ".20250101-000000-abcdef.deleted" / "model").mkdir(parents=True)
    store.delete_run(runs_dir, run_dir.name)
    assert list(runs_dir.iterdir()) == []


def test_samples_come_after_the_server_s_own_runs_and_are_not_touched(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs_dir = run_dir.parent
    assert [run.id for run in store.list_runs(runs_dir)] == [run_dir.name]  # hidden in tests
    monkeypatch.setenv("PGB_SHOW_SAMPLES", "1")
    first, *samples = store.list_runs(runs_dir)
    assert (first.id, first.sample) == (run_dir.name, False)
    assert samples
    assert all(run.sample and run.machine for run in samples)
    assert [run.id for run in store.list_own(runs_dir)] == [run_dir.name]
    sample = samples[0]
    assert store.find_run(runs_dir, sample.id).sample
    assert store.read_options(sample)
    for change in (store.delete_run, lambda *place: store.write_label(*place, Label("mine"))):
        with pytest.raises(RunError, match="There is no run"):
            change(runs_dir, sample.id)
    assert store.find_run(runs_dir, sample.id).label == Label()

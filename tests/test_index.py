"""What is known of all runs without opening them: right whatever happens behind it, and quick."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from pgb_core import disk, index, run_folder, store
from pgb_core.index import Index
from pgb_core.label import Label
from pgb_core.sweep_spec import FILE
from tests.sample_run import make_sample_run, settle, write_running


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return make_sample_run(tmp_path / "runs")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that are opened, in order."""
    opened: list[Path] = []
    read = run_folder.recorded_status
    monkeypatch.setattr("pgb_core.run_folder.recorded_status", lambda path: opened.append(path) or read(path))
    return opened


def another_process(runs_dir: Path) -> Index:
    """The index as a process that has just started has it."""
    return Index(runs_dir, index.file_of(runs_dir))


def many(run_dir: Path, count: int) -> Path:
    """Fill the folder of `run_dir` up to `count` runs that ended a while ago; returns it."""
    for number in range(count - 1):
        path = run_dir.parent / f"20250101-000000-{number:06x}"
        path.mkdir()
        for name in ("spec.json", "status.json", "result.json"):
            os.link(run_dir / name, path / name)
        settle(path)
    settle(run_dir)
    return run_dir.parent


def test_a_run_that_was_read_is_read_again_once_it_has_changed(run_dir: Path, reads: list[Path]) -> None:
    settle(run_dir)
    first = store.list_own(run_dir.parent)
    assert reads == [run_dir]
    assert store.list_own(run_dir.parent) == first
    store.write_label(run_dir.parent, run_dir.name, Label("new"))
    assert [run.label.name for run in store.list_own(run_dir.parent)] == ["new"]
    assert reads == [run_dir] * 2


def test_what_changed_just_now_is_not_remembered(run_dir: Path, reads: list[Path]) -> None:
    for _ in range(3):
        assert len(store.list_own(run_dir.parent)) == 1
    assert reads == [run_dir] * 3


def test_another_process_knows_what_this_one_read_and_finds_what_came_went_and_changed(
    run_dir: Path, reads: list[Path]
) -> None:
    runs_dir = many(run_dir, 4)
    known = {entry.path: entry for entry in another_process(runs_dir).entries()}
    reads.clear()
    other = another_process(runs_dir)
    assert {entry.path: entry for entry in other.entries()} == known
    assert reads == []
    gone, changed = runs_dir / "20250101-000000-000000", runs_dir / "20250101-000000-000001"
    shutil.rmtree(gone)
    store.write_label(runs_dir, changed.name, Label("changed"))
    new = runs_dir / "20260101-000000-ffffff"
    shutil.copytree(run_dir, new)
    for path in (changed, new):
        settle(path)
    for each in (other, another_process(runs_dir), another_process(runs_dir)):
        labels = {entry.path: entry.run.label.name for entry in each.entries() if entry.run is not None}
        assert labels == {path: "changed" if path == changed else "" for path in {*known, new} - {gone}}
    assert sorted(reads) == sorted([changed, new])


def test_a_list_has_all_of_a_run_but_what_is_large(run_dir: Path) -> None:
    settle(run_dir)
    for _ in range(2):
        listed, found = another_process(run_dir.parent).entries()[0].run, store.read_run(run_dir)
        assert listed is not None
        assert found.result is not None
        assert listed == replace(
            found,
            result={name: value for name, value in found.result.items() if name != "sublayers"},
            bytes=disk.below(run_dir),
        )


def test_an_active_run_is_always_read_anew(tmp_path: Path) -> None:
    path = write_running(tmp_path)
    settle(path)
    assert [run.status.state for run in store.list_own(tmp_path)] == ["running"]
    gone = replace(store.recorded_status(path), pid_created=1.0)  # its process ended: nothing is written
    (path / "status.json").write_text(json.dumps(asdict(gone)))
    settle(path)
    for _ in range(2):
        assert [run.status.state for run in store.list_own(tmp_path)] == ["failed"]
        assert store.list_abandoned(tmp_path) == [path]


def test_a_sweep_is_no_run_but_counts_as_active(tmp_path: Path, reads: list[Path]) -> None:
    path = write_running(tmp_path, job="sweep")
    (path / "spec.json").rename(path / FILE)
    settle(path)
    assert [entry.run for entry in index.entries(tmp_path)] == [None]
    assert [active for active, _ in store.list_active(tmp_path)] == [path]
    store.write_status(path, replace(store.recorded_status(path), state="done"))
    settle(path)
    reads.clear()
    for _ in range(3):
        assert store.list_active(tmp_path) == store.list_own(tmp_path) == []
    assert len(reads) == 1


def test_a_folder_that_cannot_be_read_is_tried_again(run_dir: Path) -> None:
    spec = (run_dir / "spec.json").read_bytes()
    (run_dir / "spec.json").write_text("{")
    settle(run_dir)
    assert store.list_own(run_dir.parent) == []
    (run_dir / "spec.json").write_bytes(spec)
    settle(run_dir)
    assert [run.path for run in store.list_own(run_dir.parent)] == [run_dir]


def test_five_hundred_runs_are_listed_quickly_and_none_is_opened(run_dir: Path, reads: list[Path]) -> None:
    runs_dir = many(run_dir, 500)
    assert len(store.list_own(runs_dir)) == 500
    reads.clear()
    started = time.process_time()
    assert len(store.list_own(runs_dir)) == 500
    assert store.list_active(runs_dir) == []
    assert time.process_time() - started < 0.5
    assert reads == []


def test_machines_that_share_a_cache_have_an_index_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = index.file_of(tmp_path)
    assert here == index.file_of(tmp_path / "runs" / "..")
    assert here != index.file_of(tmp_path / "runs")
    monkeypatch.setattr("socket.gethostname", lambda: "another")
    assert index.file_of(tmp_path) != here


def test_threads_and_processes_that_write_at_once_lose_nothing(run_dir: Path) -> None:
    runs_dir = many(run_dir, 40)
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.append(len(another_process(runs_dir).entries()))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [40] * 6
    with sqlite3.connect(index.file_of(runs_dir)) as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (40,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()

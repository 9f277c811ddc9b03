"""An index of runs that is gone, cut off, overwritten or of another version: the list stays the same."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from pgb_core import index, store
from pgb_core.index import Index
from tests.faults.conftest import Outcome
from tests.sample_run import make_sample_run, settle

COUNT = 12


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    """Runs that are in the index."""
    first = make_sample_run(tmp_path / "runs")
    for number in range(COUNT - 1):
        path = first.with_name(f"20250101-000000-{number:06x}")
        shutil.copytree(first, path)
        settle(path)
    settle(first)
    assert len(Index(first.parent, index.file_of(first.parent)).entries()) == COUNT
    return first.parent


def cut_off(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2 + 100)


def emptied(file: Path) -> None:
    os.truncate(file, 0)


def deleted(file: Path) -> None:
    file.unlink()


def garbage(file: Path) -> None:
    file.write_bytes(b"garbage!" * (file.stat().st_size // 8))


def letters_changed(file: Path) -> None:
    """What SQLite itself does not notice."""
    file.write_bytes(file.read_bytes().replace(b"bbc-news", b"bbc-oops"))


def other_version(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA user_version = 99")


def other_table(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("ALTER TABLE runs RENAME COLUMN content TO contents")


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize(
    "damage", [cut_off, emptied, deleted, garbage, letters_changed, other_version, other_table, a_folder]
)
def test_a_damaged_index_changes_nothing_and_is_made_anew(
    runs_dir: Path, damage: Callable[[Path], None], outcome: Outcome
) -> None:
    file = index.file_of(runs_dir)
    expected = {path: store.read_run(path).spec for path in index.folders(runs_dir)}
    damage(file)
    for _ in range(3):  # what the first process throws away the second one makes
        entries = Index(runs_dir, file).entries()
        assert {entry.path: entry.run and entry.run.spec for entry in entries} == expected
    if damage is not a_folder:  # that is not ours to remove: the list is right without an index
        with closing(sqlite3.connect(file)) as connection:
            assert connection.execute("SELECT count(*) FROM runs").fetchone() == (COUNT,)
    outcome("the list of runs stays the same")


def test_runs_that_vanish_while_they_are_listed_are_left_out(runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each folder is deleted just when it is about to be read."""
    found = index.folders

    def deleting(place: Path) -> list[Path]:
        paths = found(place)
        for path in sorted(paths)[:4]:
            shutil.rmtree(path)
        return paths

    index.file_of(runs_dir).unlink()
    monkeypatch.setattr(index, "folders", deleting)
    assert len(Index(runs_dir, index.file_of(runs_dir)).entries()) == COUNT - 4


def test_a_cache_that_cannot_be_written_to_costs_time_alone(runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    assert len(Index(runs_dir, index.file_of(runs_dir)).entries()) == COUNT

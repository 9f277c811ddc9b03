"""The disk quota: who goes, who stays, and what is said of it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from pgb_core import PruneSpec, RunError, disk, quota, store
from pgb_core.label import Label
from pgb_core.recording import recorded
from pgb_core.sweep_spec import SweepSpec, write_sweep
from tests.sample_run import make_unfinished_run

SIZE = 100_000


def run_of(runs_dir: Path, age: float, state: store.State = "failed", run_id: str | None = None) -> Path:
    """A run of `SIZE` bytes and a little more, made `age` seconds ago."""
    status = store.Status(state, created=time.time() - age)
    path = make_unfinished_run(runs_dir, store.this_process(status), run_id=run_id)
    (path / "importance.safetensors").write_bytes(bytes(SIZE))
    return path


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for three runs."""
    monkeypatch.setenv("PGB_QUOTA_GIGABYTES", str(3.5 * SIZE / 1e9))


def left(runs_dir: Path) -> list[Path]:
    return [run.path for run in store.list_own(runs_dir)]


def test_without_a_quota_nothing_goes(runs_dir: Path) -> None:
    paths = [run_of(runs_dir, age) for age in range(5)]
    assert quota.quota_bytes() is None
    assert quota.make_room(runs_dir) == []
    assert left(runs_dir) == paths
    assert quota.evicted(runs_dir) == []


@pytest.mark.usefixtures("limit")
def test_the_oldest_go_until_the_rest_fits_and_it_is_noted(runs_dir: Path) -> None:
    paths = [run_of(runs_dir, age) for age in (50, 40, 30, 20, 10)]
    store.write_label(runs_dir, paths[0].name, Label("the first"))
    size = disk.below(paths[0])
    gone = quota.make_room(runs_dir)
    assert [run.run for run in gone] == [path.name for path in paths[:2]]
    assert (gone[0].name, gone[0].bytes) == ("the first", size)
    assert left(runs_dir) == paths[:1:-1]
    assert quota.evicted(runs_dir) == gone
    assert quota.make_room(runs_dir) == []
    run_of(runs_dir, 5)
    assert quota.evicted(runs_dir) == gone
    assert [run.run for run in quota.make_room(runs_dir)] == [paths[2].name]
    assert [run.run for run in quota.evicted(runs_dir)] == [path.name for path in paths[:3]]


@pytest.mark.usefixtures("limit")
def test_pinned_active_and_kept_runs_and_points_of_a_running_sweep_stay(runs_dir: Path) -> None:
    base = PruneSpec("demo", "bbc-news", 0.5)
    sweep = write_sweep(runs_dir / "20250101-000000-abcdef", SweepSpec(base, (0.5,)), runs_dir)
    store.write_status(sweep.path, store.this_process(store.Status("running", created=time.time(), job="sweep")))
    run_of(runs_dir, 60, run_id=sweep.points[0].run)
    pinned, active, old, kept = (
        run_of(runs_dir, age, state) for age, state in ((50, "failed"), (40, "running"), (30, "failed"), (20, "failed"))
    )
    store.write_label(runs_dir, pinned.name, Label(pinned=True))
    with pytest.raises(RunError, match=r"take 0\.00 GB, the quota is .* unpin or delete some"):
        quota.make_room(runs_dir, keep=kept.name)
    assert set(left(runs_dir)) == {pinned, active, kept, runs_dir / sweep.points[0].run}
    assert [run.run for run in quota.evicted(runs_dir)] == [old.name]
    store.write_status(sweep.path, store.Status("done", job="sweep"))
    assert [run.run for run in quota.make_room(runs_dir)] == [sweep.points[0].run]


@pytest.mark.usefixtures("limit")
def test_room_is_made_for_what_a_run_is_about_to_write(runs_dir: Path) -> None:
    paths = [run_of(runs_dir, age) for age in (30, 20, 10)]
    assert quota.make_room(runs_dir) == []
    (gone,) = quota.make_room(runs_dir, keep=paths[0].name, needed=SIZE)
    assert gone.run == paths[1].name
    with pytest.raises(RunError, match="PGB_QUOTA_GIGABYTES"):
        quota.make_room(runs_dir, keep=paths[0].name, needed=4 * SIZE)


@pytest.mark.usefixtures("limit")
def test_a_run_of_the_server_makes_room_and_is_refused_where_none_can_be_made(
    runs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGB_RUNS_DIR", str(runs_dir))
    paths = [run_of(runs_dir, age) for age in (50, 40, 30, 20)]
    spec = PruneSpec("demo", "bbc-news", 0.5).to_dict()
    new = store.new_run(runs_dir)

    def work(_: object) -> dict[str, object]:
        assert left(runs_dir) == [new, *paths[:0:-1]]
        (new / "importance.safetensors").write_bytes(bytes(SIZE))
        return {}

    recorded(new, spec, work)
    assert left(runs_dir) == [new, *paths[:1:-1]]
    for path in (new, *paths[2:]):
        store.write_label(runs_dir, path.name, Label(pinned=True))
    (new / "importance.safetensors").write_bytes(bytes(2 * SIZE))
    os.utime(new)
    with pytest.raises(RunError, match="PGB_QUOTA_GIGABYTES"):
        recorded(runs_dir / "20260101-000000-abcdef", spec, work)
    assert "unpin or delete some" in store.read_status(runs_dir / "20260101-000000-abcdef").message
    recorded(tmp_path / "elsewhere", spec, lambda _: {})  # is no run of the server
    assert set(left(runs_dir)) == {new, *paths[2:], runs_dir / "20260101-000000-abcdef"}


@pytest.mark.parametrize("content", ["{", "[]", '{"evicted": [{"run": 3}]}', '{"evicted": 5}'])
def test_a_damaged_note_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "evicted.json").write_text(content)
    assert quota.evicted(tmp_path) == []

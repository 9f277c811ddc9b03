"""A sweep that two workers share: whatever dies half-way, every point is there once, as one process would make it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from pgb_core import PruneSpec, ending, jobs, store
from pgb_core.settings import get_settings
from pgb_core.sweep import sweep
from pgb_core.sweep_spec import Sweep, SweepSpec, read_sweep
from tests.faults.conftest import Outcome, Redis
from tests.test_sweep import comparable, tensors
from tests.watching import ROOT, wait_for

SECONDS = 300.0


@pytest.fixture
def spec(tiny_checkpoint: Path, tiny_csv: Path) -> SweepSpec:
    """Twelve points."""
    base = PruneSpec(
        str(tiny_checkpoint), "csv", 0.5, train_file=str(tiny_csv), device="cpu", calibration_samples=64, latency=False
    )
    return SweepSpec(base, (0.3, 0.5, 0.6, 0.7, 0.8, 0.9), ("pgb", "structured"))


@pytest.fixture
def workers(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[psutil.Popen]]:
    """Two real workers, as on two machines."""
    monkeypatch.setenv("PGB_SWEEP_WORKERS", "2")
    command = [sys.executable, "-m", "pgb_core", "worker"]
    begun = [psutil.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) for _ in range(2)]
    yield begun
    for process in begun:
        if process.is_running():
            process.kill()
        process.wait()


def half_way(path: Path) -> tuple[Sweep, psutil.Process, psutil.Process]:
    """The sweep in `path`, its process and its helper's, once both make points and some are done."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        found = read_sweep(path)
        statuses = [status for point in found.points if (status := found.point_status(point)) is not None]
        makers = {status.pid for status in statuses}
        if len(makers) == 2 and sum(status.state == "done" for status in statuses) >= 4:
            main = store.find_process(store.recorded_status(path))
            part = next(status for place, status in store.list_active(path.parent) if status.job == "part")
            helper = store.find_process(part)
            assert main is not None
            assert helper is not None
            return found, main, helper
        time.sleep(0.02)
    raise AssertionError(f"not half-way after {SECONDS} s: {store.recorded_status(path)}")


def the_worker(workers: list[psutil.Popen], run: psutil.Process) -> psutil.Process:
    return next(worker for worker in workers if run in worker.children())


def goes_on_by_itself(path: Path) -> None:
    assert wait_for(path, lambda status: not status.active, SECONDS).state == "done"


def is_taken_up_again(path: Path) -> None:
    status = wait_for(path, lambda status: not status.active, SECONDS)
    assert (status.state, len(status.message) > 20) == ("failed", True)
    jobs.resume_sweep(read_sweep(path))
    goes_on_by_itself(path)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("killed", "then"),
    [
        ("nothing", goes_on_by_itself),
        ("worker", goes_on_by_itself),
        ("worker and helper", goes_on_by_itself),
        ("worker and sweep", is_taken_up_again),
    ],
)
def test_a_sweep_on_two_workers_half_way_loses(
    spec: SweepSpec,
    workers: list[psutil.Popen],
    tmp_path: Path,
    outcome: Outcome,
    killed: str,
    then: Callable[[Path], None],
) -> None:
    path = get_settings().runs_dir / jobs.submit_sweep(spec)
    found, main, helper = half_way(path)
    victim = main if "sweep" in killed else helper
    if "worker" in killed:
        the_worker(workers, victim).kill()
    if " and " in killed:  # as when its machine goes
        ending.kill(victim)
    done = {
        point.run: (found.folder(point) / "result.json").read_bytes()
        for point in found.points
        if found.state(point) == "done"
    }
    then(path)
    assert all((path.parent / run / "result.json").read_bytes() == content for run, content in done.items())
    assert {run.id for run in store.list_own(path.parent)} == {point.run for point in found.points}
    sweep(spec, tmp_path / "serial")
    serial = read_sweep(tmp_path / "serial", tmp_path / "serial")
    for point, alone in zip(found.points, serial.points, strict=True):
        assert comparable(found.folder(point)) == comparable(serial.folder(alone))
        first, second = tensors(found.folder(point)), tensors(serial.folder(alone))
        assert all(np.array_equal(first[name], second[name]) for name in first)
    makers = {store.recorded_status(found.folder(point)).pid for point in found.points}
    outcome(f"{len(found.points)} points, each once, by {len(makers)} processes, equal to those of one process")

"""Submitting runs that behave as told (`tests.stand_in`), and watching their folders from outside."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psutil

from pgb_core import PruneSpec, embedded, jobs, store
from pgb_core.settings import get_settings
from pgb_core.status import living

ROOT = Path(__file__).resolve().parent.parent


def behaving(behavior: str) -> PruneSpec:
    """The spec of a run that does what `stand_in` says."""
    return PruneSpec(behavior, "bbc-news", 0.5)


def submit(behavior: str) -> Path:
    """Submit such a run; its folder."""
    return get_settings().runs_dir / jobs.submit(behaving(behavior))


def wait_for(run_dir: Path, condition: Callable[[store.Status], bool], seconds: float = 20.0) -> store.Status:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        status = store.read_status(run_dir)
        if condition(status):
            return status
        time.sleep(0.02)
    raise AssertionError(f"still {store.read_status(run_dir)} after {seconds} s")


def computes(run_dir: Path) -> store.Status:
    """The status of the run once it has begun to compute."""
    deadline = time.monotonic() + 20
    while not (run_dir / "began").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return store.read_status(run_dir)


def ends(run_dir: Path) -> store.Status:
    return wait_for(run_dir, lambda status: not status.active)


def wait_until_gone(status: store.Status) -> bool:
    deadline = time.monotonic() + 5
    while store.find_process(status) is not None and time.monotonic() < deadline:
        time.sleep(0.02)
    return store.find_process(status) is None


def half_written(run_dir: Path) -> None:
    """What a run that is saving has in its folder."""
    for name in ("model", ".model"):
        (run_dir / name).mkdir()
        (run_dir / name / "model.safetensors").touch()
    (run_dir / "layout.safetensors").touch()


def names(run_dir: Path) -> set[str]:
    """What is in a run's folder, but for what the tests leave there and a ticket that is just being written."""
    found = {path.name for path in run_dir.iterdir()} - {"began", "cancel"}
    return {name for name in found if not name.startswith(".ticket")}


def worker_process(runs_dir: Path, seconds: float = 20.0) -> psutil.Process:
    """The worker that serves `runs_dir`, once there is one."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = embedded.introduced(runs_dir)
        process = None if found is None else living(found["pid"], found["created"])
        if process is not None:
            return process
        time.sleep(0.02)
    raise AssertionError(f"no worker after {seconds} s")

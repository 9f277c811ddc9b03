"""Where a run stands, and whether the process that runs it still lives."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from typing import Literal

import psutil

State = Literal["queued", "running", "done", "failed", "cancelled"]
Job = Literal["prune", "score", "sweep", "finetune"]
"""What is done: prune a checkpoint, only score it for the What if page, prune it many times, or train it first."""
FINISHED: tuple[State, ...] = ("done", "failed", "cancelled")


@dataclass(frozen=True)
class Status:
    """Where a run stands. Times are seconds since the epoch; `fraction` is of the whole run, in [0, 1]."""

    state: State = "queued"
    stage: str = ""
    fraction: float = 0.0
    message: str = ""
    created: float = 0.0
    started: float | None = None
    finished: float | None = None
    updated: float = 0.0
    eta_seconds: float | None = None
    pid: int | None = None
    pid_created: float | None = None
    """Start time of process `pid`, so that a recycled process number is not taken for the run."""
    job: Job = "prune"

    @property
    def active(self) -> bool:
        return self.state not in FINISHED


def this_process(status: Status) -> Status:
    """`status` owned by the calling process."""
    return owned_by(status, os.getpid())


def owned_by(status: Status, pid: int) -> Status:
    """`status` owned by process `pid`, which exists."""
    return replace(status, pid=pid, pid_created=psutil.Process(pid).create_time())


def alive(status: Status) -> bool:
    """Whether the process of an active run is there, or may still come."""
    if status.pid is None:  # queued a moment ago, its process is just starting
        return time.time() - status.created < 60
    return find_process(status) is not None


def find_process(status: Status) -> psutil.Process | None:
    """The living process that owns `status`; None when there is none, or only its number was given to another."""
    if status.pid is None:
        return None
    try:
        process = psutil.Process(status.pid)
        same = abs(process.create_time() - (status.pid_created or 0.0)) < 1.0
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None

"""Where a run stands, and whether the process that runs it still lives."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import psutil

State = Literal["queued", "running", "done", "failed", "cancelled"]
Job = Literal["prune", "score", "sweep", "part", "finetune"]
"""What is done: prune a checkpoint, score it for What if, prune it many times, help with that, or train it first."""
FINISHED: tuple[State, ...] = ("done", "failed", "cancelled")
BEAT_SECONDS = 10.0
"""How often a process says that it lives, by the time of its status file: other machines cannot see it."""
LOST_SECONDS = 120.0
"""Without a sign for so long, a process of another machine counts as gone."""

_SAME_SECONDS = 5.0
"""The start of a process is told by the clock, which may be set meanwhile."""


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
    host: str = ""
    """Where process `pid` is, as `here()` says; empty of a run from before there were several machines: here."""

    @property
    def active(self) -> bool:
        return self.state not in FINISHED


@functools.cache
def machine() -> str:
    """This machine, which its containers share; until it is started again."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return platform.node()


@functools.cache
def here() -> str:
    """This machine, or this container, its name first: processes of another one cannot be seen from here."""
    with contextlib.suppress(OSError):
        return f"{platform.node()} {machine()} {Path('/proc/self/ns/pid').readlink()}"
    return platform.node()


def mine(status: Status) -> bool:
    """Whether `status` is of the calling process."""
    return status.host in ("", here()) and status.pid == os.getpid()


def this_process(status: Status) -> Status:
    """`status` owned by the calling process."""
    return owned_by(status, os.getpid())


def owned_by(status: Status, pid: int) -> Status:
    """`status` owned by process `pid`, which exists on this machine."""
    return replace(status, pid=pid, pid_created=psutil.Process(pid).create_time(), host=here())


def alive(status: Status, beat: float) -> bool:
    """Whether the process of an active run is there, or may still come.

    Args:
        beat: when the run's status file was last written or touched, in seconds since the epoch.
    """
    if status.state == "queued":  # what waits needs no process
        return True
    if status.host not in ("", here()):
        return time.time() - beat < LOST_SECONDS
    return find_process(status) is not None


def why_gone(status: Status) -> str:
    """What is said of an active run whose process is not alive any more."""
    if status.host not in ("", here()):
        machine = status.host.partition(" ")[0]
        return f"Machine {machine} gave no sign of this run for {LOST_SECONDS:.0f} s; start the run again."
    if status.pid is None:
        return "The run's process never started; start the run again."
    return "The run's process ended without a result; see its log."


def find_process(status: Status) -> psutil.Process | None:
    """The living process of this machine that owns `status`; None when it is gone, or its number is another's now."""
    return None if status.host not in ("", here()) else living(status.pid, status.pid_created)


def living(pid: int | None, created: float | None) -> psutil.Process | None:
    """The process of this machine with number `pid`, if it was started at `created` and is no zombie."""
    if pid is None:
        return None
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - (created or 0.0)) < _SAME_SECONDS
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None

"""The files around the queue of a runs folder, and the worker that serves it when there is no Redis.

    RUNS_DIR/.queue/lock          held while runs are counted, let in or taken
    RUNS_DIR/.queue/worker.json   held by the worker, and what it was started with: one for each runs folder
    RUNS_DIR/.queue/apps          held by every process that submits: a worker it started ends after the last of them
    RUNS_DIR/.queue/worker.log    what that worker has to say

Such a worker is a process of its own, which outlives the app as long as there is work; the next app finds it by its
lock. Nothing here imports Huey: pages load this module.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from pgb_core import __version__, demo_mode
from pgb_core.commands import child_environment
from pgb_core.settings import get_settings
from pgb_core.status import living

log = logging.getLogger(__name__)

COMMAND = (sys.executable, "-m", "pgb_core", "worker")
_LOCK_SECONDS = 20.0
_KEEP_SECONDS = 2.0
_LEAVE_SECONDS = 10.0
_LOG_BYTES = 1_000_000

_attended: dict[Path, int] = {}
"""The file by which this process holds `apps` of each runs folder."""


def queue_dir(runs_dir: Path) -> Path:
    """Where the files of the queue of `runs_dir` are; there once something was submitted."""
    return runs_dir / ".queue"


@contextlib.contextmanager
def turnstile(runs_dir: Path) -> Iterator[None]:
    """Held while runs are counted, let in or taken, so that two processes never do so at once.

    Raises:
        FileNotFoundError: there is no queue, or it has gone with its runs folder, which is not made again.
        TimeoutError: another process holds it for very long.
    """
    file = _open(runs_dir, "lock")
    try:
        deadline = time.monotonic() + _LOCK_SECONDS
        while not _locked(file):
            if time.monotonic() > deadline:
                raise TimeoutError(errno.ETIMEDOUT, "The queue is busy; try again")
            time.sleep(0.01)
        yield
    finally:
        os.close(file)


# --- the app's side ------------------------------------------------------------------------------------------------


def attend(runs_dir: Path) -> None:
    """From now on see to it that `runs_dir` has a worker, if anything was ever submitted to it and there is no Redis.

    A server that only shows has none.

    A worker of an earlier app that was started with other settings, or by another version, is replaced; its runs go on.

    Raises:
        OSError: the files of the queue cannot be written.
    """
    if demo_mode.on() or runs_dir in _attended or get_settings().queue or not queue_dir(runs_dir).is_dir():
        return
    file = _open(runs_dir, "apps")
    if _attended.setdefault(runs_dir, file) != file:  # another thread was quicker
        os.close(file)
        return
    fcntl.flock(file, fcntl.LOCK_SH)
    _dismiss_outdated(runs_dir)
    threading.Thread(target=_keep, args=(runs_dir,), daemon=True, name="sees to the worker").start()


def _keep(runs_dir: Path) -> None:
    """Start a worker where there is none, until the runs folder is gone."""
    there = True
    while there:
        with contextlib.suppress(OSError):  # a full disk, a network folder that is away: tried again
            there = queue_dir(runs_dir).is_dir()
            if there:
                _start(runs_dir)
        time.sleep(_KEEP_SECONDS)
    os.close(_attended.pop(runs_dir))


def _start(runs_dir: Path) -> None:
    """Start a worker unless there is one: it inherits the lock, so that there is no moment in which two could start."""
    lock = hold(runs_dir)
    if lock is None:
        return
    file = queue_dir(runs_dir) / "worker.log"
    if file.exists() and file.stat().st_size > _LOG_BYTES:
        file.unlink()
    try:
        with file.open("ab") as output:
            process = subprocess.Popen(
                [*COMMAND, f"--lock={lock}"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # neither a closed terminal nor the end of the app reaches it
                pass_fds=(lock,),
                env={**child_environment(), "PGB_RUNS_DIR": str(runs_dir)},
            )
    finally:
        os.close(lock)
    # a child that nobody waits for stays as a zombie for as long as this process lives
    threading.Thread(target=process.wait, daemon=True, name="waits for the worker").start()


def _dismiss_outdated(runs_dir: Path) -> None:
    found = introduced(runs_dir)
    process = None if found is None else living(found["pid"], found["created"])
    if found is not None and process is not None and found["embedded"] and found["conditions"] != _conditions():
        log.info("The worker has other settings than this app; it is replaced.")
        with contextlib.suppress(psutil.Error):
            process.terminate()
            process.wait(_LEAVE_SECONDS)


def introduced(runs_dir: Path) -> dict[str, Any] | None:
    """What the worker that serves `runs_dir`, or the last one that did, said of itself; see `introduce`."""
    with contextlib.suppress(OSError, ValueError):  # none, or just being written
        found = json.loads((queue_dir(runs_dir) / "worker.json").read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else None
    return None


def _conditions() -> str:
    """A digest of what a worker depends on: settings, version and code."""
    code = max(file.stat().st_mtime_ns for file in Path(__file__).parent.glob("*.py"))
    text = json.dumps([asdict(get_settings()), __version__, sys.executable, code], default=str)
    return hashlib.sha256(text.encode()).hexdigest()


# --- the worker's side ---------------------------------------------------------------------------------------------


def hold(runs_dir: Path) -> int | None:
    """The open file by which a worker serves `runs_dir` alone, until it is closed; None when another one does."""
    file = _open(runs_dir, "worker.json")
    if not _locked(file):
        os.close(file)
        return None
    os.truncate(file, 0)
    return file


def introduce(lock: int, *, embedded: bool) -> None:
    """Write into the file `lock` who this worker is and what it was started with."""
    created = psutil.Process().create_time()
    words: dict[str, Any] = {"pid": os.getpid(), "created": created, "embedded": embedded, "conditions": _conditions()}
    os.pwrite(lock, json.dumps(words).encode(), 0)


def deserted(runs_dir: Path) -> bool:
    """Whether no living process has attended `runs_dir`."""
    file = _open(runs_dir, "apps")
    try:
        return _locked(file)
    finally:
        os.close(file)


def _locked(file: int) -> bool:
    """Lock an open file until it is closed; False where another process has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open(runs_dir: Path, name: str) -> int:
    return os.open(queue_dir(runs_dir) / name, os.O_RDWR | os.O_CREAT, 0o600)

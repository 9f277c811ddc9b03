"""What processes that share a cache need: a lock to wait for, and scratch space that a kill does not leave for good."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from pgb_core.progress import Step


@contextmanager
def locked(folder: Path, name: str, step: Step, waiting: str) -> Iterator[None]:
    """Hold the lock `name` of `folder`; while another process has it, report `waiting`, so that a cancel is heard."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f".{name}.lock")
    while True:
        try:
            lock.acquire(timeout=0.5)
            break
        except Timeout:
            step(0, 1, waiting)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def scratch(folder: Path, name: str) -> Iterator[Path]:
    """A temporary folder in `folder`, on the same disk, so that what is made there can be renamed into place.

    Only within `locked` under the same name: what lies there already is then of a process that was killed, and goes.
    """
    for leftover in folder.glob(f".{name}-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=f".{name}-", ignore_cleanup_errors=True) as made:
        yield Path(made)

"""What runs take of the disk, and what is left of it."""

from __future__ import annotations

import contextlib
import functools
import shutil
import time
from pathlib import Path

from pgb_core.store import SETTLED_SECONDS, Run


def use(run: Run) -> int:
    """Bytes of all files in the folder of `run`, its model included; 0 once it is deleted."""
    try:
        changed = run.path.stat().st_mtime_ns
    except OSError:
        return 0
    if run.status.active or time.time() - changed / 1e9 < SETTLED_SECONDS:
        return below(run.path)
    return _settled(run.path, changed)


@functools.lru_cache(maxsize=5000)
def _settled(folder: Path, changed: int) -> int:
    return below(folder)


def below(folder: Path) -> int:
    """Bytes of all files below `folder`; links count as themselves."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # gone meanwhile
            total += path.lstat().st_size if path.is_symlink() or not path.is_dir() else 0
    return total


def free(folder: Path) -> int:
    """Bytes that are free where `folder` is, or will be."""
    place = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(place).free

"""What runs take of the disk, and what is left of it."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from pgb_core.run_folder import Run


def use(run: Run) -> int:
    """Bytes of all files in the folder of `run`, its model included; 0 once it is deleted."""
    return below(run.path) if run.bytes is None else run.bytes


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

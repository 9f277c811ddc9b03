"""Files that users bring: a CSV or Parquet of their own, kept under a random name for a time."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import BinaryIO

from pgb_core.settings import get_settings

TYPES = ("csv", "parquet")


def keep(file: BinaryIO, name: str) -> Path:
    """Store `file` for a run to read and return where; only the ending of `name` is used, never the name."""
    folder = get_settings().cache_dir / "uploads"
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    ending = "parquet" if name.lower().endswith(".parquet") else "csv"
    path = folder / f"{secrets.token_hex(16)}.{ending}"
    path.write_bytes(file.read())
    return path


def _sweep(folder: Path) -> None:
    """Remove uploads that are past their time."""
    kept_seconds = 3600 * get_settings().upload_hours
    for path in folder.iterdir():
        if time.time() - path.stat().st_mtime > kept_seconds:
            path.unlink(missing_ok=True)

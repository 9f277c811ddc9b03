"""Tables that users bring (`TYPES`), kept under a random name for a time, or while a run waits."""

from __future__ import annotations

import contextlib
import secrets
import time
from pathlib import Path
from typing import BinaryIO

from pgb_core import store, sweep_spec
from pgb_core.errors import RunError
from pgb_core.settings import get_settings

TYPES = ("csv", "tsv", "parquet", "jsonl")


def keep(file: BinaryIO, name: str) -> Path:
    """Store `file` for a run to read and return where; only the ending of `name` is used, never the name."""
    folder = _folder()
    folder.mkdir(parents=True, exist_ok=True)
    ending = next((ending for ending in TYPES if name.lower().endswith(f".{ending}")), TYPES[0])
    path = folder / f"{secrets.token_hex(16)}.{ending}"
    path.write_bytes(file.read())
    return path


def sweep() -> None:
    """Remove uploads that are past their time and that no queued or running run reads; the frame calls this."""
    oldest = time.time() - 3600 * get_settings().upload_hours
    expired = []
    for path in _folder().glob("*"):
        with contextlib.suppress(OSError):  # gone: another visit is sweeping as well
            if path.stat().st_mtime < oldest:
                expired.append(path)
    needed = _needed() if expired else set()
    for path in expired:
        if path.name not in needed:
            with contextlib.suppress(OSError):
                path.unlink()


def _folder() -> Path:
    return get_settings().cache_dir / "uploads"


def _needed() -> set[str]:
    """Names of the files that active runs read; as they are random, they say which file without the folder."""
    names: set[str] = set()
    for run, _ in store.list_active(get_settings().runs_dir):
        with contextlib.suppress(RunError):  # deleted meanwhile: then it had ended
            sweep = run / sweep_spec.FILE
            spec = store.read_json(sweep)["base"] if sweep.is_file() else store.read_json(run / "spec.json")
            names.update(Path(file).name for key in ("train_file", "eval_file") if (file := spec.get(key)))
    return names

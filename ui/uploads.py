"""Files that users bring, kept under random names for a time, or while a run waits: tables, and checkpoints."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import streamlit as st

from pgb_core import demo_mode, disk, store, sweep_spec
from pgb_core.errors import CheckpointError, JobRejected, RunError
from pgb_core.inspection import TOKENIZER_FILES, WEIGHTS, admit
from pgb_core.settings import get_settings

TYPES = ("csv", "tsv", "parquet", "jsonl")
CHECKPOINT_TYPES = ("safetensors", "json", "txt")
_PARTIAL = ".part"


def within_limit(file: Any) -> Any:
    """An uploaded table; None, and a line, for one over the limit, which a browser may send whatever the form says."""
    limit = get_settings().max_upload_megabytes
    if file is None or file.size <= limit * 2**20:
        return file
    size = f"This file has {file.size / 2**20:.0f} MB, the limit is {limit} MB"
    st.error(f"{size}; take less, or raise PGB_MAX_UPLOAD_MEGABYTES.")
    return None


def keep(file: BinaryIO, name: str) -> Path:
    """Store `file` for a run to read and return where; only the ending of `name` is used, never the name.

    Raises:
        ReadOnlyError: this server only shows.
        JobRejected: there are too many uploads.
        OSError: it cannot be written; nothing is kept.
    """
    demo_mode.refuse()
    _refuse_without_room(file)
    folder = get_settings().uploads_dir
    folder.mkdir(parents=True, exist_ok=True)
    ending = next((ending for ending in TYPES if name.lower().endswith(f".{ending}")), TYPES[0])
    path = folder / f"{secrets.token_hex(16)}.{ending}"
    try:
        path.write_bytes(file.read())
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return path


def keep_checkpoint(files: Sequence[tuple[str, BinaryIO]]) -> Path:
    """Store the files of a checkpoint in a folder of their own and return where, if it is one that can be loaded.

    Of their names only those that a checkpoint has are used; the weights may have any that ends in .safetensors.

    Raises:
        CheckpointError: they are not the files of one checkpoint, too large, or refused; nothing is kept.
        JobRejected: there are too many uploads.
        OSError: they cannot be written.
    """
    demo_mode.refuse()
    named = _named(files)
    _refuse_without_room(*named.values())
    place = get_settings().uploads_dir / secrets.token_hex(16)
    partial = place.with_name(f"{_PARTIAL}-{place.name}")
    partial.mkdir(parents=True)
    try:
        for name, file in named.items():
            file.seek(0)
            with (partial / name).open("wb") as written:
                shutil.copyfileobj(file, written)
        info = admit(partial)
        if info.pruned:
            raise CheckpointError("it is pruned already; upload the dense checkpoint that it came from.")
        os.replace(partial, place)
    except CheckpointError as error:
        raise CheckpointError(str(error).replace(partial.name, "the upload")) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return place


def _refuse_without_room(*files: BinaryIO) -> None:
    """Raise a JobRejected where `files` do not fit beside the uploads of all visitors."""
    settings = get_settings()
    size = sum(file.seek(0, os.SEEK_END) for file in files)
    for file in files:
        file.seek(0)
    if disk.below(settings.uploads_dir) + size > settings.uploads_gigabytes * 1e9:
        raise JobRejected(
            f"the uploads of this server would take more than {settings.uploads_gigabytes:g} GB; try again when older "
            "ones have been removed, or raise PGB_UPLOADS_GIGABYTES."
        )


def _named(files: Sequence[tuple[str, BinaryIO]]) -> dict[str, BinaryIO]:
    """The files by the names that they get."""
    found: dict[str, BinaryIO] = {}
    total = 0
    for name, file in files:
        target = WEIGHTS if name.lower().endswith(".safetensors") else name
        if target not in (WEIGHTS, "config.json", *TOKENIZER_FILES):
            raise CheckpointError(
                f"{name:.60} is no file of a checkpoint; give config.json, one .safetensors and the tokenizer's files."
            )
        if target in found:
            raise CheckpointError(f"there are two files for {target}; give one, not weights in several files.")
        found[target] = file
        total += file.seek(0, os.SEEK_END)
    limit = get_settings().max_checkpoint_megabytes
    if total > limit * 10**6:
        raise CheckpointError(
            f"the files have {total / 1e6:.0f} MB together, the limit is {limit} MB; take a smaller one, or raise "
            "PGB_MAX_CHECKPOINT_MEGABYTES."
        )
    return found


def stored(file: Any) -> str:
    """Where an upload lies on the server; one upload lies in one place, so that its runs can be compared.

    Raises:
        ReadOnlyError, JobRejected, OSError: as of `keep`.
    """
    places = st.session_state.setdefault("uploads", {})
    if not Path(places.get(file.file_id, "")).is_file():
        file.seek(0)
        places[file.file_id] = str(keep(file, file.name))
    place = Path(places[file.file_id])
    place.touch()  # its time begins anew
    return str(place)


def sweep() -> None:
    """Remove uploads that are past their time and that no queued or running run reads; the frame calls this."""
    oldest = time.time() - 3600 * get_settings().upload_hours
    expired = []
    for path in get_settings().uploads_dir.glob("*"):
        with contextlib.suppress(OSError):  # gone: another visit is sweeping as well
            if path.stat().st_mtime < oldest:
                expired.append(path)
    needed = _needed() if expired else set()
    for path in expired:
        if path.name not in needed:
            with contextlib.suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def touch(place: str) -> None:
    """Begin the time of an upload anew."""
    with contextlib.suppress(OSError):
        if Path(place).parent == get_settings().uploads_dir:
            os.utime(place)


def _needed() -> set[str]:
    """Names of the files that active runs read; as they are random, they say which file without the folder."""
    names: set[str] = set()
    for run, _ in store.list_active(get_settings().runs_dir):
        with contextlib.suppress(RunError):  # deleted meanwhile: then it had ended
            sweep = run / sweep_spec.FILE
            spec = store.read_json(sweep)["base"] if sweep.is_file() else store.read_json(run / "spec.json")
            keys = ("train_file", "eval_file", "checkpoint")
            names.update(Path(file).name for key in keys if (file := spec.get(key)))
    return names

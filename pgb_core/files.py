"""Files of a run: replaced as a whole, and read whether they are compressed or not."""

from __future__ import annotations

import contextlib
import json
import lzma
import os
import tempfile
from pathlib import Path
from typing import Any

from pgb_core.errors import RunError

PACKED = ".xz"
"""What the name of a compressed file ends with, behind the name that it is asked for by."""


def write_json(path: Path, value: object) -> None:
    """Replace `path` atomically by `value` as JSON (never NaN: readers in other languages refuse it)."""
    text = json.dumps(value, indent=1, allow_nan=False)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`.

    Raises:
        RunError: the file is missing or is not a JSON object.
    """
    try:
        value = json.loads(read_bytes(path))
    except (OSError, ValueError) as error:
        raise RunError(f"{path.name} of run {path.parent.name} is missing or damaged; delete the run.") from error
    if not isinstance(value, dict):
        raise RunError(f"{path.name} of run {path.parent.name} is damaged; delete the run.")
    return value


def read_bytes(path: Path) -> bytes:
    """The content of `path`, or of the compressed file in its place.

    Raises:
        OSError: there is neither, or it cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        packed = packed_file(path)
        if packed is None:
            raise
    try:
        return lzma.decompress(packed.read_bytes())
    except lzma.LZMAError as error:
        raise OSError(f"{packed.name} is damaged") from error


def packed_file(path: Path) -> Path | None:
    """The compressed file that lies where `path` is asked for; None where `path` itself is there, or neither is."""
    packed = path.with_name(path.name + PACKED)
    return packed if packed.exists() and not path.exists() else None


def pack(path: Path, content: bytes) -> None:
    """Write `content` compressed, to be read back as `path`."""
    path.with_name(path.name + PACKED).write_bytes(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME))

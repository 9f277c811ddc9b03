"""Single weight matrices of a checkpoint, read without torch and only from the very files that a run began with."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pgb_core import headers
from pgb_core.errors import CheckpointError
from pgb_core.headers import Stored

_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}


def read_weights(folder: Path, tensor: str, fingerprint: str) -> NDArray[np.float32] | None:
    """Tensor `tensor` of a checkpoint; None when that is gone or its fingerprint is no longer `fingerprint`."""
    with contextlib.suppress(OSError, CheckpointError, KeyError):
        if fingerprint_of(folder) == fingerprint:
            return read_tensor(headers.read_headers(folder)[tensor])
    return None


def fingerprint_of(folder: Path) -> str:
    """As `headers.fingerprint`; files are hashed again only when their size or their time of change is another.

    Raises:
        CheckpointError, OSError: as for that.
    """
    found = [(file, file.stat()) for file in headers.weight_files(folder)]
    return _fingerprint(folder, tuple((file, stat.st_size, stat.st_mtime_ns) for file, stat in found))


@functools.lru_cache(maxsize=64)
def _fingerprint(folder: Path, files: tuple[tuple[Path, int, int], ...]) -> str:
    return headers.fingerprint(folder)


def read_tensor(stored: Stored) -> NDArray[np.float32]:
    """A tensor of any float type as float32.

    Raises:
        OSError: its file cannot be read.
        KeyError: it is of another type.
    """
    with stored.file.open("rb") as file:
        file.seek(stored.begin)
        content = file.read(stored.end - stored.begin)
    if len(content) < stored.end - stored.begin:
        raise OSError(f"{stored.file.name} became shorter while it was read")
    if stored.dtype == "BF16":  # numpy has no such type: it is the upper half of a float32
        return (np.frombuffer(content, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(stored.shape)
    return np.frombuffer(content, _TYPES[stored.dtype]).astype(np.float32).reshape(stored.shape)

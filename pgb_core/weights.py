"""Single weight matrices of a checkpoint, read without torch and only from the very file that a run began with."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open


def read_weights(file: Path, tensor: str, fingerprint: str) -> NDArray[np.float32] | None:
    """Tensor `tensor` of a safetensors file; None when the file is gone or its SHA-256 is no longer `fingerprint`."""
    with contextlib.suppress(OSError, SafetensorError):
        found = file.stat()
        if _sha256(file, found.st_size, found.st_mtime_ns) != fingerprint:
            return None
        with safe_open(file, framework="numpy") as tensors:
            if tensors.get_slice(tensor).get_dtype() != "BF16":
                return np.asarray(tensors.get_tensor(tensor), dtype=np.float32)
        return _read_bfloat16(file, tensor)
    return None


@functools.lru_cache(maxsize=64)
def _sha256(path: Path, size: int, modified: int) -> str:
    """Of the content of `path`; its size and time of change are there to have a changed file read anew."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_bfloat16(path: Path, tensor: str) -> NDArray[np.float32]:
    """A tensor of a type that numpy lacks: the upper half of a float32."""
    with path.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")  # a size, a header of that size in JSON, then the tensors
        entry = json.loads(file.read(start - 8))[tensor]
        first, last = entry["data_offsets"]
        file.seek(start + first)
        upper = np.frombuffer(file.read(last - first), dtype="<u2").astype(np.uint32)
    return (upper << 16).view(np.float32).reshape(entry["shape"])

"""Whether all weights of a checkpoint are finite as float32, told from the bytes of its files, piece by piece.

safetensors accepts NaN and infinity, and one of them is enough to make every score of a run NaN. A number is neither
when the bits of its exponent are not all ones; as whole numbers they are compared without any arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from pgb_core.errors import CheckpointError
from pgb_core.headers import Stored

_PIECE = 2**22
"""Bytes looked at at once."""
_EXPONENTS: dict[str, tuple[str, int, int]] = {  # type: little-endian whole numbers, exponent bits, first that is too large
    "F32": ("<u4", 0x7F800000, 0x7F800000),
    "F16": ("<u2", 0x7C00, 0x7C00),
    "BF16": ("<u2", 0x7F80, 0x7F80),
    "F64": ("<u8", 0x7FF << 52, (1023 + 128) << 52),  # 2^128 is beyond float32
}


def refuse_non_finite(folder: str, tensors: Iterable[tuple[str, Stored]]) -> None:
    """Raise a CheckpointError where a float tensor holds NaN, infinity or what becomes one in float32.

    Raises:
        OSError: a file cannot be read.
    """
    for name, stored in tensors:
        if stored.dtype in _EXPONENTS and not _finite(stored):
            raise CheckpointError(f"{folder}: tensor {name} holds NaN or infinite values; the checkpoint is damaged.")


def _finite(stored: Stored) -> bool:
    kind, exponent, limit = _EXPONENTS[stored.dtype]
    mask, bound = np.array(exponent, dtype=kind), np.array(limit, dtype=kind)
    with stored.file.open("rb") as file:
        file.seek(stored.begin)
        left = stored.end - stored.begin
        while left > 0:
            piece = file.read(min(left, _PIECE))
            if not piece:
                raise OSError(f"{stored.file.name} became shorter while it was read")
            if (np.frombuffer(piece, dtype=kind) & mask).max() >= bound:
                return False
            left -= len(piece)
    return True

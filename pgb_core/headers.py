"""Where the tensors of a checkpoint folder lie, told from the headers of its safetensors files; no tensor is read.

A safetensors file is the size of its header (8 bytes), the header in JSON, and the tensors one after another. Ours is
the first of two readers: it is stricter than the library's, which has to agree with it afterwards. Nothing here
imports torch.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from pgb_core import bounded_json
from pgb_core.errors import CheckpointError
from pgb_core.families import Shape

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD = re.compile(r"model-[0-9]{5}-of-[0-9]{5}\.safetensors")
"""Names that the files of weights in several files may have; there is no way out of a folder in them."""
FLOAT_TYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_SIZES = {"BOOL": 1, "U8": 1, "I8": 1, "U16": 2, "I16": 2, "U32": 4, "I32": 4, "U64": 8, "I64": 8}
_SIZES |= {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_HEADER_LIMIT = 2**20
"""Largest header that is read, in bytes: that of a BERT of 96 layers takes a quarter of it."""
_MOST_SHARDS = 64
_MOST_DIMENSIONS = 8
_RENAMED_CONTENT = (
    (b"PK\x03\x04", "a zip archive, as torch.save() writes it"),
    *((bytes((0x80, protocol)), "a pickle") for protocol in range(2, 6)),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"GGUF", "a GGUF file"),
    (b"version https://git-lfs", "a pointer of Git LFS to a file that was not fetched"),
)
"""First bytes of what people rename, which no header of our size has, and what it is."""


@dataclass(frozen=True)
class Stored:
    """Where one tensor lies: bytes `begin` to `end` of `file`, `shape` numbers of type `dtype` (F32, BF16, ...)."""

    file: Path
    dtype: str
    shape: Shape
    begin: int
    end: int

    @property
    def numbers(self) -> int:
        return math.prod(self.shape)


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The files with the weights of `folder`: model.safetensors, else those that its index names, in their order.

    Raises:
        CheckpointError: an index names a file that is no part of such weights, or that is missing.
    """
    if (folder / WEIGHTS).exists() or not (folder / INDEX).exists():
        return (folder / WEIGHTS,)
    return tuple(folder / name for name in sorted(set(_read_index(folder).values())))


def read_headers(folder: Path) -> dict[str, Stored]:
    """Every tensor of the weights in `folder` by its name in the file.

    Raises:
        CheckpointError: a file is damaged or no safetensors file, or the index of several does not tell what they hold.
    """
    files = weight_files(folder)
    found: dict[str, Stored] = {}
    for file in files:
        tensors = read_header(file)
        twice = sorted(found.keys() & tensors.keys())
        if twice:
            raise CheckpointError(f"{folder.name}: tensor {twice[0]:.80} is in two files; save the model again.")
        found |= tensors
    if files[0].name != WEIGHTS:
        _compare(folder, _read_index(folder), found)
    return found


def read_header(file: Path) -> dict[str, Stored]:
    """Every tensor of one safetensors file.

    Raises:
        CheckpointError: it is damaged, or no safetensors file.
    """
    try:
        entries, start = _parse(file)
        found = {name: _stored(file, name, entry, start) for name, entry in entries.items()}
        _refuse_gaps(list(found.values()), start, file.stat().st_size)
        with safe_open(file, framework="numpy") as opened:
            if set(opened.keys()) != found.keys():
                raise ValueError("its header can be read in two ways")
    except (SafetensorError, OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{file.name} of {file.parent.name} is damaged ({reason:.150}); copy it again."
        ) from error
    return found


def fingerprint(folder: Path) -> str:
    """SHA-256 of model.safetensors in hexadecimal; of weights in several files, that of their own, one after another.

    Raises:
        CheckpointError: as for `weight_files`.
        OSError: a file cannot be read.
    """
    digests = [_sha256(file) for file in weight_files(folder)]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


# --- one file ------------------------------------------------------------------------------------------------------


def _parse(file: Path) -> tuple[dict[str, Any], int]:
    """The header's entries, and where the tensors begin."""
    with file.open("rb") as opened:
        start = opened.read(32)
        size = int.from_bytes(start[:8], "little")
        if len(start) < 8:
            raise ValueError("it is empty")
        if size > _HEADER_LIMIT:
            kind = next((what for first, what in _RENAMED_CONTENT if start.startswith(first)), None)
            if kind is not None:
                raise CheckpointError(
                    f"{file.name} of {file.parent.name} is not a safetensors file but {kind}, which is refused: "
                    "loading it may run code; save the model with save_pretrained()."
                )
            raise ValueError(f"its header would have {size:,} bytes, at most {_HEADER_LIMIT:,} are read")
        opened.seek(8)
        header = opened.read(size)
    if len(header) < size:
        raise ValueError("it ends within its header")
    entries = bounded_json.parse_object(header)
    entries.pop("__metadata__", None)
    if not entries:
        raise ValueError("it holds no tensors")
    return entries, 8 + size


def _stored(file: Path, name: str, entry: Any, start: int) -> Stored:
    """One entry of a header, checked by itself."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"tensor {name:.60} is not described as one")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _SIZES:
        raise ValueError(f"tensor {name:.60} is of type {dtype!s:.20}, which is not supported")
    if not _whole_numbers(shape) or len(shape) > _MOST_DIMENSIONS or not _whole_numbers(offsets) or len(offsets) != 2:
        raise ValueError(f"tensor {name:.60} has no sizes and places that are whole numbers")
    begin, end = offsets
    if end - begin != math.prod(shape) * _SIZES[dtype]:
        raise ValueError(f"tensor {name:.60} has not as many bytes as its sizes say")
    return Stored(file, dtype, tuple(shape), start + begin, start + end)


def _whole_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**48 for value in values)


def _refuse_gaps(tensors: Sequence[Stored], start: int, size: int) -> None:
    """The tensors lie one after another from `start` to the end of the file, without gap or overlap."""
    place = start
    for tensor in sorted(tensors, key=lambda tensor: (tensor.begin, tensor.end)):
        if tensor.begin != place:
            raise ValueError(f"its tensors {'overlap' if tensor.begin < place else 'leave a gap'}")
        place = tensor.end
    if place != size:
        raise ValueError(f"it has {size:,} bytes, its header says {place:,}")


# --- several files -------------------------------------------------------------------------------------------------


def _read_index(folder: Path) -> dict[str, str]:
    """The file of each tensor, by the index of weights in several files."""
    where = f"{INDEX} of {folder.name}"
    try:
        names = bounded_json.read_object(folder / INDEX, _HEADER_LIMIT).get("weight_map")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{where} cannot be read ({error}); save the model again.") from error
    if not isinstance(names, dict) or not names:
        raise CheckpointError(f"{where} has no weight_map that says where each tensor is; save the model again.")
    files = list(dict.fromkeys(names.values())) if all(isinstance(name, str) for name in names.values()) else [None]
    for name in files:
        if name is None or not SHARD.fullmatch(name):
            raise CheckpointError(
                f"{where} names {str(name)!r:.60}, which is no part of weights in this folder, such as "
                "model-00001-of-00002.safetensors; save the model again."
            )
    if len(files) > _MOST_SHARDS:
        raise CheckpointError(f"{where} names {len(files)} files, more than {_MOST_SHARDS}; save the model in fewer.")
    missing = [name for name in files if not (folder / str(name)).is_file()]
    if missing:
        raise CheckpointError(f"{folder.name} lacks {missing[0]}, which its index names; copy it there.")
    return names


def _compare(folder: Path, index: Mapping[str, str], found: Mapping[str, Stored]) -> None:
    """Index and files name the same tensors, each in the same file."""
    actual = {name: stored.file.name for name, stored in found.items()}
    wrong = sorted(name for name in index.keys() | actual.keys() if index.get(name) != actual.get(name))
    if wrong:
        raise CheckpointError(
            f"{folder.name}: {INDEX} and the files do not agree on where tensor {wrong[0]:.80} is; "
            "save the model again."
        )

"""JSON of somebody else's, read so that no content of it can cost more than its size allows.

Text that is no strict UTF-8, names that occur twice in one object (readers differ in which they take), a nesting that
is too deep and a number that is too long are refused like any other damage.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MOST_PARTS = 400_000
"""Objects and lists in one file: an empty one takes two bytes in a file and 64 in memory."""
_MOST_DIGITS = 20


def read_object(file: Path, limit: int) -> dict[str, Any]:
    """The JSON object in `file`.

    Raises:
        ValueError: it has more than `limit` bytes or is no JSON object; the message says why, in a few words.
        OSError: it cannot be read.
    """
    with file.open("rb") as opened:
        content = opened.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"it is larger than {limit / 1e6:.0f} MB")
    return parse_object(content)


def parse_object(content: bytes) -> dict[str, Any]:
    """The JSON object that `content` is.

    Raises:
        ValueError: it is none; the message says why, in a few words.
    """
    if content.count(b"{") + content.count(b"[") > MOST_PARTS:
        raise ValueError("it has too many parts")
    try:
        value = json.loads(content.decode("utf-8"), object_pairs_hook=_unique, parse_int=_whole)
    except UnicodeDecodeError as error:
        raise ValueError("it is not UTF-8 text") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error.msg} in line {error.lineno}") from error
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("it says something twice")
    return found


def _whole(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"it holds a whole number of {len(digits)} digits")
    return int(digits)

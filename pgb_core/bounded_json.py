"""JSON of somebody else's, read so that no content of it can cost more than its size allows.

Text that is no strict UTF-8 or says half a character, names that occur twice in one object (readers differ in which
they take), a nesting that is too deep and a number that is too long are refused like any other damage.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

_MOST = {b"[": 400_000, b"{": 20_000, b":": 300_000, b",": 1_000_000}
"""Lists, objects, names and values in one file: in memory each takes up to a hundred times its bytes.

Counted before the file is parsed, those within texts as well. A tokenizer.json of 250,000 tokens has as many names, and
up to 250,000 merges of two values each.
"""
_MOST_DIGITS = 40
"""Of a whole number: transformers writes 10^30 for a tokenizer without a longest text."""
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
"""The escape of one half of a character beyond U+FFFF, which is no text without the other."""


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
    if any(content.count(mark) > most for mark, most in _MOST.items()):
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
    if _HALF.search(content):
        _refuse_halves(value)
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


def _refuse_halves(value: dict[str, Any]) -> None:
    """Raise a ValueError where a text in `value` cannot be written, neither to a file nor on a page."""
    left: list[Any] = [value]
    while left:
        part = left.pop()
        inner = [*part, *part.values()] if isinstance(part, dict) else part
        try:
            "".join(each for each in inner if isinstance(each, str)).encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError("a text in it has half a character") from error
        left += [each for each in inner if isinstance(each, dict | list)]

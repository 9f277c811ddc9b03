"""What a user writes on a run: a name, notes, and a pin that keeps it.

The text is data, never markup: it is bounded and freed of what could disguise it, and whoever shows it shows it as it
is. Nothing here knows where a label is kept; `pgb_core.store` does.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NAME_LENGTH = 80
NOTES_LENGTH = 4000
"""Characters that are kept of a name and of notes."""

_DISGUISES = frozenset("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Marks of direction: they can make text read other than it is, and a name needs none."""


@dataclass(frozen=True)
class Label:
    """A user's words on a run, cleaned when they are made.

    >>> Label("  first   try ").name
    'first try'
    """

    name: str = ""
    """One line."""
    notes: str = ""
    pinned: bool = False
    """Whether the run is to be kept when space is made."""

    def __post_init__(self) -> None:
        # a frozen dataclass can be given its cleaned values in no other way
        object.__setattr__(self, "name", " ".join(_plain(self.name).split())[:NAME_LENGTH].rstrip())
        object.__setattr__(self, "notes", _plain(self.notes)[:NOTES_LENGTH].strip())

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Label:
        """The label in `values`, whatever a hand has put there: what is not of its type counts as not given."""
        name, notes = (value if isinstance(value := values.get(key), str) else "" for key in ("name", "notes"))
        return cls(name, notes, values.get("pinned") is True)


def _plain(text: str) -> str:
    """`text` without control characters but for line breaks, lone surrogates and marks of direction."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").replace("\t", " ")
    return "".join(
        c for c in lines if c == "\n" or (unicodedata.category(c) not in ("Cc", "Cs") and c not in _DISGUISES)
    )

"""Well-known fine-tuned checkpoints of the Hugging Face Hub, each with the task that it was trained for.

`data/hub_models.json` holds them. The order of their labels matters: some say LABEL_0, LABEL_1, ... and were trained
with another order than the task's, which costs nothing but accuracy, silently. What is known here names them.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).parent / "data" / "hub_models.json"


@dataclass(frozen=True)
class Curated:
    """One checkpoint: `name` is its `owner/name`, `labels` are in the order of its outputs, if it is a classifier."""

    name: str
    family: str
    task: str
    labels: tuple[str, ...]
    layers: int
    note: str | None = None
    """What one has to know before choosing it."""


@functools.cache
def curated() -> tuple[Curated, ...]:
    """All of them, in the order in which they are offered."""
    entries = json.loads(FILE.read_text(encoding="utf-8"))["models"]
    return tuple(Curated(**{**entry, "labels": tuple(entry["labels"])}) for entry in entries)


def find(name: str) -> Curated | None:
    """What is known of the model `owner/name`; upper and lower case are the same, as on the Hub."""
    return next((entry for entry in curated() if entry.name.casefold() == name.casefold()), None)

"""Well-known fine-tuned checkpoints of the Hugging Face Hub, each with the task that it was trained for.

`data/hub_models.json` holds them, and says what it promises. The order of their labels matters: some say LABEL_0,
LABEL_1, ... and were trained with another order than the task's, which costs nothing but accuracy, silently.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

from pgb_core.families import HEAD_TITLES
from pgb_core.inspection import CheckpointInfo
from pgb_core.label_order import ids_by_name, listed, nameless

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


def difference(entry: Curated, info: CheckpointInfo) -> str | None:
    """In one line, what the model's own files say and its entry does not; None where they agree.

    Files that only number as many labels as the entry names do not contradict it.
    """
    found = []
    if info.family != entry.family:
        found.append(f"family {info.family}")
    if info.layers != entry.layers:
        found.append(f"{info.layers} layers")
    if not info.head_trained:
        found.append("no trained head")
    elif not _same_labels(entry, info):
        labels = f" with labels {listed(info.labels)}" if info.head == "classification" else ""
        found.append(HEAD_TITLES[info.head] + labels)
    if not found:
        return None
    return f"the list of well-known models is wrong about {entry.name}, whose own files count: {', '.join(found)}"


def _same_labels(entry: Curated, info: CheckpointInfo) -> bool:
    if not entry.labels or info.head != "classification":
        return not entry.labels and info.head != "classification"
    own = dict(enumerate(info.labels))
    as_listed = {label: index for index, label in enumerate(entry.labels)}
    return len(own) == len(as_listed) and (nameless(own) or ids_by_name(own, entry.labels) == as_listed)

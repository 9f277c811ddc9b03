"""Where a checkpoint comes from and under which licence, as far as its files say: read as plain text, never trusted.

The head of README.md, as the Hugging Face Hub has it, is YAML between two lines of dashes. Only `key: value` lines of a
few known keys are read; no YAML is parsed, which could grow without bounds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgb_core.checkpoints import Checkpoint
from pgb_core.demo import BASE_LICENSE, BASE_MODEL
from pgb_core.finetune_spec import FinetuneSpec
from pgb_core.hub import PREFIX, read_record
from pgb_core.metrics import title
from pgb_core.settings import get_settings

FILE = "README.md"
_LIMIT = 2**16
_LONGEST = 100
_LINE = re.compile(r"(license|license_name|base_model|base_model_revision|pgb_task|pgb_score):[ \t]*(.*)")
_ITEM = re.compile(r"-[ \t]+(.*)")


@dataclass(frozen=True)
class Origin:
    """What is known of where a checkpoint comes from; None where nothing is."""

    source: str | None = None
    """A model on the Hub, or where else it is from."""
    license: str | None = None
    revision: str | None = None
    """Commit on the Hub, of it or of what it was fine-tuned from."""


def read_origin(folder: Path) -> Origin:
    """What the files in `folder` say: the record of a download from the Hub, else the head of README.md."""
    record = {key: _plain(value) for key, value in read_record(folder).items()}
    head = _front_matter(folder / FILE)
    source = record.get("name") or head.get("base_model")
    known = record.get("license") or head.get("license_name") or head.get("license")
    return Origin(source, known, record.get("revision") or head.get("base_model_revision"))


def origin_of(found: Checkpoint) -> Origin:
    """The same of a checkpoint that was asked for by name."""
    if found.source == "demo":
        return Origin(BASE_MODEL, BASE_LICENSE)
    return read_origin(found.path)


def of_finetuned(spec: FinetuneSpec, facts: Mapping[str, Any], origin: Origin) -> str:
    """README.md of a checkpoint that `finetuning` wrote."""
    place = Path(spec.checkpoint)
    uploaded = place.parent == get_settings().uploads_dir
    name = place.name if place.is_absolute() else spec.checkpoint.removeprefix(PREFIX)
    base = origin.source or ("an upload" if uploaded else name)
    head = {"base_model": base, "pgb_task": spec.task, "pgb_score": f"{facts['score']:.4f}"}
    head |= {"base_model_revision": origin.revision} if origin.revision else {}
    head |= {"license": origin.license} if origin.license else {}
    lines = (f"{key}: {json.dumps(value)}" for key, value in head.items())  # JSON is YAML
    return (
        "\n".join(("---", *lines, "---"))
        + f"\n\nFine-tuned from `{base}` on {spec.task}: {spec.epochs} epochs, learning rate "
        f"{facts['learning_rate']:g}, seed {spec.seed}. {title(facts['metric'])} "
        f"{facts['score']:.4f} ± {facts['standard_error']:.4f} on {facts['samples']} held-out examples.\n"
    )


def _front_matter(file: Path) -> dict[str, str]:
    """The known keys of the head, each with its value; of a list with its first one."""
    try:
        if file.is_symlink() or not file.is_file():
            return {}
        with file.open("rb") as opened:
            lines = opened.read(_LIMIT).decode("utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    if not lines or lines[0].strip() != "---":
        return {}
    found: dict[str, str] = {}
    waiting = None  # a key whose list begins in the next line
    for line in lines[1:]:
        if line.strip() == "---":
            break
        if key := _LINE.fullmatch(line.rstrip()):
            name, value = key[1], key[2]
            waiting = None if value else name
        elif waiting and (item := _ITEM.fullmatch(line.strip())):
            name, value, waiting = waiting, item[1], None
        else:
            continue
        if value:
            found.setdefault(name, _plain(value))
    return found


def _plain(value: str) -> str:
    """A value without quotes, control characters or more length than a line has."""
    return re.sub(r"[^\w .,:/+()@-]", "", value.strip().strip("'\""))[:_LONGEST]

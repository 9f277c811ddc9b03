"""Predicted latency: how long every form of a sublayer takes on this server, measured once per shape, and added up.

    CACHE_DIR/latency/KEY.json

A *form* is a number of groups and how they share units, inputs and outputs; a table holds the milliseconds of some
numbers of units in each form, and between them a straight line is drawn. What is left of a model without any sublayer
(embeddings, residuals, LayerNorms, pooler, classifier) is the `base`. Nothing here imports torch: `latency_forms.py`
measures.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pgb_core import store
from pgb_core.errors import RunError
from pgb_core.layout import Kind

FORMAT = 1


@dataclass(frozen=True)
class Form:
    """Milliseconds of a sublayer in one form."""

    groups: int
    fill: float
    """Share of the kept units' weights that the groups hold: the sum of their squared shares, 1 of a rectangle."""
    units: tuple[int, ...]
    """Heads or neurons kept, rising."""
    milliseconds: tuple[float, ...]


@dataclass(frozen=True)
class Setup:
    """What a table was measured for: times of another machine, device or shape say nothing."""

    machine: str
    device: str
    threads: int
    batch: int
    length: int
    layers: int
    hidden: int
    heads: int
    neurons: int

    @property
    def key(self) -> str:
        """12 hexadecimal digits."""
        return hashlib.sha256(json.dumps([FORMAT, asdict(self)]).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class LatencyTable:
    """The times of one shape on one machine."""

    setup: Setup
    created: float
    """Seconds since the epoch."""
    dense_ms: float
    """The whole dense model."""
    base_ms: float
    """The model with every sublayer dropped."""
    error: float
    """The most by which the prediction of a pruned model was off when the table was measured, as a fraction."""
    forms: Mapping[Kind, tuple[Form, ...]]

    def sublayer_ms(self, kind: Kind, groups: int, fill: float, units: int) -> float:
        """Milliseconds of a sublayer: those of the form that is nearest, between the numbers of units measured.

        Args:
            fill: share of the kept units' weights that is kept.
            units: heads or neurons kept; none is a dropped sublayer, which the base has.
        """
        if units == 0:
            return 0.0
        form = min(self.forms[kind], key=lambda form: (abs(form.groups - groups), abs(form.fill - fill)))
        return float(np.interp(units, form.units, form.milliseconds))

    def option_ms(self, kind: Kind, of_units: int, option: Mapping[str, Any]) -> float:
        """Milliseconds of an option of a sublayer that has `of_units` heads or neurons."""
        units = option["units"]
        fill = option["density"] * of_units / units if units else 1.0
        return self.sublayer_ms(kind, option["groups"], fill, units)


def machine() -> str:
    """What this machine computes on, in words: the model of its CPU."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def write(table: LatencyTable, cache_dir: Path) -> Path:
    """Keep `table`, in place of an older one of the same setup."""
    folder = cache_dir / "latency"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{table.setup.key}.json"
    store.write_json(path, {"format": FORMAT, **asdict(table)})
    return path


def find(sizes: Mapping[str, int], cache_dir: Path) -> LatencyTable | None:
    """The newest table of this machine for an encoder of `sizes` (as `Record.sizes`); None where there is none."""
    here = machine()
    found = []
    for path in (cache_dir / "latency").glob("*.json"):
        with contextlib.suppress(RunError, KeyError, TypeError):  # damaged, or of another version: measured anew
            table = _read(path)
            if table.setup.machine == here and all(getattr(table.setup, name) == sizes[name] for name in sizes):
                found.append(table)
    return max(found, key=lambda table: table.created, default=None)


def _read(path: Path) -> LatencyTable:
    values = store.read_json(path)
    if values.pop("format") != FORMAT:
        raise RunError(f"latency table {path.stem} is of another version.")
    forms = {
        kind: tuple(
            Form(form["groups"], form["fill"], tuple(form["units"]), tuple(form["milliseconds"])) for form in entries
        )
        for kind, entries in values.pop("forms").items()
    }
    return LatencyTable(Setup(**values.pop("setup")), forms=forms, **values)

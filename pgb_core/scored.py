"""Scored records: what one scoring of a checkpoint on a task leaves, so that any target can be tried without the model.

    RUNS_DIR/scored/KEY.json

A record holds the option table of every sublayer with the sizes of the dense model. Scores and prices depend on the
weights, the calibration text and how the scores were asked for, not on method, target or constraints: that is what KEY
is made of. Finished runs of the methods that share the table leave one, `python -m pgb_core score` makes one. Nothing
here imports torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgb_core import store
from pgb_core.data_files import Columns
from pgb_core.errors import RunError
from pgb_core.layout import SublayerShape
from pgb_core.store import Run

FORMAT = 1
"""Raised when tables of before cannot be compared with those of now; older records are then left out."""
SPEC_KEYS = (
    "checkpoint",
    "checkpoint_source",
    "revision",
    "fingerprint",
    "task",
    "train_file",
    "eval_file",
    *("text_column", "pair_column", "label_column", "label_map"),
    "importance",
    "seed",
    "calibration_samples",
    "max_length",
    "device",
    "device_name",
    "threads",
    "versions",
)
"""What a record keeps of the resolved spec: what it was made from, and what a run of it has to be given."""
_IDENTITY = ("fingerprint", "task", "importance", "seed", "calibration_samples", "max_length")


@dataclass(frozen=True, eq=False)
class Sublayer:
    """The table of one sublayer: `options` as in options.json, with `flops`, `methods` and `group_units`."""

    layer: int
    """Counted from 0."""
    shape: SublayerShape
    options: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, eq=False)
class Record:
    """One scoring. Shared by all who look at it: never written to."""

    key: str
    created: float
    """Seconds since the epoch."""
    spec: Mapping[str, Any]
    dense: Mapping[str, int]
    """`parameters` and `bytes` of the whole dense model, `flops` of one text of 128 tokens."""
    sublayers: tuple[Sublayer, ...]

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that share the table, by name."""
        return tuple(sorted({m for s in self.sublayers for option in s.options for m in option["methods"]}))

    @property
    def weights(self) -> int:
        """Encoder weights of the dense model."""
        return sum(s.shape.weights for s in self.sublayers)

    @property
    def sizes(self) -> dict[str, int]:
        """`layers`, `hidden`, `heads` and `neurons` of the encoder."""
        attention, feed_forward = (
            next(s.shape for s in self.sublayers if s.shape.kind == kind) for kind in ("attention", "feed_forward")
        )
        layers = len({s.layer for s in self.sublayers})
        return {
            "layers": layers,
            "hidden": attention.hidden,
            "heads": attention.units,
            "neurons": feed_forward.units,
        }


# --- identity ------------------------------------------------------------------------------------------------------


def key_of(spec: Mapping[str, Any]) -> str:
    """Key of the record that a resolved spec makes: 12 hexadecimal digits.

    Raises:
        OSError: the spec names a training file that cannot be read.
    """
    identity = {"format": FORMAT, "data": _data(spec), **{name: spec[name] for name in _IDENTITY}}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]


def _data(spec: Mapping[str, Any]) -> list[str] | None:
    """Which texts are trained on, where the task's name does not say it: a file's, whole or less a fifth."""
    if not spec.get("train_file"):
        return None
    with Path(spec["train_file"]).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    columns = Columns.of_spec(spec)
    named = [] if columns == Columns() else [str(columns)]
    return [digest, "whole" if spec.get("eval_file") else "held out", *named]


# --- writing -------------------------------------------------------------------------------------------------------


def write(
    runs_dir: Path,
    spec: Mapping[str, Any],
    dense: Mapping[str, int],
    sublayers: Sequence[tuple[int, SublayerShape, Sequence[Mapping[str, Any]]]],
) -> str:
    """Write, or refresh, the record of a resolved `spec`; returns its key.

    Args:
        sublayers: per sublayer its layer, shape and options.
    """
    folder = runs_dir / "scored"
    folder.mkdir(parents=True, exist_ok=True)
    key = key_of(spec)
    store.write_json(
        folder / f"{key}.json",
        {
            "format": FORMAT,
            "created": time.time(),
            "spec": {name: spec.get(name) for name in SPEC_KEYS},
            "dense": dict(dense),
            "sublayers": [
                {
                    "layer": layer,
                    "kind": shape.kind,
                    "hidden": shape.hidden,
                    "units": shape.units,
                    "width": shape.width,
                    "options": list(options),
                }
                for layer, shape, options in sublayers
            ],
        },
    )
    return key


# --- reading -------------------------------------------------------------------------------------------------------


def find(runs_dir: Path) -> dict[str, Path]:
    """Where each record is, by key, the newest first: its file, or the folder of a run that has all of one."""
    found: dict[str, Path] = {}
    for run in reversed(store.list_runs(runs_dir)):
        with contextlib.suppress(OSError, KeyError):  # a file that is gone; the spec of an older version
            if _is_whole(run):
                found[key_of(run.spec)] = run.path
    found |= {path.stem: path for path in (runs_dir / "scored").glob("*.json")}
    return dict(sorted(found.items(), key=lambda item: stamp(item[1]), reverse=True))


def stamp(path: Path) -> int:
    """When what `find` found was last written, in nanoseconds: with its path, what a cache goes by."""
    try:
        return path.stat().st_mtime_ns
    except OSError:  # deleted meanwhile
        return 0


def read(path: Path) -> Record:
    """The record that `find` found at `path`.

    Raises:
        RunError: it is damaged, of another version, or has gone.
    """
    if path.is_dir():
        return of_run(store.read_run(path))
    values = store.read_json(path)
    try:
        if values["format"] != FORMAT:
            raise RunError(f"record {path.stem} is of another version; score the checkpoint again.")
        sublayers = tuple(
            Sublayer(
                entry["layer"],
                SublayerShape(entry["kind"], entry["hidden"], entry["units"], entry["width"]),
                tuple(entry["options"]),
            )
            for entry in values["sublayers"]
        )
        return Record(path.stem, values["created"], values["spec"], values["dense"], sublayers)
    except (KeyError, TypeError) as error:
        raise RunError(f"record {path.stem} is damaged; score the checkpoint again.") from error


def of_run(run: Run) -> Record:
    """The record that a finished run holds.

    Raises:
        RunError: it holds none, as it is no run of a method with a shared table, or one of the first version.
    """
    if run.result is None or not _is_whole(run):
        raise RunError(f"run {run.id} holds no table that other targets can be tried on.")
    tables = store.read_options(run)
    sublayers = []
    for entry, table in zip(run.result["sublayers"], tables, strict=True):
        entries, units = entry["matrices"][0], entry["units"]["dense"]
        shape = SublayerShape(entry["kind"], entries["columns"], units, entries["rows"] // units)
        options = tuple({k: v for k, v in option.items() if k != "admitted"} for option in table["options"])
        sublayers.append(Sublayer(entry["layer"], shape, options))
    dense = {name: run.result[name]["dense"] for name in ("parameters", "flops", "bytes")}
    spec = {name: run.spec.get(name) for name in SPEC_KEYS}
    return Record(key_of(run.spec), run.status.finished or run.status.updated, spec, dense, tuple(sublayers))


def _is_whole(run: Run) -> bool:
    """Whether the run shares its table with other methods, and says of every option which may choose it.

    Runs of the first version predicted nothing for other methods, and their tables held what their own may choose.
    """
    return len((run.result or {}).get("predictions") or {}) > 1

"""SweepSpec: which runs make up a sweep, and where each of them lies.

    DIR/sweep.json   the spec, when it was first started, and every point with the id of its run
    DIR/status.json  as of a run, or DIR/shard-i-of-n/status.json; DIR/log.txt
    DIR/points.csv   and points.parquet: the table, written anew after each point

A point is a run like any other, in a folder of its own. Its id follows from the plan, so that a sweep that is taken up
again, or shared out among machines (`shards`), finds its points without asking anybody.
Nothing here imports torch: the dashboard reads sweeps through this module.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import time
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from pgb_core import store
from pgb_core.errors import RunError, SpecError
from pgb_core.settings import get_settings
from pgb_core.spec import PruneSpec

SCHEMA = 1
FILE = "sweep.json"
AXES = ("checkpoint", "task", "seed", "method", "recover_epochs", "sparsity")
"""Fields of a spec in which the points of a sweep differ; points go through them in this order, the last fastest."""

LISTS = ("sparsities", "methods", "recover_epochs", "seeds", "checkpoints", "tasks")
"""Fields of a sweep that hold the values."""
_LOCK_SECONDS = 60.0


@dataclass(frozen=True)
class SweepSpec:
    """All combinations of checkpoints, tasks, targets, methods, recoveries and seeds.

    >>> SweepSpec(PruneSpec("demo", "bbc-news", 0.5), sparsities=(0.5, 0.75), methods=("pgb", "structured")).size
    4

    Raises:
        SpecError: a list is empty or repeats a value, a point cannot be run, or there are too many.
    """

    base: PruneSpec
    """What all points have in common; its fields of `AXES` do not count."""
    sparsities: tuple[float, ...]
    methods: tuple[str, ...] = ("pgb",)
    recover_epochs: tuple[int, ...] = (0,)
    seeds: tuple[int, ...] = (0,)
    checkpoints: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    """Without any, the one of `base`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "checkpoints", self.checkpoints or (self.base.checkpoint,))
        object.__setattr__(self, "tasks", self.tasks or (self.base.task,))
        for name, values in self.axes().items():
            if not values:
                raise SpecError(f"a sweep needs at least one value for {name}.")
            if len(set(values)) < len(values):
                raise SpecError(f"{name} of a sweep names a value twice.")
        most = get_settings().max_sweep_points
        if self.size > most:
            raise SpecError(
                f"{self.size} points are more than the {most} that a sweep may have; take fewer values, or raise "
                "PGB_MAX_SWEEP_POINTS."
            )
        first = {name: values[0] for name, values in self.axes().items()}
        # in one form, so that two specs of the same points are equal
        object.__setattr__(self, "base", replace(self.base, **first))
        self.points()

    def axes(self) -> dict[str, tuple[Any, ...]]:
        """The values of each field in which points differ."""
        values = (self.checkpoints, self.tasks, self.seeds, self.methods, self.recover_epochs, self.sparsities)
        return dict(zip(AXES, values, strict=True))

    @property
    def size(self) -> int:
        """How many points there are."""
        return math.prod(map(len, self.axes().values()))

    def points(self) -> list[PruneSpec]:
        """The spec of every point; those that share most come one after another."""
        combinations = itertools.product(*self.axes().values())
        return [replace(self.base, **dict(zip(AXES, values, strict=True))) for values in combinations]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {"base": self.base.to_dict(), **{name: list(getattr(self, name)) for name in LISTS}}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> SweepSpec:
        """The spec in `values`; keys that are not fields of a spec are ignored."""
        lists = {name: tuple(values[name]) for name in LISTS if name in values}
        return cls(PruneSpec.from_dict(values["base"]), **lists)


@dataclass(frozen=True)
class Point:
    """One run of a sweep: what it does and the id of its folder."""

    run: str
    spec: PruneSpec

    def __str__(self) -> str:
        recovered = f", {self.spec.recover_epochs} epochs of recovery" if self.spec.recover_epochs else ""
        seed = f", seed {self.spec.seed}" if self.spec.seed else ""
        return f"{self.spec.method}, {100 * self.spec.sparsity:.4g}% removed{recovered}{seed}"


@dataclass(frozen=True)
class Sweep:
    """A sweep folder, read. `runs_dir` holds the folders of its points."""

    path: Path
    runs_dir: Path
    spec: SweepSpec
    created: float
    points: tuple[Point, ...] = field(repr=False)

    @property
    def id(self) -> str:
        return self.path.name

    def status(self) -> store.Status:
        """Where it stands; a sweep whose process has gone is failed or cancelled.

        Raises:
            RunError: status.json is missing or damaged.
        """
        return store.read_status(self.path)

    def folder(self, point: Point) -> Path:
        """The run folder of `point`, which is there once it has begun."""
        return self.runs_dir / point.run

    def point_status(self, point: Point) -> store.Status | None:
        """The status of the run of `point`; None before it has begun, or where its folder cannot be read."""
        try:
            return store.read_status(self.folder(point))
        except RunError:
            return None

    def state(self, point: Point) -> store.State | None:
        """The state of `point_status`."""
        status = self.point_status(point)
        return None if status is None else status.state

    def count(self, state: store.State) -> int:
        """How many points are in `state`."""
        return sum(self.state(point) == state for point in self.points)


def write_sweep(path: Path, spec: SweepSpec, runs_dir: Path) -> Sweep:
    """Make `path` the folder of sweep `spec`; the points of an earlier sweep there stay in its list.

    Several processes may do so at once, for parts of one sweep.

    Raises:
        SpecError: the earlier sweep's points had other settings.
        RunError: it cannot be read, or the folder holds files that are not a sweep's.
    """
    path.mkdir(parents=True, exist_ok=True)
    with locked(path):
        return _write_sweep(path, spec, runs_dir)


def locked(path: Path) -> FileLock:
    """Held while the files of the sweep in folder `path` are read and written anew."""
    return FileLock(path / ".sweep.lock", timeout=_LOCK_SECONDS)


def _write_sweep(path: Path, spec: SweepSpec, runs_dir: Path) -> Sweep:
    created, points = time.time(), {}
    if (path / FILE).exists():
        earlier = read_sweep(path, runs_dir)
        if earlier.spec.base.device == "auto":  # each worker has its own
            spec = replace(spec, base=replace(spec.base, device="auto"))
        if replace(earlier.spec.base, **_place(spec.base)) != spec.base:
            raise SpecError(f"{path} holds a sweep with other settings; choose another --out.")
        created, points = earlier.created, {point.spec: point for point in earlier.points}
    elif any(not entry.name.startswith(".") for entry in path.iterdir()) and not (path / "status.json").exists():
        raise RunError(f"{path} holds files that are not a sweep's; choose a new or empty folder for --out.")
    for point in spec.points():
        if point not in points:
            points[point] = _named(point, created, {known.run for known in points.values()})
    entries = [{"run": point.run, **_place(point.spec)} for point in points.values()]
    store.write_json(path / FILE, {"schema": SCHEMA, "created": created, **spec.to_dict(), "points": entries})
    return read_sweep(path, runs_dir)


def read_sweep(path: Path, runs_dir: Path | None = None) -> Sweep:
    """The sweep in folder `path`; its points lie in `runs_dir`, by default where `path` does.

    Raises:
        RunError: sweep.json is missing or damaged.
    """
    values = store.read_json(path / FILE)
    try:
        spec, created = SweepSpec.from_dict(values), float(values["created"])
        points = tuple(
            Point(entry["run"], replace(spec.base, **{name: entry[name] for name in AXES if name in entry}))
            for entry in values["points"]
        )
    except (KeyError, TypeError, ValueError, SpecError) as error:
        raise RunError(f"{FILE} of {path.name} is damaged or of another version; delete the folder.") from error
    if not all(store.is_id(point.run) for point in points):
        raise RunError(f"{FILE} of {path.name} names points that are no runs; delete the folder.")
    return Sweep(path, runs_dir or path.parent, spec, created, points)


def find_sweep(runs_dir: Path, sweep_id: str) -> Sweep:
    """The sweep with id `sweep_id` among the runs of the dashboard; an id that is not one never touches the disk.

    Raises:
        RunError: there is no such sweep.
    """
    if not store.is_id(sweep_id) or not (runs_dir / sweep_id / FILE).is_file():
        raise RunError(f"There is no sweep {sweep_id[:40]!r} on this server.")
    return read_sweep(runs_dir / sweep_id)


def list_sweeps(runs_dir: Path) -> list[Sweep]:
    """All readable sweeps of the dashboard, newest first."""
    found = []
    for path in store.folders(runs_dir):
        if (path / FILE).is_file():
            try:
                sweep = read_sweep(path)
                sweep.status()
            except RunError:
                continue
            found.append(sweep)
    return sorted(found, key=lambda sweep: (sweep.created, sweep.id), reverse=True)


def _named(spec: PruneSpec, created: float, taken: Collection[str]) -> Point:
    """The point with an id that is not `taken`, in the form of all runs', so that every page finds it: when the sweep
    was started, and a digest of that and of the spec.
    """
    stamp, text = time.strftime("%Y%m%d-%H%M%S", time.localtime(created)), json.dumps([created, spec.to_dict()])
    while (run := f"{stamp}-{hashlib.sha256(text.encode()).hexdigest()[:6]}") in taken:
        text += "."
    return Point(run, spec)


def _place(spec: PruneSpec) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in AXES}

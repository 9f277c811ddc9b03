"""Many runs that share one scoring pass: `prune` for every point of a sweep, one after another.

What is not a point's own (`shared.Shared`) is made once for each checkpoint, task and seed. A point is pruned by the
very function that a single run is pruned by. Only the dense model's time is taken anew for each point, in turns with
the pruned model's: in a sweep of the demo by `pgb` and `structured`, timed against one time of the dense model taken
minutes before, two of three pairs came out in the wrong order.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pgb_core import store, sweep_table
from pgb_core.errors import JobCancelled, RunError, explain, reason
from pgb_core.progress import Progress, ProgressCallback
from pgb_core.pruner import prune, stage_weights
from pgb_core.shards import Shard, group_of
from pgb_core.shared import Shared, family
from pgb_core.spec import PruneSpec
from pgb_core.sweep_spec import Point, Sweep, SweepSpec, locked, write_sweep

log = logging.getLogger(__name__)

Guard = Callable[[Path], AbstractContextManager[object]]
"""What is entered while a point is made, given its run folder: `ending.cancellable` lets each be cancelled alone."""
_STATUS_SECONDS = 0.3
_LOOK_SECONDS = 0.5


def sweep(
    spec: SweepSpec,
    out: str | Path,
    *,
    runs_dir: Path | None = None,
    on_progress: ProgressCallback | None = None,
    on_point: Callable[[dict[str, Any]], object] | None = None,
    guard: Guard = contextlib.nullcontext,
    shard: Shard | None = None,
    helper: Path | None = None,
) -> list[dict[str, Any]]:
    """Make every point of `spec` that is not finished yet, and return the table of all, as `sweep_table.rows` says.

    With `shard` only its part of the points is made; other processes may make the other parts at the same time.

    Folder `out` gets the sweep's own files, `runs_dir` (by default `out`) a run folder for each point. After each
    point the table is written anew and `on_point` is called with the point's row. A point that fails, or is cancelled
    by itself, is recorded as such and the sweep goes on; called again, it is tried again.

    Args:
        helper: the folder for the status of a process that helps another one, whose status is in `out`: it begins with
            the points of `shard`, goes on with whatever nobody makes, and ends when nothing is left to begin. The
            other one waits for what its helpers make, and makes itself what they fail at.

    Raises:
        PGBError: the folder belongs to something else, or of several points to be made not one could.
        JobCancelled: the sweep was cancelled; finished points stay.
    """
    path = Path(out)
    found = write_sweep(path, spec, runs_dir or path)
    here = tuple(replace(point, spec=replace(point.spec, device=spec.base.device)) for point in found.points)
    found = replace(found, points=here)
    place = helper or (path if shard is None else shard.folder(path))
    status = _claim(place)
    first = set(spec.points() if shard is None else shard.of(spec.points()))
    own = [point for point in found.points if point.spec in first or shard is None]
    wanted = [point for point in own if point.spec in first]
    if helper is not None:
        wanted += [point for point in reversed(found.points) if point not in own]
    try:
        open_ = [point for point in wanted if found.state(point) != "done"]
        since = (status if helper is None else found.status()).started or time.time()
        meter = _Meter(found, place, status, since, open_, on_progress)
        _make_points(found, open_, meter, on_point, guard, patient=helper is None)
        table = sweep_table.write_table(found)
        _end(place, "done", _outcome(table, own if helper is None else ()))
    except BaseException as error:
        stopped = isinstance(error, JobCancelled | KeyboardInterrupt)
        _end(place, "cancelled" if stopped else "failed", reason(error))
        raise
    return table


def _outcome(table: Sequence[Mapping[str, Any]], own: Sequence[Point]) -> str:
    """What became of the points `own`, for the status.

    Raises:
        RunError: there are some, and not one of them could be made.
    """
    ids = {point.run for point in own}
    rows = [row for row in table if row["run"] in ids]
    failed = [row for row in rows if row["state"] != "done"]
    if failed and len(failed) == len(rows):
        raise RunError(f"no point of the sweep could be made; the first one: {failed[0]['message']}")
    return f"{len(rows) - len(failed)} of {len(rows)} points made" if failed else "done"


def _claim(path: Path) -> store.Status:
    """Make `path` the sweep folder of this process.

    Raises:
        RunError: another process works in it.
    """
    created = time.time()
    job: store.Job = "sweep"
    path.mkdir(exist_ok=True)  # of a shard
    if (path / "status.json").exists():
        earlier = store.read_status(path)
        if earlier.active and earlier.pid is not None and not store.mine(earlier):
            raise RunError(f"Another process is writing a sweep into {path}; choose another folder.")
        created, job = earlier.created, earlier.job
    status = store.Status("running", created=created, started=time.time(), message="starting", job=job)
    return store.write_status(path, store.this_process(status))


def _end(path: Path, state: store.State, message: str) -> None:
    with contextlib.suppress(OSError, RunError):  # a full disk: then the missing process tells that it failed
        status = store.recorded_status(path)
        fraction = 1.0 if state == "done" else status.fraction
        ended = replace(status, state=state, message=message, finished=time.time(), eta_seconds=None, fraction=fraction)
        store.write_last_status(path, ended)


def _make_points(
    found: Sweep,
    points: Sequence[Point],
    meter: _Meter,
    on_point: Callable[[dict[str, Any]], object] | None,
    guard: Guard,
    patient: bool,
) -> None:
    shared: Shared | None = None
    while (point := _take(found, points, meter, patient)) is not None:
        if shared is None or not shared.fits(point.spec):
            shared = None  # what it holds goes before the next is made
            group = [o for o in points if o not in meter.tried and group_of(o.spec) == group_of(point.spec)]
            shared = Shared(point.spec, [other.spec.method for other in group])
        progress = meter.begin(point)
        _make(found.folder(point), point, shared, meter.place, progress, guard)
        sweep_table.write_table(found)
        if on_point is not None:
            on_point(sweep_table.row(found, point))


def _take(found: Sweep, points: Sequence[Point], meter: _Meter, patient: bool) -> Point | None:
    """The first of `points` that nobody has made or makes, which is this process's from now on; None without any.

    Args:
        patient: wait for those that another process makes, in case it comes to nothing.

    Raises:
        JobCancelled: the sweep was cancelled.
    """
    while True:
        if store.cancel_requested(meter.place):
            raise JobCancelled("The sweep was cancelled.")
        if not patient and not found.status().active:  # nobody would be told of what a helper still makes
            return None
        with locked(found.path):
            states = {point: meter.state(point) for point in points if point not in meter.tried}
            point = next((point for point, state in states.items() if state not in ("done", "running", "queued")), None)
            if point is not None and _claimed(found.folder(point)):
                return point
        if point is not None:
            meter.tried.add(point)
        elif not patient or "running" not in states.values():
            return None
        else:
            meter.waits()
            time.sleep(_LOOK_SECONDS)


def _claimed(folder: Path) -> bool:
    """Whether the run folder of a point is now this process's; it may belong to something else."""
    try:
        store.claim(folder)
    except RunError as error:
        log.warning("A point is not made: %s", error)
        return False
    return True


def _make(folder: Path, point: Point, shared: Shared, place: Path, progress: ProgressCallback, guard: Guard) -> None:
    """Make one point; what goes wrong with it alone ends here, and is in the status of its run."""
    store.withdraw_cancel(folder)  # of an earlier attempt
    try:
        with guard(folder):
            prune(point.spec, folder, progress, shared=shared)
    except (JobCancelled, KeyboardInterrupt):
        if store.cancel_requested(place) or not store.cancel_requested(folder):
            raise
    except Exception as error:
        if explain(error) is None:  # a fault of ours: the run's log has the traceback too
            log.exception("The point %s failed.", point)


def point_weights(points: Sequence[PruneSpec]) -> list[float]:
    """Roughly how long each point takes beside the others, when they share what they can."""
    weights, seen = [], set[tuple[object, str | None]]()
    for spec in points:
        group, tables = group_of(spec), family(spec.method)
        spared = {"loading", "importance"} if any(other == group for other, _ in seen) else set()
        if (group, tables) in seen or tables is None:
            spared |= {"grouping", "budget"}
        seen.add((group, tables))
        weights.append(sum(stage_weights(spec, spared).values()))
    return weights


class _Meter:
    """Turns the progress of points into that of their sweep: for whoever asked, and for the status in `place`."""

    def __init__(
        self,
        found: Sweep,
        place: Path,
        status: store.Status,
        since: float,
        points: Sequence[Point],
        callback: ProgressCallback | None,
    ) -> None:
        self.place = place
        self.tried: set[Point] = set()
        """Points that this process has begun."""
        self._found, self._status, self._callback = found, status, callback
        self._several = len(found.spec.checkpoints) * len(found.spec.tasks) > 1
        self._weights = dict(zip(points, point_weights([point.spec for point in points]), strict=True))
        self._began, self._since = time.monotonic(), since
        self._told = 0.0

    def state(self, point: Point) -> store.State | None:
        """As `Sweep.state`; one that was cancelled by itself since the sweep began, in any process, counts as done."""
        status = self._found.point_status(point)
        if status is not None and status.state == "cancelled" and (status.finished or 0.0) > self._since:
            return "done"
        return None if status is None else status.state

    def waits(self) -> None:
        """Say that only others have something to do."""
        self._tell(Progress(self._status.stage, 0.0, self._status.fraction, "waiting for the points of others", None))

    def begin(self, point: Point) -> ProgressCallback:
        """The callback for the run of `point`, which begins now."""
        made = {other for other in self._weights if other in self.tried or self.state(other) == "done"}
        self.tried.add(point)
        before, own, total = sum(self._weights[o] for o in made), self._weights[point], sum(self._weights.values())
        everything = len(self._found.points)
        place = f"point {everything - len(self._weights) + len(made) + 1} of {everything}"
        name = f"{point.spec.checkpoint} on {point.spec.task}, {point}" if self._several else str(point)

        def report(progress: Progress) -> None:
            fraction = (before + own * progress.fraction) / total
            gone = time.monotonic() - self._began
            eta = gone * (1 - fraction) / fraction if fraction > 0.02 else None
            message = f"{place} ({name}){': ' if progress.message else ''}{progress.message}"
            self._tell(Progress(progress.stage, progress.stage_fraction, fraction, message, eta))

        return report

    def _tell(self, progress: Progress) -> None:
        if self._callback is not None:
            self._callback(progress)
        if time.monotonic() - self._told > _STATUS_SECONDS:
            self._told = time.monotonic()
            changed = {name: getattr(progress, name) for name in ("stage", "fraction", "message", "eta_seconds")}
            self._status = store.write_status(self.place, replace(self._status, **changed))

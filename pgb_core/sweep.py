"""Many runs that share one scoring pass: `prune` for every point of a sweep, one after another.

What is not a point's own (`shared.Shared`) is made once for each seed. A point is pruned by the very function that a
single run is pruned by. Only the dense model's time is taken anew for each point, in turns with the pruned model's: in
a sweep of the demo by `pgb` and `structured`, timed against one time of the dense model taken minutes before, two of
three pairs came out in the wrong order.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pgb_core import store, sweep_table
from pgb_core.errors import JobCancelled, RunError, explain, reason
from pgb_core.progress import Progress, ProgressCallback
from pgb_core.pruner import prune, stage_weights
from pgb_core.shared import Shared, family
from pgb_core.spec import PruneSpec
from pgb_core.sweep_spec import Point, Sweep, SweepSpec, write_sweep

log = logging.getLogger(__name__)

Guard = Callable[[Path], AbstractContextManager[object]]
"""What is entered while a point is made, given its run folder: `ending.cancellable` lets each be cancelled alone."""
_STATUS_SECONDS = 0.3


def sweep(
    spec: SweepSpec,
    out: str | Path,
    *,
    runs_dir: Path | None = None,
    on_progress: ProgressCallback | None = None,
    on_point: Callable[[dict[str, Any]], object] | None = None,
    guard: Guard = contextlib.nullcontext,
) -> list[dict[str, Any]]:
    """Make every point of `spec` that is not finished yet, and return the table of all, as `sweep_table.rows` says.

    Folder `out` gets the sweep's own files, `runs_dir` (by default `out`) a run folder for each point. After each
    point the table is written anew and `on_point` is called with the point's row. A point that fails, or is cancelled
    by itself, is recorded as such and the sweep goes on; called again, it is tried again.

    Raises:
        PGBError: the folder belongs to something else, or not one point could be made.
        JobCancelled: the sweep was cancelled; finished points stay.
    """
    path = Path(out)
    found = write_sweep(path, spec, runs_dir or path)
    status = _claim(path)
    try:
        _make_points(found, status, on_progress, on_point, guard)
        table = sweep_table.write_table(found)
        failed = [row for row in table if row["state"] != "done"]
        if len(failed) == len(table):
            raise RunError(f"no point of the sweep could be made; the first one: {failed[0]['message']}")
        made = f"{len(table) - len(failed)} of {len(table)} points"
        _end(path, "done", f"{made} made" if failed else "done")
    except BaseException as error:
        stopped = isinstance(error, JobCancelled | KeyboardInterrupt)
        _end(path, "cancelled" if stopped else "failed", reason(error))
        raise
    return table


def _claim(path: Path) -> store.Status:
    """Make `path` the sweep folder of this process.

    Raises:
        RunError: another process works in it.
    """
    created = time.time()
    if (path / "status.json").exists():
        earlier = store.read_status(path)
        if earlier.active and earlier.pid not in (None, os.getpid()):
            raise RunError(f"Another process is writing a sweep into {path}; choose another folder.")
        created = earlier.created
    status = store.Status("running", created=created, started=time.time(), message="starting", job="sweep")
    return store.write_status(path, store.this_process(status))


def _end(path: Path, state: store.State, message: str) -> None:
    with contextlib.suppress(OSError, RunError):  # a full disk: then the missing process tells that it failed
        status = store.recorded_status(path)
        fraction = 1.0 if state == "done" else status.fraction
        ended = replace(status, state=state, message=message, finished=time.time(), eta_seconds=None, fraction=fraction)
        store.write_status(path, ended)


def _make_points(
    found: Sweep,
    status: store.Status,
    on_progress: ProgressCallback | None,
    on_point: Callable[[dict[str, Any]], object] | None,
    guard: Guard,
) -> None:
    wanted = set(found.spec.points())
    points = [point for point in found.points if point.spec in wanted and found.state(point) != "done"]
    meter = _Meter(found, points, status, on_progress)
    shared: Shared | None = None
    for number, point in enumerate(points):
        if store.cancel_requested(found.path):
            raise JobCancelled("The sweep was cancelled.")
        if shared is None or not shared.fits(point.spec):
            methods = [other.spec.method for other in points[number:] if other.spec.seed == point.spec.seed]
            shared = Shared(point.spec, methods)
        _make(found, point, shared, meter.of(number), guard)
        sweep_table.write_table(found)
        if on_point is not None:
            on_point(sweep_table.row(found, point))


def _make(found: Sweep, point: Point, shared: Shared, report: ProgressCallback, guard: Guard) -> None:
    """Make one point; what goes wrong with it alone ends here, and is in the status of its run."""
    folder = found.folder(point)
    store.withdraw_cancel(folder)  # of an earlier attempt
    try:
        with guard(folder):
            prune(point.spec, folder, report, shared=shared)
    except (JobCancelled, KeyboardInterrupt):
        if store.cancel_requested(found.path) or not store.cancel_requested(folder):
            raise
    except Exception as error:
        if explain(error) is None:  # a fault of ours: the run's log has the traceback too
            log.exception("The point %s failed.", point)


def point_weights(points: Sequence[PruneSpec]) -> list[float]:
    """Roughly how long each point takes beside the others, when they share what they can."""
    weights, seen = [], set[tuple[int, str | None]]()
    for spec in points:
        spared = {"loading", "importance"} if any(seed == spec.seed for seed, _ in seen) else set()
        if (spec.seed, family(spec.method)) in seen or family(spec.method) is None:
            spared |= {"grouping", "budget"}
        seen.add((spec.seed, family(spec.method)))
        weights.append(sum(stage_weights(spec, spared).values()))
    return weights


class _Meter:
    """Turns the progress of points into that of their sweep: for whoever asked, and for the sweep's status."""

    def __init__(
        self, found: Sweep, points: Sequence[Point], status: store.Status, callback: ProgressCallback | None
    ) -> None:
        self._path, self._points, self._status, self._callback = found.path, points, status, callback
        self._finished = len(found.points) - len(points)
        self._weights = point_weights([point.spec for point in points])
        self._began = time.monotonic()
        self._told = 0.0

    def of(self, number: int) -> ProgressCallback:
        """The callback for the run of point `number`."""
        before, own, total = sum(self._weights[:number]), self._weights[number], sum(self._weights)
        place = f"point {self._finished + number + 1} of {self._finished + len(self._points)}"

        def report(progress: Progress) -> None:
            fraction = (before + own * progress.fraction) / total
            gone = time.monotonic() - self._began
            eta = gone * (1 - fraction) / fraction if fraction > 0.02 else None
            message = f"{place} ({self._points[number]}){': ' if progress.message else ''}{progress.message}"
            self._tell(Progress(progress.stage, progress.stage_fraction, fraction, message, eta))

        return report

    def _tell(self, progress: Progress) -> None:
        if self._callback is not None:
            self._callback(progress)
        if time.monotonic() - self._told > _STATUS_SECONDS:
            self._told = time.monotonic()
            changed = {name: getattr(progress, name) for name in ("stage", "fraction", "message", "eta_seconds")}
            self._status = store.write_status(self._path, replace(self._status, **changed))

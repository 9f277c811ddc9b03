"""A run and its folder: status while it computes, its log, and how it ended, whatever it computes."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pgb_core import quota, store
from pgb_core.errors import JobCancelled, PGBError, RunError, explain, reason
from pgb_core.progress import Progress, ProgressCallback
from pgb_core.settings import get_settings
from pgb_core.status import Job

log = logging.getLogger(__name__)


def recorded(
    folder: Path,
    spec: Mapping[str, Any],
    work: Callable[[ProgressCallback], dict[str, Any]],
    on_progress: ProgressCallback | None = None,
    job: Job = "prune",
) -> dict[str, Any]:
    """Do `work` as the run of `folder`, which `spec` asks for, and write what it returns as result.json; returns that.

    `on_progress` is called with a `Progress` several times a second; raising `JobCancelled` from it stops the run,
    which is then recorded as cancelled.

    Raises:
        PGBError: the run cannot be done; status.json says why. Nothing half-written is left behind.
    """
    status = store.claim(folder, job)
    store.write_json(folder / "spec.json", spec)  # what a run that fails early asked for
    last = 0.0

    def report(progress: Progress) -> None:
        nonlocal status, last
        if on_progress is not None:
            on_progress(progress)
        if progress.stage_fraction in (0.0, 1.0) or time.monotonic() - last > 0.3:
            last = time.monotonic()
            status = store.write_status(
                folder,
                replace(
                    status,
                    stage=progress.stage,
                    fraction=progress.fraction,
                    message=progress.message,
                    eta_seconds=progress.eta_seconds,
                ),
            )

    try:
        with _logged(folder):
            make_room(folder)
            result = work(report)
        store.write_json(folder / "result.json", result)
        _end(folder, replace(status, fraction=1.0), "done", "done")
    except BaseException as error:
        with contextlib.suppress(RunError):  # its folder was deleted
            if store.recorded_status(folder).state != "done":  # else a cancel came too late
                store.discard_results(folder)
                stopped = isinstance(error, (JobCancelled, KeyboardInterrupt))
                _end(folder, status, "cancelled" if stopped else "failed", reason(error))
        raise
    with contextlib.suppress(PGBError, OSError):  # the next run will be told
        make_room(folder)
    return result


def make_room(folder: Path, needed: int = 0) -> None:
    """Hold the quota, where `folder` is of a run of the server that is about to write `needed` bytes.

    Raises:
        RunError: it cannot be held.
    """
    if folder.resolve().parent == get_settings().runs_dir:
        quota.make_room(folder.parent, folder.name, needed)


def _end(folder: Path, status: store.Status, state: store.State, message: str) -> None:
    ended = replace(status, state=state, message=message, finished=time.time(), eta_seconds=None)
    with contextlib.suppress(OSError):  # a full disk: then the missing process tells that the run failed
        store.write_last_status(folder, ended)


@contextlib.contextmanager
def _logged(folder: Path) -> Iterator[None]:
    """Inside, what this package logs goes to the run's log.txt, and so does the traceback of an unexpected error."""
    handler = logging.FileHandler(store.log_file(folder), encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    package = logging.getLogger("pgb_core")
    level = package.level
    package.addHandler(handler)
    package.setLevel(logging.INFO)
    try:
        yield
    except Exception as error:
        if explain(error) is None:
            log.exception("The run ended with an unexpected error.")
        raise
    finally:
        package.removeHandler(handler)
        package.setLevel(level)
        handler.close()


class Clock:
    """Seconds spent in each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._started = time.perf_counter()

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started
        log.info("%s took %.1f s", name, self.seconds[name])

    def total(self) -> dict[str, float]:
        return {**self.seconds, "total": time.perf_counter() - self._started}

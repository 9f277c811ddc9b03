"""The worker: a Huey consumer that supervises runs, each in a process of its own.

A worker may be killed at any time: its runs go on, and the next worker of the machine takes them over. Every few
seconds it compares folders and queue, so that a message that was lost (the queue's file deleted, Redis killed, a worker
that died with it in its hand) is sent again.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
import signal
import time
from collections import deque
from pathlib import Path
from typing import Any, NoReturn

from huey.consumer import Consumer, ConsumerStopped, Worker

from pgb_core import embedded, ending, store, supervisor, tickets
from pgb_core.commands import command_of
from pgb_core.embedded import queue_dir, turnstile
from pgb_core.errors import RunError
from pgb_core.queues import UNREACHABLE, Queue
from pgb_core.settings import get_settings
from pgb_core.status import LOST_SECONDS
from pgb_core.supervisor import CommandBuilder

log = logging.getLogger(__name__)

_TIDY_SECONDS = 3.0
_POLL_SECONDS = 0.5
_SCORING_SECONDS = 24 * 3600.0
"""How long the folder of such a job that has ended is kept: what it made is elsewhere."""


def serve(
    runs_dir: Path,
    device: str = "auto",
    jobs: int | None = None,
    lock: int | None = None,
    command: CommandBuilder = command_of,
) -> int:
    """Supervise the runs that wait in `runs_dir`, `jobs` at a time, until a signal; returns how many there were.

    SIGINT lets running ones come to their end first; SIGTERM, or a second SIGINT, leaves them to the next worker.

    Args:
        device: where to compute a run that leaves it open.
        jobs: by default what the settings say.
        lock: as `embedded.hold` returned it to the app that started this worker, which then ends after the last app.

    Raises:
        RunError: without Redis, another worker serves the folder already.
        OSError: its files cannot be written.
    """
    if lock is None:  # else the folder was there a moment ago, and is not made again when it has gone since
        queue_dir(runs_dir).mkdir(parents=True, exist_ok=True)
    own = lock if lock is not None or get_settings().queue else _hold(runs_dir)
    if own is not None:
        embedded.introduce(own, embedded=lock is not None)
    served = []

    def work(run_id: str) -> None:
        served.append(supervisor.supervise(runs_dir / run_id, device, command))

    with turnstile(runs_dir):
        queue = Queue(runs_dir, work)
    _Consumer(queue, runs_dir, jobs or get_settings().max_running_jobs, lock).run()
    return sum(served)


def _hold(runs_dir: Path) -> int:
    lock = embedded.hold(runs_dir)
    if lock is None:
        raise RunError(f"A worker serves {runs_dir} already; set PGB_QUEUE to a Redis to have more than one.")
    return lock


class _Worker(Worker):
    """A thread of the consumer: it takes over runs that another worker left, then what the queue has."""

    orphans: deque[Path]

    def loop(self, now: Any = None) -> None:
        try:
            run_dir = self.orphans.popleft()
        except IndexError:
            super().loop(now)
            return
        try:
            supervisor.adopt(run_dir)
        except (RunError, OSError):
            log.exception("%s cannot be taken over now.", run_dir.name)


class _Consumer(Consumer):
    """A consumer that keeps folders and queue in step; `lock` as for `serve`."""

    worker_class = _Worker

    def __init__(self, queue: Queue, runs_dir: Path, jobs: int, lock: int | None) -> None:
        self._queue, self._runs_dir, self._lock = queue, runs_dir, lock
        self._tidied = self._forgotten = -math.inf
        self._missing: list[str] = []
        """Runs that waited at the last look, while the queue did not know them."""
        self._sound: dict[Path, float] = {}
        """When the status files that can be read were written."""
        self._orphans = deque(supervisor.orphans(runs_dir))  # before anything is taken from the queue
        super().__init__(queue.huey, jobs, periodic=False, max_delay=_POLL_SECONDS, scheduler_interval=60)

    def _create_worker(self) -> _Worker:
        worker: _Worker = super()._create_worker()
        worker.orphans = self._orphans
        return worker

    def start(self) -> None:
        super().start()
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # Huey would start a command line anew that is not ours

    def loop(self, health_check_ts: Any = None) -> Any:
        if time.monotonic() - self._tidied > _TIDY_SECONDS:
            try:
                self._tidy()
            except (*UNREACHABLE, RunError) as error:
                log.warning("Folders and queue cannot be compared now: %s", error)
            self._tidied = time.monotonic()
        return super().loop(health_check_ts)

    def _tidy(self) -> None:
        """Close what has died, take over what is left alone, send again what was lost; end when nobody needs this."""
        if not queue_dir(self._runs_dir).is_dir():
            self._end("The runs folder is gone.")
        with turnstile(self._runs_dir):
            self._close_ended()
            self._orphans.extend(path for path in supervisor.orphans(self._runs_dir) if path not in self._orphans)
            self._queue.mend()
            work = self._refill() or self._orphans or self._supervises()
            if self._lock is not None and not work and embedded.deserted(self._runs_dir):
                os.close(self._lock)  # within the turnstile: who submits next starts another worker
                self._end("There is no run and no app left.")
        if time.monotonic() - self._forgotten > _SCORING_SECONDS / 24:
            forget_scorings(self._runs_dir)
            self._forgotten = time.monotonic()

    def _close_ended(self) -> None:
        """Write down the end of runs whose process is gone, and mend the status of those that lost it."""
        for path in store.list_abandoned(self._runs_dir):
            with contextlib.suppress(OSError, RunError):  # tried again
                ended = store.read_status(path)
                ending.close(path, ended.state, ended.message)
        for path in store.folders(self._runs_dir):
            with contextlib.suppress(OSError, RunError):  # deleted meanwhile, or not a run yet
                written = (path / "status.json").stat().st_mtime
                if self._sound.get(path) != written and time.time() - written > LOST_SECONDS:
                    ending.mend(path)
                    self._sound[path] = written

    def _refill(self) -> bool:
        """Put the runs that wait in the queue if it has lost them; whether there are any.

        What it does not know at one look may just be on its way through a worker's hands.
        """
        waiting = [path.name for path, status in store.list_active(self._runs_dir) if status.state == "queued"]
        known = self._queue.waiting() if waiting else set()
        missing = [run_id for run_id in waiting if run_id not in known]
        for run_id in missing:
            if run_id in self._missing:
                log.info("%s waits, but the queue has lost it; it is put there again.", run_id)
                self._queue.put(run_id)
        self._missing = missing
        return bool(waiting)

    def _supervises(self) -> bool:
        found = (tickets.read(path) for path, _ in store.list_active(self._runs_dir))
        return any(ticket is not None and ticket.supervised for ticket in found)

    def _end(self, why: str) -> NoReturn:
        log.info("%s The worker ends.", why)
        self.stop(graceful=True)
        raise ConsumerStopped


def forget_scorings(runs_dir: Path) -> None:
    """Delete the folders of scorings, fine-tunings and help with sweeps that ended long ago."""
    jobs: tuple[store.Job, ...] = ("score", "finetune", "part")
    for run in (run for job in jobs for run in store.list_own(runs_dir, job)):
        if not run.status.active and time.time() - run.status.updated > _SCORING_SECONDS:
            shutil.rmtree(run.path, ignore_errors=True)

"""One run, seen from the worker that takes it: its process is started, watched, and ended where it must be.

The process leads a group of its own, so that whatever becomes of it (a crash, no memory, a hard cancel) the worker
lives on, and whatever becomes of the worker, the run goes on: the next worker of the machine takes it over.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import psutil

from pgb_core import ending, store, tickets
from pgb_core.commands import child_environment, command_of
from pgb_core.embedded import turnstile
from pgb_core.errors import RunError, explain, reason
from pgb_core.settings import get_settings
from pgb_core.status import here, living

log = logging.getLogger(__name__)

CommandBuilder = Callable[[Path, str], Sequence[str]]
"""Makes the command line of a run's process from its folder and the device of the worker."""
_WATCH_SECONDS = 0.1
_NICENESS = 10
"""Of the runs: whoever looks at the pages meanwhile comes first."""
_LEAVE_SECONDS = 30.0
"""Time that a process gets to leave once its run has ended."""


def supervise(run_dir: Path, device: str = "auto", command: CommandBuilder = command_of) -> bool:
    """Run what waits in `run_dir` and return True when it has ended; False where nothing waits (any more)."""
    started = _start(run_dir, device, command)
    if started is not None:
        _watch(run_dir, *started)
    return started is not None


def orphans(runs_dir: Path) -> list[Path]:
    """Folders of runs whose process lives on this machine, while the worker that started it does not."""
    return list(_orphaned(runs_dir))


def adopt(run_dir: Path) -> None:
    """Watch a run that another worker started, until it has ended; do nothing where it is not an orphan (any more)."""
    with turnstile(run_dir.parent):
        orphan = _orphaned(run_dir.parent).get(run_dir)
        if orphan is not None:
            tickets.take(run_dir)
    if orphan is not None:
        log.info("%s is taken over.", run_dir.name)
        _watch(run_dir, *orphan)


def _orphaned(runs_dir: Path) -> dict[Path, tuple[psutil.Process, store.Status]]:
    found = {}
    for path, status in store.list_active(runs_dir):
        process, ticket = store.find_process(status), tickets.read(path)
        if process is not None and ticket is not None and not ticket.supervised:
            found[path] = process, status
    return found


def _start(run_dir: Path, device: str, command: CommandBuilder) -> tuple[psutil.Popen, store.Status] | None:
    """Process and status of the run that waits in `run_dir`; None where none waits, or it cannot be started."""
    with turnstile(run_dir.parent):
        try:
            status = store.recorded_status(run_dir)
        except RunError as error:
            log.warning("%s is not run: %s", run_dir.name, error)
            return None
        if status.state != "queued":  # a message that came twice, or late
            return None
        tickets.take(run_dir)
        starting = replace(status, state="running", message="", started=time.time(), host=here())
        store.write_status(run_dir, starting)  # from here on the status is the run's own, until it has ended
    try:
        process = _spawn(command(run_dir, device), store.log_file(run_dir))
    except Exception as error:  # whatever a spec may hold: the worker has other runs
        log.warning("%s cannot be started: %s", run_dir.name, reason(error), exc_info=explain(error) is None)
        with contextlib.suppress(RunError, OSError):
            ending.close(run_dir, "failed", f"The run cannot be started: {reason(error)}")
        tickets.leave(run_dir)
        return None
    log.info("%s is run by process %d.", run_dir.name, process.pid)
    return process, starting


def _spawn(command: Sequence[str], log_file: Path) -> psutil.Popen:
    with log_file.open("ab") as output:
        process = psutil.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # neither a closed terminal nor the end of the worker reaches it
            env=child_environment(),
        )
    with contextlib.suppress(psutil.NoSuchProcess):
        process.nice(_NICENESS)
    return process


def _watch(run_dir: Path, process: psutil.Process, status: store.Status) -> None:
    """Return when `process` has ended, by itself or because it had to, and the status of its run says so."""
    limits, why = _Limits(run_dir, status), None
    try:
        while not _ended(process) and (why := limits.exceeded()) is None:
            time.sleep(_WATCH_SECONDS)
        if why is not None:
            log.warning("%s is killed. %s", run_dir.name, why)
            ending.kill(process)
        with contextlib.suppress(ProcessLookupError):  # whatever it started itself
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait() if isinstance(process, psutil.Popen) else None
        with contextlib.suppress(RunError, OSError):  # the folder is gone, or the disk full: nothing can be written
            _conclude(run_dir, limits, why or _last_words(code))
    finally:
        if not limits.resubmitted():
            tickets.leave(run_dir)


def _conclude(run_dir: Path, limits: _Limits, why: str) -> None:
    ending.mend(run_dir)
    if limits.resubmitted():
        return
    if store.cancel_requested(run_dir):
        ending.close(run_dir, "cancelled", "Cancelled.")
    else:
        ending.close(run_dir, "failed", why)
    log.info("%s is %s.", run_dir.name, store.recorded_status(run_dir).state)


class _Limits:
    """What a run may not exceed: the time to unwind once it is cancelled or has ended, its hours, and its folder."""

    def __init__(self, run_dir: Path, status: store.Status) -> None:
        self._run_dir, self._settings = run_dir, get_settings()
        self._first = self._last = status
        self._unwinding: float | None = None

    def resubmitted(self) -> bool:
        """Whether what is in the folder by now is another attempt, as of a sweep that is resumed."""
        with contextlib.suppress(RunError):  # damaged: the run's next report replaces it
            self._last = store.recorded_status(self._run_dir)
        return self._last.created != self._first.created

    def exceeded(self) -> str | None:
        """Why the run must be killed now; None while it may go on."""
        if not self._run_dir.is_dir():
            return "Its folder was deleted while it ran."
        ended = self.resubmitted() or not self._last.active
        cancelled = store.cancel_requested(self._run_dir)
        if cancelled or ended:
            self._unwinding = self._unwinding or time.monotonic()
            patience = self._settings.cancel_grace_seconds if cancelled else _LEAVE_SECONDS
            if time.monotonic() - self._unwinding > patience:
                return "It did not stop in time."
        hours = self._settings.max_run_hours
        if time.time() - (self._first.started or self._first.created) > 3600 * hours:
            return f"It took longer than {hours:g} hours (PGB_MAX_RUN_HOURS); ask for less, or raise the limit."
        return None


def _ended(process: psutil.Process) -> bool:
    if isinstance(process, psutil.Popen):
        return process.poll() is not None  # a child: it has to be waited for
    return living(process.pid, process.create_time()) is None


def _last_words(code: int | None) -> str:
    """What is said of a run whose process has not said anything itself; None is an unknown exit code."""
    if code == -signal.SIGKILL:
        return (
            "The run's process was killed. If nobody did that, the machine had no memory left: take a smaller "
            "checkpoint, shorter sequences or fewer calibration samples."
        )
    how = "" if code is None else f" ({signal.Signals(-code).name})" if code < 0 else f" (exit code {code})"
    return f"The run's process ended without a result{how}; see its log."

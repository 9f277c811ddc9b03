"""How a run ends before its time: asked to by a note in its folder, by a signal, by an error, or killed."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType

import psutil

from pgb_core import store, tickets
from pgb_core.errors import JobCancelled, RunError, reason
from pgb_core.status import BEAT_SECONDS

_WATCH_SECONDS = 0.2


@contextlib.contextmanager
def cancellable(run_dir: Path) -> Iterator[None]:
    """Inside, a cancel of the run in `run_dir`, SIGTERM and Ctrl-C raise JobCancelled. Only for the main thread.

    Only the first of them raises: what follows must not disturb the unwinding. Meanwhile the run says that it lives.
    """
    ended = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        for each in previous:
            signal.signal(each, signal.SIG_IGN)
        raise JobCancelled("The run was cancelled.")

    previous = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    for each in previous:
        signal.signal(each, stop)
    watcher = threading.Thread(target=_heed, args=(run_dir, ended), daemon=True, name="watches for a cancel")
    watcher.start()
    try:
        yield
    finally:
        for each in previous:
            signal.signal(each, signal.SIG_IGN)
        ended.set()
        watcher.join()
        for each, handler in previous.items():
            signal.signal(each, handler)


def _heed(run_dir: Path, ended: threading.Event) -> None:
    """Until it has `ended`, wake the main thread when the run is to stop, and say that it lives."""
    main, said = threading.main_thread().ident, time.monotonic()
    while not ended.wait(_WATCH_SECONDS):
        with contextlib.suppress(OSError):  # a network folder that is away for a moment
            if store.cancel_requested(run_dir):
                if main is not None:
                    signal.pthread_kill(main, signal.SIGTERM)  # to that thread: it may be asleep
                return
            if time.monotonic() - said > BEAT_SECONDS:
                said = time.monotonic()
                store.beat(run_dir)


def settle(run_dir: Path, error: BaseException) -> None:
    """Record how the run in `run_dir`, if it is this process and has not done so itself, came to its end.

    One that a worker has just started has no process yet: it is this one, too.
    """
    with contextlib.suppress(RunError, OSError):  # a full disk: then the missing process tells that the run failed
        status = store.recorded_status(run_dir)
        if status.pid is None or store.mine(status):
            close(run_dir, "cancelled" if isinstance(error, JobCancelled) else "failed", reason(error))


def close(run_dir: Path, state: store.State, message: str) -> None:
    """Record that the run in `run_dir` has ended, unless it says so already; what it left half-written goes.

    Raises:
        RunError: the folder has gone, or its status is damaged.
        OSError: it cannot be written to.
    """
    status = store.recorded_status(run_dir)
    if status.active:
        store.discard_results(run_dir)
        ended = replace(status, state=state, message=message, finished=time.time(), eta_seconds=None)
        store.write_last_status(run_dir, ended)


def mend(run_dir: Path) -> None:
    """Write a status anew that was damaged: the run in `run_dir`, which has no process any more, is done or failed.

    What can be read, as a status of another version, is let be.

    Raises:
        RunError: the folder has gone.
        OSError: it cannot be written to.
    """
    try:
        store.recorded_status(run_dir)
        return
    except RunError:
        if not (run_dir / "status.json").exists():
            raise
    with contextlib.suppress(RunError):
        store.read_json(run_dir / "status.json")
        return
    made = (run_dir / "status.json").stat().st_mtime
    if (run_dir / "model").is_dir() and (run_dir / "result.json").exists():
        found = store.Status("done", fraction=1.0, message="done", created=made, finished=made)
    else:
        store.discard_results(run_dir)
        found = store.Status("failed", message="Its status was damaged; start it again.", created=made, finished=made)
    ticket = tickets.read(run_dir)
    store.write_status(run_dir, found if ticket is None else replace(found, job=ticket.job))


def kill(process: psutil.Process) -> None:
    """Kill `process`, with its children where it leads a group of its own, and wait until it is gone."""
    with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
        if os.getpgid(process.pid) == process.pid:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        for _ in range(100):
            if process.status() == psutil.STATUS_ZOMBIE:
                return
            time.sleep(0.05)

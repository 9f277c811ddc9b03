"""Runs in the background: submitted to a queue, computed by a worker, watched and cancelled through their folders.

The process that submits a run may end or be restarted: everything that anybody has to know is in the run folder, where
any process of any machine that has it finds progress (`store.read_status`), result (`store.read_run`) and all runs that
wait or compute (`store.list_active`). A run is cancelled by a note in its folder, which the run itself looks for; the
worker that supervises it kills it when it has not stopped in time. Limits are held here, not by the pages.
"""

from __future__ import annotations

import contextlib
import logging
import math
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pgb_core import demo_mode, embedded, ending, store, tickets
from pgb_core.checkpoints import is_name
from pgb_core.embedded import queue_dir, turnstile
from pgb_core.errors import JobCancelled, JobRejected, RunError, explain
from pgb_core.finetune_spec import FinetuneSpec
from pgb_core.settings import Settings, get_settings
from pgb_core.shards import Shard
from pgb_core.spec import PruneSpec
from pgb_core.status import Job
from pgb_core.sweep_spec import Sweep, SweepSpec, write_sweep

log = logging.getLogger(__name__)

_CLOSING_SECONDS = 3.0
"""Time that the worker of another machine gets, beyond the run's own, to say that a run has ended."""
_LOOK_SECONDS = 0.05


def submit(spec: PruneSpec, job: Job = "prune", *, session: str | None = None) -> str:
    """Let a worker prune, or only score, what `spec` says; returns the id of the run, a folder of `settings.runs_dir`.

    Args:
        session: a secret of whoever asks, by which the limit of a session is kept and `cancel` knows the owner.

    Raises:
        JobRejected: a limit is reached, or the run's folder cannot be made.
    """

    def prepare(run_dir: Path) -> None:
        store.write_json(run_dir / "spec.json", spec.to_dict())

    return _submit(prepare, job, session)


def submit_sweep(spec: SweepSpec, *, session: str | None = None) -> str:
    """As `submit`, of a sweep, whose folder is beside those of its points."""

    def prepare(folder: Path) -> None:
        write_sweep(folder, spec, folder.parent)

    sweep_id = _submit(prepare, "sweep", session)
    _submit_parts(get_settings().runs_dir / sweep_id, spec, session)
    return sweep_id


def _submit_parts(folder: Path, spec: SweepSpec, session: str | None) -> None:
    """Let other workers that are free help with the sweep in `folder`."""
    workers = min(get_settings().sweep_workers, spec.size)
    for number in range(2 + len(_parts_of(folder)), workers + 1):
        values = {"sweep": folder.name, "shard": str(Shard(number, workers))}

        def prepare(run_dir: Path, values: dict[str, str] = values) -> None:
            store.write_json(run_dir / "spec.json", values)

        with contextlib.suppress(JobRejected):  # then it is made by fewer
            _submit(prepare, "part", session)


def _parts_of(run_dir: Path) -> list[Path]:
    """The active runs that help with the sweep in `run_dir`."""
    found = []
    for path, status in store.list_active(run_dir.parent):
        if status.job == "part":
            with contextlib.suppress(RunError, KeyError):  # deleted meanwhile
                if store.read_json(path / "spec.json")["sweep"] == run_dir.name:
                    found.append(path)
    return found


def submit_finetune(spec: FinetuneSpec, name: str, *, session: str | None = None) -> str:
    """As `submit`, of a fine-tuning; the checkpoint that comes out is folder `name` of the models.

    Raises:
        JobRejected: that is no name, or one that is taken; or as `submit`.
    """
    if not is_name(name) or name == "demo":
        raise JobRejected("A checkpoint's name has letters, digits, dots, dashes and underscores; choose another one.")
    if (get_settings().models_dir / name).exists():
        raise JobRejected(f"There is a checkpoint {name!r} already; choose another name.")

    def prepare(run_dir: Path) -> None:
        store.write_json(run_dir / "spec.json", {**spec.to_dict(), "name": name})

    return _submit(prepare, "finetune", session)


def resume_sweep(sweep: Sweep, *, session: str | None = None) -> None:
    """Start a sweep that has ended again, in its own folder: points that are not done are tried once more.

    Raises:
        JobRejected: it is still active; or as `submit`.
    """

    def prepare(folder: Path) -> None:
        if store.read_status(folder).active:
            raise JobRejected("This sweep is still running.")
        store.withdraw_cancel(folder)

    _submit(prepare, "sweep", session, sweep.path)
    _submit_parts(sweep.path, sweep.spec, session)


def _submit(prepare: Callable[[Path], object], job: Job, session: str | None, existing: Path | None = None) -> str:
    """Let a worker do `job` in a new folder, or in one that exists, once `prepare` has written what; its name."""
    demo_mode.refuse()
    settings = get_settings()
    runs_dir, owner = settings.runs_dir, None if session is None else tickets.digest(session)
    try:
        queue_dir(runs_dir).mkdir(parents=True, exist_ok=True)
        embedded.attend(runs_dir)
        with turnstile(runs_dir):
            if job != "part":  # which is let in with its sweep
                _refuse_too_many(settings, owner)
            run_dir = existing or store.new_run(runs_dir)
            try:
                prepare(run_dir)
                tickets.issue(run_dir, owner, job)
                store.write_status(run_dir, store.Status(message="waiting", created=time.time(), job=job))
            except BaseException:
                if existing is None:
                    shutil.rmtree(run_dir, ignore_errors=True)
                raise
            _announce(runs_dir, run_dir.name)
    except OSError as error:
        raise JobRejected(f"The run cannot be started: {explain(error)}") from error
    return run_dir.name


def _announce(runs_dir: Path, run_id: str) -> None:
    from pgb_core.queues import UNREACHABLE, Queue  # Huey takes half a second to import

    try:
        with contextlib.closing(Queue(runs_dir)) as queue:
            queue.put(run_id)
    except UNREACHABLE as error:  # the workers find it by its folder
        log.warning("The queue cannot be reached (%s); run %s waits until it can.", type(error).__name__, run_id)


def _refuse_too_many(settings: Settings, owner: str | None) -> None:
    """Raise JobRejected where one run more would exceed a limit; each job counts once, a sweep as a whole."""
    active = _in_turn(settings.runs_dir)
    found = [tickets.read(path) for path, _ in active]
    own = [ticket for ticket in found if owner is not None and ticket is not None and ticket.owner == owner]
    if own and len(own) >= settings.max_session_runs > 0:
        runs = "a run" if len(own) == 1 else f"{len(own)} runs"
        raise JobRejected(
            f"You have {runs} waiting or running already, as many as one session may have "
            f"(PGB_MAX_SESSION_RUNS={settings.max_session_runs}); wait for its end, or cancel it."
        )
    waiting = sum(status.state == "queued" for _, status in active)
    free = max(0, settings.max_running_jobs - (len(active) - waiting))
    if waiting >= settings.max_queued_jobs + free:
        raise JobRejected(
            f"As many runs are waiting as may (PGB_MAX_QUEUED_JOBS={settings.max_queued_jobs}); try again when one has "
            "ended, or cancel one."
        )


def _in_turn(runs_dir: Path) -> list[tuple[Path, store.Status]]:
    """Everything that computes or waits, in the order of its submission; a sweep, its points and helpers are one."""
    found: dict[object, tuple[Path, store.Status]] = {}
    for path, status in store.list_active(runs_dir):
        key = path.name if status.pid is None else (status.host, status.pid)
        found.setdefault(key, (path, status))  # a sweep is listed before its point, and so is a helper
    return [entry for entry in found.values() if entry[1].job != "part"]


def queue_position(run_dir: Path) -> int:
    """How many active runs were submitted before the one in `run_dir`; 0 when it has ended."""
    names = [path.name for path, _ in _in_turn(run_dir.parent)]
    return names.index(run_dir.name) if run_dir.name in names else 0


# --- cancelling ----------------------------------------------------------------------------------------------------


def may_cancel(run_dir: Path, session: str | None = None) -> bool:
    """Whether `session` may cancel the run in `run_dir`, as the settings have it; a run of nobody's is anyone's.

    Raises:
        RunError: `run_dir` is not a run.
    """
    if get_settings().cancel == "anyone":
        return True
    owner = _owner(run_dir)
    return owner is None or (session is not None and tickets.digest(session) == owner)


def _owner(run_dir: Path) -> str | None:
    ticket = tickets.read(run_dir)
    if ticket is None and (maker := _maker_of(run_dir)) is not None:
        ticket = tickets.read(maker)
    return None if ticket is None else ticket.owner


def _maker_of(run_dir: Path) -> Path | None:
    """The sweep, or the helper with one, whose process makes the run in `run_dir` as a point; None of other runs."""
    own = store.read_status(run_dir)
    for path, other in store.list_active(run_dir.parent):
        same = own.pid is not None and (other.host, other.pid) == (own.host, own.pid)
        if same and path != run_dir and other.job in ("sweep", "part"):
            return path
    return None


def cancel(run_dir: Path, wait: bool = True, *, session: str | None = None) -> None:
    """Ask the run in `run_dir` to stop, which is killed when it has not after `settings.cancel_grace_seconds`.

    A run that has ended stays as it is. With `wait` this returns when the run has ended, if it is one of this machine;
    that of another one may take some seconds more, until its worker says so. Without, a thread sees to it. A point of a
    sweep is never killed: its process makes the others.

    Raises:
        JobRejected: `session` is not its owner, and only the owner may.
        RunError: `run_dir` is not a run.
    """
    asked = [path for path in (run_dir, *_parts_of(run_dir)) if path != run_dir or store.read_status(path).active]
    if not asked:
        return
    if not may_cancel(run_dir, session):
        raise JobRejected("Only the session that started this run may cancel it (PGB_CANCEL=owner).")
    for path in asked:
        with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
            store.request_cancel(path)
    if wait:
        _see_to_their_end(asked)
    else:
        threading.Thread(target=_see_to_their_end, args=(asked,), daemon=True).start()


def _see_to_their_end(run_dirs: list[Path]) -> None:
    for run_dir in run_dirs:
        _see_to_the_end(run_dir)


def _see_to_the_end(run_dir: Path) -> None:
    with contextlib.suppress(RunError, OSError):  # deleted meanwhile: then it had ended
        if store.recorded_status(run_dir).state == "queued":
            queue_dir(run_dir.parent).mkdir(exist_ok=True)
            with turnstile(run_dir.parent):  # so that no worker takes it at this moment
                if store.recorded_status(run_dir).state == "queued":
                    ending.close(run_dir, "cancelled", "Cancelled.")
        if _ends(run_dir, get_settings().cancel_grace_seconds):
            return
        process = store.find_process(store.recorded_status(run_dir))
        if _maker_of(run_dir) is None and process is not None:  # no worker is needed for one of this machine
            ending.kill(process)
            ending.close(run_dir, "cancelled", "Cancelled.")
        else:
            _ends(run_dir, _CLOSING_SECONDS)


def _ends(run_dir: Path, seconds: float) -> bool:
    """Whether the run in `run_dir` ends within `seconds`."""
    deadline = time.monotonic() + seconds
    while store.read_status(run_dir).active:
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_SECONDS)
    return True


def result(run_dir: Path, seconds: float = math.inf) -> dict[str, Any]:
    """The result of the run in `run_dir` once it is done; it is waited for.

    Raises:
        JobCancelled: it was cancelled.
        RunError: it failed; the message says why. Or it is not done within `seconds`.
    """
    if not _ends(run_dir, seconds):
        raise RunError(f"Run {run_dir.name} is not done within {seconds:g} s.")
    run = store.read_run(run_dir)
    if run.status.state == "cancelled":
        raise JobCancelled(f"Run {run.id} was cancelled.")
    if run.result is None:
        raise RunError(f"Run {run.id} failed. {run.status.message}")
    return run.result

"""Jobs in the background: a detached `python -m pgb_core prune` (`score`, `sweep`, `finetune`) and a folder for each.

The process that submits a run may end or be restarted: what it started goes on, because everything that anybody has to
know is in the run folder. Turns are taken by a rule that needs no server: a run computes when fewer than
`max_running_jobs` active runs were submitted before it. A run is cancelled by a note in its folder, which the run
itself looks for; whoever asked kills it when it has not stopped in time.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from types import FrameType

import psutil
from filelock import FileLock

from pgb_core import store
from pgb_core.checkpoints import is_name
from pgb_core.errors import JobCancelled, JobRejected, RunError, explain, reason
from pgb_core.finetune_spec import FinetuneSpec
from pgb_core.settings import get_settings
from pgb_core.spec import PruneSpec
from pgb_core.status import Job
from pgb_core.sweep_spec import AXES, Sweep, SweepSpec, write_sweep

_PACKAGE_PARENT = Path(__file__).resolve().parent.parent
_TURN_SECONDS = 0.25
_WATCH_SECONDS = 0.2
_LOCK_SECONDS = 20.0
_SCORING_SECONDS = 24 * 3600.0
"""How long the folder of a scoring or fine-tuning that has ended is kept: what it made is elsewhere."""
SCORE_FIELDS = (
    *("checkpoint", "task", "importance", "seed", "device", "train_file", "eval_file"),
    *("text_column", "pair_column", "label_column", "label_map"),
    *("calibration_samples", "max_length", "latency"),
)
"""Fields of a spec that decide what a scoring finds; `latency`: whether it measures the latency table as well."""

CommandBuilder = Callable[[PruneSpec, Path], Sequence[str]]
"""Makes the command line of a run's process from its spec and its folder."""


def prune_arguments(spec: PruneSpec) -> list[str]:
    """`spec` as arguments of `python -m pgb_core prune`.

    >>> prune_arguments(PruneSpec("demo", "bbc-news", 0.5))[:3]
    ['--checkpoint=demo', '--task=bbc-news', '--sparsity=0.5']
    """
    return _arguments(spec, [item.name for item in fields(spec)])


def _arguments(spec: PruneSpec | FinetuneSpec, names: Iterable[str]) -> list[str]:
    arguments = []
    for name in names:
        flag, value = name.replace("_", "-"), getattr(spec, name)
        if isinstance(value, bool):
            arguments.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, tuple):  # `pins`, `label_map`: one `--pin`, one `--label-map` for each
            arguments += [f"--{flag.removesuffix('s')}={entry}" for entry in value]
        elif value is not None:
            arguments.append(f"--{flag}={value}")
    return arguments


def sweep_arguments(spec: SweepSpec) -> list[str]:
    """`spec` as arguments of `python -m pgb_core sweep`.

    >>> sweep_arguments(SweepSpec(PruneSpec("demo", "bbc-news", 0.5), (0.5, 0.75)))[:2]
    ['--sparsities=0.5,0.75', '--methods=pgb']
    """
    names = ("sparsities", "methods", "recover_epochs", "seeds")
    lists = [f"--{name.replace('_', '-')}={','.join(map(str, getattr(spec, name)))}" for name in names]
    lists += [f"--checkpoint={name}" for name in spec.checkpoints] + [f"--task={name}" for name in spec.tasks]
    return lists + _arguments(spec.base, [item.name for item in fields(spec.base) if item.name not in AXES])


def prune_command(spec: PruneSpec, run_dir: Path) -> list[str]:
    """The command line of the process that runs `spec` in `run_dir` when its turn has come."""
    return [sys.executable, "-m", "pgb_core", "prune", *prune_arguments(spec), f"--out={run_dir}", "--queued"]


def score_command(spec: PruneSpec, run_dir: Path) -> list[str]:
    """The same of a scoring of what `spec` prunes."""
    arguments = _arguments(spec, SCORE_FIELDS)
    return [sys.executable, "-m", "pgb_core", "score", *arguments, f"--out={run_dir}", "--queued"]


def sweep_command(spec: SweepSpec, folder: Path) -> list[str]:
    """The command line of the process that runs `spec` in `folder` when its turn has come; points lie beside it."""
    return [sys.executable, "-m", "pgb_core", "sweep", *sweep_arguments(spec), f"--out={folder}", "--queued"]


def finetune_command(spec: FinetuneSpec, run_dir: Path, out: Path) -> list[str]:
    """The command line of the process that fine-tunes what `spec` says when its turn has come, into folder `out`."""
    arguments = _arguments(spec, [item.name for item in fields(spec)])
    command = [sys.executable, "-m", "pgb_core", "finetune", *arguments]
    return [*command, f"--out={out}", f"--run={run_dir}", "--queued"]


# --- the side that starts runs -------------------------------------------------------------------------------------


def submit(spec: PruneSpec, command: CommandBuilder = prune_command, job: Job = "prune") -> str:
    """Start `spec` in the background and return the id of its run, a folder of `settings.runs_dir`.

    A scoring is submitted with `score_command` as job `score`.

    Raises:
        JobRejected: too many runs wait already, or the run's folder or process cannot be made.
    """

    def prepare(run_dir: Path) -> Sequence[str]:
        store.write_json(run_dir / "spec.json", spec.to_dict())
        return command(spec, run_dir)

    return _submit(prepare, job)


def submit_sweep(spec: SweepSpec) -> str:
    """Start `spec` in the background and return the id of the sweep, a folder of `settings.runs_dir` like its points.

    Raises:
        JobRejected: too many runs wait already, or the sweep's folder or process cannot be made.
    """

    def prepare(folder: Path) -> Sequence[str]:
        write_sweep(folder, spec, folder.parent)
        return sweep_command(spec, folder)

    return _submit(prepare, "sweep")


def submit_finetune(spec: FinetuneSpec, name: str) -> str:
    """Start `spec` in the background and return the id of the job; the checkpoint is folder `name` of the models.

    Raises:
        JobRejected: that is no name, or one that is taken, too many runs wait already, or the job cannot be started.
    """
    models = get_settings().models_dir
    if not is_name(name) or name == "demo":
        raise JobRejected("A checkpoint's name has letters, digits, dots, dashes and underscores; choose another one.")
    if (models / name).exists():
        raise JobRejected(f"There is a checkpoint {name!r} already; choose another name.")

    def prepare(run_dir: Path) -> Sequence[str]:
        store.write_json(run_dir / "spec.json", {**spec.to_dict(), "name": name})
        return finetune_command(spec, run_dir, models / name)

    return _submit(prepare, "finetune")


def resume_sweep(sweep: Sweep) -> None:
    """Start a sweep that has ended again, in its own folder: points that are not done are tried once more.

    Raises:
        JobRejected: it is still active, too many runs wait already, or the process cannot be made.
    """
    if sweep.status().active:
        raise JobRejected("This sweep is still running.")

    def prepare(folder: Path) -> Sequence[str]:
        store.withdraw_cancel(folder)
        return sweep_command(sweep.spec, folder)

    _submit(prepare, "sweep", sweep.path)


def _submit(prepare: Callable[[Path], Sequence[str]], job: Job, existing: Path | None = None) -> str:
    """Start the command that `prepare` returns for a new folder, or for one that exists; the folder's name."""
    settings = get_settings()
    runs_dir = settings.runs_dir
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        with _turnstile(runs_dir):
            for abandoned in store.list_abandoned(runs_dir):
                ended = store.read_status(abandoned)
                _close(abandoned, ended.state, ended.message)
            _forget_scorings(runs_dir)
            if len(_in_turn(runs_dir)) >= settings.max_running_jobs + settings.max_queued_jobs:
                raise JobRejected(
                    f"{settings.max_queued_jobs} runs are waiting already; try again when one has ended, or cancel one."
                )
            run_dir = existing or store.new_run(runs_dir)
            try:
                process = _start(run_dir, prepare(run_dir), job)
            except BaseException:
                if existing is None:
                    shutil.rmtree(run_dir, ignore_errors=True)
                raise
    except OSError as error:
        raise JobRejected(f"The run cannot be started: {explain(error)}") from error
    # a child that nobody waits for stays as a zombie for as long as this process lives
    threading.Thread(target=process.wait, daemon=True, name=f"reaper of {run_dir.name}").start()
    return run_dir.name


def _forget_scorings(runs_dir: Path) -> None:
    for run in (*store.list_own(runs_dir, "score"), *store.list_own(runs_dir, "finetune")):
        if not run.status.active and time.time() - run.status.updated > _SCORING_SECONDS:
            shutil.rmtree(run.path, ignore_errors=True)


def _start(run_dir: Path, command: Sequence[str], job: Job) -> subprocess.Popen[bytes]:
    status = store.Status(message="starting", created=time.time(), job=job)
    store.write_status(run_dir, status)
    with store.log_file(run_dir).open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # neither a closed terminal nor the end of the server reaches it
            env=child_environment(),
        )
    store.write_status(run_dir, store.owned_by(status, process.pid))
    return process


def child_environment() -> dict[str, str]:
    """The environment of a process that is to find this package, wherever it is started, and to speak at once."""
    path = os.pathsep.join(filter(None, [str(_PACKAGE_PARENT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def _in_turn(runs_dir: Path) -> list[Path]:
    """The folders of everything that computes or waits, in the order of their turns; a sweep counts as one."""
    found: dict[int | str, Path] = {}
    for path, status in store.list_active(runs_dir):
        found.setdefault(path.name if status.pid is None else status.pid, path)  # a sweep is listed before its point
    return list(found.values())


def cancel(run_dir: Path, wait: bool = True) -> None:
    """Ask the run in `run_dir` to stop, and kill it when it has not after `settings.cancel_grace_seconds`.

    A run that has ended stays as it is. With `wait` the run has ended when this returns; without, a thread sees to it.

    Raises:
        RunError: `run_dir` is not a run.
    """
    grace = get_settings().cancel_grace_seconds
    if not store.read_status(run_dir).active:
        return
    store.request_cancel(run_dir)
    if wait:
        _see_to_the_end(run_dir, grace)
    else:
        threading.Thread(target=_see_to_the_end, args=(run_dir, grace), daemon=True).start()


def _see_to_the_end(run_dir: Path, grace: float) -> None:
    deadline = time.monotonic() + grace
    with contextlib.suppress(RunError):  # deleted meanwhile: then it had ended
        while store.read_status(run_dir).active and time.monotonic() < deadline:
            time.sleep(0.05)
        status = store.recorded_status(run_dir)
        if status.active and status.pid is None:  # just being started: it has its process when the lock is free
            with _turnstile(run_dir.parent):
                status = store.recorded_status(run_dir)
        process = store.find_process(status)
        if status.active and process is not None:
            _kill(process)
        _close(run_dir, "cancelled", "Cancelled.")


def _kill(process: psutil.Process) -> None:
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


def queue_position(run_dir: Path) -> int:
    """How many active runs were submitted before the one in `run_dir`; 0 when it has ended."""
    names = [path.name for path in _in_turn(run_dir.parent)]
    return names.index(run_dir.name) if run_dir.name in names else 0


# --- the side of the run itself ------------------------------------------------------------------------------------


def wait_for_turn(run_dir: Path) -> None:
    """Return when the run in `run_dir`, which is this process, may compute; its status says running then.

    Raises:
        JobCancelled: the run was cancelled while it waited (inside `cancellable`).
        RunError: the run's folder has gone.
    """
    limit = get_settings().max_running_jobs
    told = -1
    while True:
        with _turnstile(run_dir.parent):
            status = store.this_process(store.recorded_status(run_dir))
            before = queue_position(run_dir)
            if before < limit:
                started = replace(status, state="running", message="starting", started=time.time())
                store.write_status(run_dir, started)
                return
            if before != told:
                runs = "1 run" if before == 1 else f"{before} runs"
                store.write_status(run_dir, replace(status, message=f"waiting: {runs} before this one"))
                told = before
        time.sleep(_TURN_SECONDS)


@contextlib.contextmanager
def cancellable(run_dir: Path) -> Iterator[None]:
    """Inside, a cancel of the run in `run_dir`, SIGTERM and Ctrl-C raise JobCancelled. Only for the main thread.

    Only the first of them raises: what follows must not disturb the unwinding.
    """
    main = threading.main_thread().ident
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_WATCH_SECONDS):
            if store.cancel_requested(run_dir):
                if main is not None:
                    signal.pthread_kill(main, signal.SIGTERM)  # to that thread: it may be asleep
                return

    def stop(number: int, frame: FrameType | None) -> None:
        for each in previous:
            signal.signal(each, signal.SIG_IGN)
        raise JobCancelled("The run was cancelled.")

    previous = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    for each in previous:
        signal.signal(each, stop)
    watcher = threading.Thread(target=watch, daemon=True, name="watches for a cancel")
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


def settle(run_dir: Path, error: BaseException) -> None:
    """Record how the run in `run_dir`, if it is this process and has not done so itself, came to its end."""
    with contextlib.suppress(RunError, OSError):  # a full disk: then the missing process tells that the run failed
        if store.recorded_status(run_dir).pid == os.getpid():
            cancelled = isinstance(error, JobCancelled)
            _close(run_dir, "cancelled" if cancelled else "failed", reason(error))


def _close(run_dir: Path, state: store.State, message: str) -> None:
    status = store.recorded_status(run_dir)
    if status.active:
        store.discard_results(run_dir)
        store.write_status(
            run_dir, replace(status, state=state, message=message, finished=time.time(), eta_seconds=None)
        )


def _turnstile(runs_dir: Path) -> FileLock:
    """Held while runs are counted and one of them is let in, so that two processes never count at once."""
    return FileLock(runs_dir / ".queue.lock", timeout=_LOCK_SECONDS)

"""Run folders: the only module that knows what one looks like inside.

    spec.json  status.json  result.json  options.json  layout.json  layout.safetensors  importance.safetensors
    model/     log.txt      label.json   answers.safetensors   cancel   ticket.json

Everything is written atomically (a new file, then a rename), so a reader in another process never sees half a file,
and every change of a run moves its folder's time of change. Sample runs, which are shipped with the package, lie in
folders of the same shape beside this module, without a model and with their larger files compressed; they are only
read. Nothing here imports torch: the dashboard reads runs through this module.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pgb_core import tickets
from pgb_core.errors import RunError, explain
from pgb_core.files import read_json, write_json
from pgb_core.label import Label
from pgb_core.settings import get_settings
from pgb_core.status import FINISHED, Job, State, Status, alive, find_process, owned_by, this_process, why_gone

__all__ = [
    "FINISHED",
    "SAMPLES",
    "SCHEMA",
    "Job",
    "Run",
    "State",
    "Status",
    "beat",
    "cancel_requested",
    "claim",
    "delete_run",
    "discard_results",
    "find_process",
    "find_run",
    "folders",
    "is_id",
    "list_abandoned",
    "list_active",
    "list_own",
    "list_runs",
    "log_file",
    "new_model",
    "new_run",
    "owned_by",
    "read_json",
    "read_options",
    "read_run",
    "read_status",
    "recorded_status",
    "request_cancel",
    "run_at",
    "run_id",
    "this_process",
    "withdraw_cancel",
    "write_json",
    "write_label",
    "write_status",
]

SCHEMA = 1
SAMPLES = Path(__file__).parent / "samples"
"""Folder of the sample runs; `benchmarks/make_samples.py` writes it."""
_RUN_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{6}")
_CANCEL = "cancel"
_PARTIAL_MODEL = ".model"
_LABEL = "label.json"
_DELETED = ".deleted"
SETTLED_SECONDS = 2.0
"""Two changes within a tick of the clock leave one time of change: what changed just now is read anew."""
_RESULTS = (
    "result.json",
    "options.json",
    "layout.json",
    "layout.safetensors",
    "importance.safetensors",
    "answers.safetensors",
)
"""Files that only a run that came to its end has, beside its model."""


@dataclass(frozen=True)
class Run:
    """One run folder, read. `spec` is the resolved spec, `result` is there only when the run is done.

    Several readers may be given the same object: its dictionaries are not to be changed.
    """

    id: str
    path: Path
    spec: dict[str, Any]
    status: Status
    result: dict[str, Any] | None
    label: Label = Label()
    machine: str | None = None
    """Of a sample run, what it was measured on, in words; None of a run of this server."""

    @property
    def sample(self) -> bool:
        """Whether the run is shipped with the package: it has no model and is not to be changed."""
        return self.machine is not None

    @property
    def model_dir(self) -> Path:
        return self.path / "model"


# --- writing -------------------------------------------------------------------------------------------------------


def run_id(created: float, digits: str) -> str:
    """The id of a run that was created at `created`, told from others of that second by six hexadecimal `digits`."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.localtime(created))}-{digits}"


def new_run(runs_dir: Path) -> Path:
    """Create an empty run folder with a fresh id and return it."""
    runs_dir.mkdir(parents=True, exist_ok=True)
    while True:
        path = runs_dir / run_id(time.time(), secrets.token_hex(3))
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path


def claim(path: Path, job: Job = "prune") -> Status:
    """Make `path` the folder of a run of this process; what a run that died there left half-written is removed.

    Raises:
        RunError: it holds a finished run, a run of another process or files that are not a run's, or cannot be made.
    """
    created = time.time()
    try:
        path.mkdir(parents=True, exist_ok=True)
        used = any(path.iterdir())
    except OSError as error:
        raise RunError(f"{path} cannot be made or is not a folder; choose another --out.") from error
    if used and not (path / "status.json").exists():
        raise RunError(f"{path} holds files that are not a run's; choose a new or empty folder for --out.")
    if used:
        earlier = read_status(path)
        if earlier.state == "done":
            raise RunError(f"{path} already holds a finished run; choose another folder.")
        if earlier.active and earlier.pid not in (None, os.getpid()):
            raise RunError(f"Another process is writing a run into {path}; choose another folder.")
        if earlier.active:  # queued: it waits since then
            created = earlier.created
        discard_results(path)
    status = Status("running", "loading", created=created, started=time.time(), message="starting", job=job)
    return write_status(path, this_process(status))


def discard_results(path: Path) -> None:
    """Remove what a run that did not come to its end wrote into its folder; spec, status and log stay."""
    for name in ("model", _PARTIAL_MODEL):
        shutil.rmtree(path / name, ignore_errors=True)
    for name in _RESULTS:
        (path / name).unlink(missing_ok=True)


@contextlib.contextmanager
def new_model(path: Path) -> Iterator[Path]:
    """A folder to write the pruned checkpoint of run folder `path` into; it appears as `model` only when whole."""
    partial = path / _PARTIAL_MODEL
    yield partial
    partial.rename(path / "model")


def write_status(path: Path, status: Status) -> Status:
    """Write `status` into run folder `path`, stamped with the time; returns what was written."""
    stamped = replace(status, updated=time.time())
    write_json(path / "status.json", asdict(stamped))
    return stamped


def beat(path: Path) -> None:
    """Say that the process of run folder `path` lives, for those on other machines; a folder that is gone is let be."""
    with contextlib.suppress(FileNotFoundError):
        os.utime(path / "status.json")


def request_cancel(path: Path) -> None:
    """Leave the note that asks run folder `path` to stop; see `pgb_core.jobs` for who reads it."""
    (path / _CANCEL).touch()


def withdraw_cancel(path: Path) -> None:
    """Remove the note of an earlier run in the same folder; in a folder that is not a run's nothing is touched."""
    if (path / "status.json").exists():
        (path / _CANCEL).unlink(missing_ok=True)


def cancel_requested(path: Path) -> bool:
    """Whether run folder `path` has been asked to stop."""
    return (path / _CANCEL).exists()


def log_file(path: Path) -> Path:
    """Where the process of run folder `path` writes what it says."""
    return path / "log.txt"


# --- reading -------------------------------------------------------------------------------------------------------


def recorded_status(path: Path) -> Status:
    """Status of run folder `path` as it was last written, whether or not its process still lives.

    Raises:
        RunError: status.json is missing or damaged.
    """
    values = read_json(path / "status.json")
    try:
        return Status(**values)
    except TypeError as error:
        raise RunError(f"status.json of run {path.name} is of another version; delete the run.") from error


def read_status(path: Path) -> Status:
    """Status of run folder `path`; an active run whose process is gone is reported as failed or cancelled.

    Raises:
        RunError: status.json is missing or damaged.
    """
    status = recorded_status(path)
    if not status.active or _lives(path, status):
        return status
    status = recorded_status(path)  # the process may have written its last word after the first look, then ended
    if not status.active:
        return status
    if cancel_requested(path):
        return replace(status, state="cancelled", finished=status.updated, message="Cancelled.")
    return replace(status, state="failed", finished=status.updated, message=why_gone(status))


def _lives(path: Path, status: Status) -> bool:
    """Whether the process of an active run lives, or at least the worker that will say how it ended."""
    try:
        beat = (path / "status.json").stat().st_mtime
    except FileNotFoundError:
        beat = 0.0
    if alive(status, beat):
        return True
    ticket = tickets.read(path)
    return ticket is not None and ticket.supervised


def read_run(path: Path) -> Run:
    """The run in folder `path`.

    Raises:
        RunError: the folder is not a readable run.
    """
    status = read_status(path)
    result = read_json(path / "result.json") if status.state == "done" else None
    return Run(path.name, path, read_json(path / "spec.json"), status, result, _read_label(path))


def _read_label(path: Path) -> Label:
    with contextlib.suppress(RunError):  # most runs have none
        return Label.from_dict(read_json(path / _LABEL))
    return Label()


def run_at(path: Path) -> Run | None:
    """The run whose folder, or the folder of whose model, `path` is; None where it is neither.

    Raises:
        RunError: it is a run, and not a readable one.
    """
    folder = path.parent if path.name == "model" else path
    return read_run(folder) if all((folder / name).is_file() for name in ("status.json", "spec.json")) else None


def find_run(runs_dir: Path, run_id: str, job: Job = "prune") -> Run:
    """The run with id `run_id`, if it does `job`, of this server or a sample; what is no id never touches the disk.

    Raises:
        RunError: there is no such run.
    """
    for run in _samples():
        if (run.id, run.status.job) == (run_id, job) and not (runs_dir / run_id).is_dir():
            return run
    run = read_run(_own_folder(runs_dir, run_id))
    if run.status.job != job:
        raise _no_run(run_id)
    return run


def list_runs(runs_dir: Path) -> list[Run]:
    """All readable runs, newest first, then the samples unless a setting hides them; damaged folders are left out."""
    own = list_own(runs_dir)
    known = {run.id for run in own}
    return own + [run for run in _samples() if run.id not in known]


def list_own(runs_dir: Path, job: Job = "prune") -> list[Run]:
    """As `list_runs`, without the samples, of those that do `job`."""
    return [run for run in _newest_first(folders(runs_dir), _read_again) if run.status.job == job]


def _newest_first(paths: Iterable[Path], read: Callable[[Path], Run]) -> list[Run]:
    runs = []
    for path in paths:
        with contextlib.suppress(RunError, FileNotFoundError):  # damaged, or deleted meanwhile
            runs.append(read(path))
    return sorted(runs, key=lambda run: (run.status.created, run.id), reverse=True)


def _read_again(path: Path) -> Run:
    """As `read_run`; what a run that ended long ago left is kept in memory until its folder changes."""
    changed = path.stat().st_mtime_ns
    if time.time() - changed / 1e9 < SETTLED_SECONDS:
        return read_run(path)
    run = _read_settled(path, changed)
    return read_run(path) if run.status.active else run  # its process may have gone, which changes no file


@functools.lru_cache(maxsize=1000)
def _read_settled(path: Path, changed: int) -> Run:
    return read_run(path)


def _samples() -> list[Run]:
    """The runs that are shipped with the package, unless a setting hides them."""
    return _newest_first(folders(SAMPLES), _read_sample) if get_settings().show_samples else []


@functools.cache
def _read_sample(path: Path) -> Run:
    return replace(read_run(path), machine=read_json(path / "sample.json")["machine"])


def list_active(runs_dir: Path) -> list[tuple[Path, Status]]:
    """Folder and status of every run that is queued or running, in the order in which they were submitted."""
    runs = []
    for path in folders(runs_dir):
        with contextlib.suppress(RunError):
            runs.append((path, read_status(path)))
    return sorted((run for run in runs if run[1].active), key=lambda run: (run[1].created, run[0].name))


def list_abandoned(runs_dir: Path) -> list[Path]:
    """Folders of runs whose process is gone, but whose status does not say so yet."""
    found = []
    for path in folders(runs_dir):
        with contextlib.suppress(RunError):
            if recorded_status(path).active and not read_status(path).active:
                found.append(path)
    return found


def is_id(text: str) -> bool:
    """Whether `text` has the form of a run's id; only what has is ever used as the name of a folder."""
    return _RUN_ID.fullmatch(text) is not None


def folders(runs_dir: Path) -> list[Path]:
    """The folders below `runs_dir` that have the name of a run, readable or not, in no order."""
    return [path for path in runs_dir.iterdir() if _RUN_ID.fullmatch(path.name)] if runs_dir.is_dir() else []


def _own_folder(runs_dir: Path, run_id: str) -> Path:
    """Folder of a run of this server.

    Raises:
        RunError: there is no such run.
    """
    if not is_id(run_id) or not (runs_dir / run_id).is_dir():
        raise _no_run(run_id)
    return runs_dir / run_id


def _no_run(run_id: str) -> RunError:
    return RunError(f"There is no run {run_id[:40]!r} on this server.")


def read_options(run: Run) -> list[dict[str, Any]]:
    """Option table per sublayer: [{layer, kind, chosen, options: [{label, groups, units, cost, density, loss, ...}]}].

    Raises:
        RunError: options.json is damaged or missing, as it is where the method had no options to choose from.
    """
    options: list[dict[str, Any]] = read_json(run.path / "options.json")["sublayers"]
    return options


# --- keeping -------------------------------------------------------------------------------------------------------


def write_label(runs_dir: Path, run_id: str, label: Label) -> None:
    """Write a user's words on a run of this server.

    Raises:
        RunError: there is no such run, or it cannot be written to.
    """
    path = _own_folder(runs_dir, run_id)
    try:
        write_json(path / _LABEL, asdict(label))
    except OSError as error:
        raise RunError(f"The label of run {run_id} cannot be written: {explain(error)}") from error


def delete_run(runs_dir: Path, run_id: str) -> None:
    """Delete a finished or damaged run of this server; it disappears at once, its files one after another.

    Raises:
        RunError: there is no such run, it is still active, or its files cannot be removed.
    """
    path = _own_folder(runs_dir, run_id)
    try:
        active = read_status(path).active
    except RunError:  # damaged: there is nothing to cancel
        active = False
    if active:
        raise RunError(f"Run {run_id} is still active; cancel it first.")
    remains = runs_dir / f".{run_id}{_DELETED}"
    try:
        path.rename(remains)
        shutil.rmtree(remains)
    except OSError as error:
        raise RunError(f"Run {run_id} cannot be deleted: {explain(error)}") from error
    for other in runs_dir.glob(f".*{_DELETED}"):  # of deletions that were interrupted
        shutil.rmtree(other, ignore_errors=True)

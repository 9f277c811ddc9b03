"""Run folders: the only module that knows what one looks like inside.

    spec.json  status.json  result.json  options.json  layout.json  layout.safetensors  importance.safetensors
    model/     log.txt      cancel

Everything is written atomically (a new file, then a rename), so a reader in another process never sees half a file.
Nothing here imports torch: the dashboard reads runs through this module.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pgb_core.errors import RunError
from pgb_core.status import FINISHED, Job, State, Status, alive, find_process, owned_by, this_process

__all__ = [
    "FINISHED",
    "SCHEMA",
    "Job",
    "Run",
    "State",
    "Status",
    "cancel_requested",
    "claim",
    "delete_run",
    "discard_results",
    "find_process",
    "find_run",
    "list_abandoned",
    "list_active",
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
    "this_process",
    "withdraw_cancel",
    "write_json",
    "write_status",
]

SCHEMA = 1
_RUN_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{6}")
_CANCEL = "cancel"
_PARTIAL_MODEL = ".model"


@dataclass(frozen=True)
class Run:
    """One run folder, read. `spec` is the resolved spec, `result` is there only when the run is done."""

    id: str
    path: Path
    spec: dict[str, Any]
    status: Status
    result: dict[str, Any] | None

    @property
    def model_dir(self) -> Path:
        return self.path / "model"


# --- writing -------------------------------------------------------------------------------------------------------


def write_json(path: Path, value: object) -> None:
    """Replace `path` atomically by `value` as JSON (never NaN: readers in other languages refuse it)."""
    text = json.dumps(value, indent=1, allow_nan=False)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def new_run(runs_dir: Path) -> Path:
    """Create an empty run folder with a fresh id and return it."""
    runs_dir.mkdir(parents=True, exist_ok=True)
    while True:
        path = runs_dir / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
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
    for name in ("result.json", "options.json", "layout.json", "layout.safetensors", "importance.safetensors"):
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


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`.

    Raises:
        RunError: the file is missing or is not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path.name} of run {path.parent.name} is missing or damaged; delete the run.") from error
    if not isinstance(value, dict):
        raise RunError(f"{path.name} of run {path.parent.name} is damaged; delete the run.")
    return value


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
    if not status.active or alive(status):
        return status
    status = recorded_status(path)  # the process may have written its last word after the first look, then ended
    if not status.active:
        return status
    if cancel_requested(path):
        return replace(status, state="cancelled", finished=status.updated, message="Cancelled.")
    never = "The run's process never started; start the run again."
    message = never if status.pid is None else "The run's process ended without a result; see its log."
    return replace(status, state="failed", finished=status.updated, message=message)


def read_run(path: Path) -> Run:
    """The run in folder `path`.

    Raises:
        RunError: the folder is not a readable run.
    """
    status = read_status(path)
    result = read_json(path / "result.json") if status.state == "done" else None
    return Run(path.name, path, read_json(path / "spec.json"), status, result)


def run_at(path: Path) -> Run | None:
    """The run whose folder, or the folder of whose model, `path` is; None where it is neither.

    Raises:
        RunError: it is a run, and not a readable one.
    """
    folder = path.parent if path.name == "model" else path
    return read_run(folder) if all((folder / name).is_file() for name in ("status.json", "spec.json")) else None


def find_run(runs_dir: Path, run_id: str, job: Job = "prune") -> Run:
    """The run with id `run_id`, if it does `job`; an id that is not one never touches the disk.

    Raises:
        RunError: there is no such run.
    """
    if _RUN_ID.fullmatch(run_id) and (runs_dir / run_id).is_dir():
        run = read_run(runs_dir / run_id)
        if run.status.job == job:
            return run
    raise RunError(f"There is no run {run_id[:40]!r} on this server.")


def list_runs(runs_dir: Path, job: Job = "prune") -> list[Run]:
    """All readable runs that do `job`, newest first; damaged folders are left out."""
    runs = []
    for path in _run_folders(runs_dir):
        with contextlib.suppress(RunError):
            run = read_run(path)
            if run.status.job == job:
                runs.append(run)
    return sorted(runs, key=lambda run: (run.status.created, run.id), reverse=True)


def list_active(runs_dir: Path) -> list[tuple[Path, Status]]:
    """Folder and status of every run that is queued or running, in the order in which they were submitted."""
    runs = []
    for path in _run_folders(runs_dir):
        with contextlib.suppress(RunError):
            runs.append((path, read_status(path)))
    return sorted((run for run in runs if run[1].active), key=lambda run: (run[1].created, run[0].name))


def list_abandoned(runs_dir: Path) -> list[Path]:
    """Folders of runs whose process is gone, but whose status does not say so yet."""
    found = []
    for path in _run_folders(runs_dir):
        with contextlib.suppress(RunError):
            if recorded_status(path).active and not read_status(path).active:
                found.append(path)
    return found


def _run_folders(runs_dir: Path) -> list[Path]:
    return [path for path in runs_dir.iterdir() if _RUN_ID.fullmatch(path.name)] if runs_dir.is_dir() else []


def delete_run(runs_dir: Path, run_id: str) -> None:
    """Delete a finished run.

    Raises:
        RunError: there is no such run, or it is still active.
    """
    run = find_run(runs_dir, run_id)
    if run.status.active:
        raise RunError(f"Run {run_id} is still active; cancel it first.")
    shutil.rmtree(run.path)


def read_options(run: Run) -> list[dict[str, Any]]:
    """Option table per sublayer: [{layer, kind, chosen, options: [{label, groups, units, cost, density, loss, ...}]}].

    Raises:
        RunError: options.json is damaged or missing, as it is where the method had no options to choose from.
    """
    options: list[dict[str, Any]] = read_json(run.path / "options.json")["sublayers"]
    return options

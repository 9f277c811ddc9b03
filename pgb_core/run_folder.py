"""One run's folder: what lies in it, how it is written and read.

    spec.json  status.json  result.json  options.json  layout.json  layout.safetensors  importance.safetensors
    model/     log.txt      label.json   answers.safetensors   cancel   ticket.json

Everything is written atomically (a new file, then a rename), so a reader in another process never sees half a file,
and every change of a run moves its folder's time of change. `pgb_core.store` is about all runs of a server.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pgb_core import demo_mode, tickets
from pgb_core.errors import RunError, explain
from pgb_core.files import read_json, write_json
from pgb_core.label import Label
from pgb_core.status import Job, Status, alive, mine, this_process, why_gone

SCHEMA = 1
_CANCEL = "cancel"
_MODEL, _PARTIAL_MODEL = "model", ".model"
LENT = ".recovery"
"""A checkpoint that other processes of the run help to recover."""
_LABEL = "label.json"


_RESULTS = (
    "result.json",
    "options.json",
    "layout.json",
    "layout.safetensors",
    "importance.safetensors",
    "answers.safetensors",
)
"""Files that only a run that came to its end has, beside its model."""
LARGE = ("sublayers",)
"""Keys of a result that are most of it, and that say something of one run alone."""


@dataclass(frozen=True)
class Run:
    """One run folder, read. `spec` is the resolved spec, `result` is there only when the run is done.

    Several readers may be given the same object: its dictionaries are not to be changed. In a list of runs, results
    lack `LARGE`, and `bytes` is known.
    """

    id: str
    path: Path
    spec: dict[str, Any]
    status: Status
    result: dict[str, Any] | None
    label: Label = Label()
    machine: str | None = None
    """Of a sample run, what it was measured on, in words; None of a run of this server."""
    bytes: int | None = None
    """What a run that has ended takes of the disk, where that was found out with it."""

    @property
    def sample(self) -> bool:
        """Whether the run is shipped with the package: it has no model and is not to be changed."""
        return self.machine is not None

    @property
    def model_dir(self) -> Path:
        return self.path / _MODEL


# --- writing -------------------------------------------------------------------------------------------------------


def claim(path: Path, job: Job = "prune") -> Status:
    """Make `path` the folder of a run of this process; what a run that died there left half-written is removed.

    Raises:
        RunError: it holds a finished run, a run of another process or files that are not a run's, or cannot be made.
    """
    demo_mode.refuse()
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
        if earlier.active and earlier.pid is not None and not mine(earlier):
            raise RunError(f"Another process is writing a run into {path}; choose another folder.")
        if earlier.active:  # queued: it waits since then
            created = earlier.created
        discard_results(path)
    status = Status("running", "loading", created=created, started=time.time(), message="starting", job=job)
    return write_status(path, this_process(status))


def discard_results(path: Path) -> None:
    """Remove what a run that did not come to its end wrote into its folder; spec, status and log stay."""
    for name in (_MODEL, _PARTIAL_MODEL, LENT):
        shutil.rmtree(path / name, ignore_errors=True)
    for name in _RESULTS:
        (path / name).unlink(missing_ok=True)


@contextlib.contextmanager
def new_model(path: Path, name: str = _MODEL) -> Iterator[Path]:
    """A folder to write a pruned checkpoint of run folder `path` into; it appears as `name` only when whole."""
    partial = path / _PARTIAL_MODEL
    yield partial
    partial.rename(path / name)


def write_status(path: Path, status: Status) -> Status:
    """Write `status` into run folder `path`, stamped with the time; returns what was written."""
    stamped = replace(status, updated=time.time())
    write_json(path / "status.json", asdict(stamped))
    return stamped


def write_last_status(path: Path, status: Status) -> None:
    """As `write_status`, also where the disk has no room for a second file: then over the first.

    Raises:
        OSError: not even that can be written.
    """
    try:
        write_status(path, status)
    except OSError:
        text = json.dumps(asdict(replace(status, updated=time.time())), allow_nan=False)
        with (path / "status.json").open("r+", encoding="utf-8") as file:
            file.write(text)
            file.truncate()


def beat(path: Path) -> None:
    """Say that the process of run folder `path` lives, for those on other machines; a folder that is gone is let be."""
    with contextlib.suppress(OSError):  # or out of reach for a moment
        os.utime(path / "status.json")


def request_cancel(path: Path) -> None:
    """Leave the note that asks run folder `path` to stop; see `pgb_core.jobs` for who reads it.

    Raises:
        ReadOnlyError: this server only shows.
    """
    demo_mode.refuse()
    (path / _CANCEL).touch()


def withdraw_cancel(path: Path) -> None:
    """Remove the note of an earlier run in the same folder; in a folder that is not a run's nothing is touched.

    Raises:
        ReadOnlyError: this server only shows.
    """
    demo_mode.refuse()
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
    return with_status(path, read_status(path))


def with_status(path: Path, status: Status) -> Run:
    """As `read_run`, of a run whose status is read already."""
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


def read_options(run: Run) -> list[dict[str, Any]]:
    """Option table per sublayer: [{layer, kind, chosen, options: [{label, groups, units, cost, density, loss, ...}]}].

    Raises:
        RunError: options.json is damaged or missing, as it is where the method had no options to choose from.
    """
    options: list[dict[str, Any]] = read_json(run.path / "options.json")["sublayers"]
    return options


def write_words(path: Path, label: Label) -> None:
    """Write a user's words on the run in folder `path`.

    Raises:
        RunError: it cannot be written to.
    """
    demo_mode.refuse()
    try:
        write_json(path / _LABEL, asdict(label))
    except OSError as error:
        raise RunError(f"The label of run {path.name} cannot be written: {explain(error)}") from error

"""All runs of a server: made, found, listed, deleted. What one looks like inside is in `pgb_core.run_folder`.

Runs are folders below one folder, and any number of processes on any number of machines may read and write them.
Sample runs, which are shipped with the package, lie in folders of the same shape beside this module, without a model
and with their larger files compressed; they are only read. Nothing here imports torch: the dashboard reads runs
through this module.
"""

from __future__ import annotations

import functools
import secrets
import shutil
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from pgb_core import demo_mode, index
from pgb_core.errors import RunError, explain
from pgb_core.files import read_json, write_json
from pgb_core.index import folders
from pgb_core.label import Label
from pgb_core.run_folder import (
    SCHEMA,
    Run,
    beat,
    cancel_requested,
    claim,
    discard_results,
    log_file,
    new_model,
    read_options,
    read_run,
    read_status,
    recorded_status,
    request_cancel,
    run_at,
    withdraw_cancel,
    write_last_status,
    write_status,
    write_words,
)
from pgb_core.settings import get_settings
from pgb_core.status import FINISHED, Job, State, Status, find_process, mine, owned_by, this_process

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
    "mine",
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
    "write_last_status",
    "write_status",
]

SAMPLES = Path(__file__).parent / "samples"
"""Folder of the sample runs; `benchmarks/make_samples.py` writes it."""
_DELETED = ".deleted"


def run_id(created: float, digits: str) -> str:
    """The id of a run that was created at `created`, told from others of that second by six hexadecimal `digits`."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.localtime(created))}-{digits}"


def new_run(runs_dir: Path) -> Path:
    """Create an empty run folder with a fresh id and return it.

    Raises:
        ReadOnlyError: this server only shows.
    """
    demo_mode.refuse()
    runs_dir.mkdir(parents=True, exist_ok=True)
    while True:
        path = runs_dir / run_id(time.time(), secrets.token_hex(3))
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path


def is_id(text: str) -> bool:
    """Whether `text` has the form of a run's id; only what has is ever used as the name of a folder."""
    return index.RUN_ID.fullmatch(text) is not None


# --- finding and listing -------------------------------------------------------------------------------------------


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
    """All readable runs, newest first, then the samples unless a setting hides them; damaged folders are left out.

    Their results lack what says something of one run alone (`run_folder.LARGE`): `find_run` reads all of one.
    """
    own = list_own(runs_dir)
    known = {run.id for run in own}
    return own + [run for run in _samples() if run.id not in known]


def list_own(runs_dir: Path, job: Job = "prune") -> list[Run]:
    """As `list_runs`, without the samples, of those that do `job`."""
    return _newest_first(e.run for e in index.entries(runs_dir) if e.run is not None and e.status.job == job)


def _newest_first(runs: Iterable[Run]) -> list[Run]:
    return sorted(runs, key=lambda run: (run.status.created, run.id), reverse=True)


def _samples() -> list[Run]:
    """The runs that are shipped with the package, unless a setting hides them."""
    return _newest_first(map(_read_sample, folders(SAMPLES))) if get_settings().show_samples else []


@functools.cache
def _read_sample(path: Path) -> Run:
    return replace(read_run(path), machine=read_json(path / "sample.json")["machine"])


def list_active(runs_dir: Path) -> list[tuple[Path, Status]]:
    """Folder and status of every run that is queued or running, in the order in which they were submitted."""
    runs = [(entry.path, entry.status) for entry in index.entries(runs_dir) if entry.status.active]
    return sorted(runs, key=lambda run: (run[1].created, run[0].name))


def list_abandoned(runs_dir: Path) -> list[Path]:
    """Folders of runs whose process is gone, but whose status does not say so yet."""
    return [entry.path for entry in index.entries(runs_dir) if entry.abandoned]


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


# --- keeping -------------------------------------------------------------------------------------------------------


def write_label(runs_dir: Path, run_id: str, label: Label) -> None:
    """Write a user's words on a run of this server.

    Raises:
        RunError: there is no such run, or it cannot be written to.
    """
    write_words(_own_folder(runs_dir, run_id), label)


def delete_run(runs_dir: Path, run_id: str) -> None:
    """Delete a finished or damaged run of this server; it disappears at once, its files one after another.

    Raises:
        RunError: there is no such run, it is still active, or its files cannot be removed.
    """
    demo_mode.refuse()
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

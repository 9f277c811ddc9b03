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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from pgb_core.errors import RunError
from pgb_core.layout import IntArray, Kind, MatrixLayout, SublayerLayout
from pgb_core.status import FINISHED, State, Status, alive, find_process, owned_by, this_process
from pgb_core.weights import read_weights

__all__ = [
    "FINISHED",
    "SCHEMA",
    "MatrixView",
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
    "read_layouts",
    "read_matrix",
    "read_options",
    "read_run",
    "read_status",
    "recorded_status",
    "request_cancel",
    "this_process",
    "withdraw_cancel",
    "write_json",
    "write_layout",
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


def claim(path: Path) -> Status:
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
    status = Status("running", "loading", created=created, started=time.time(), message="starting")
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


def write_layout(
    path: Path,
    layouts: Sequence[tuple[int, SublayerLayout]],
    dense_tensors: Mapping[tuple[int, Kind, str], str],
    blocks: Mapping[tuple[int, Kind, str], Sequence[tuple[str, int, int]]],
    importance: Mapping[tuple[int, Kind, str], NDArray[np.float32]],
) -> None:
    """Write layout.json, layout.safetensors and importance.safetensors.

    Args:
        layouts: (layer, layout) in the order of the forward pass.
        dense_tensors: tensor name of each dense matrix in the checkpoint's model.safetensors.
        blocks: per matrix and group, (tensor name in the pruned model.safetensors, first row, last row + 1).
        importance: (rows, columns) per matrix.
    """
    indices: dict[str, NDArray[Any]] = {}
    scores: dict[str, NDArray[Any]] = {}
    sublayers: list[dict[str, Any]] = []
    for layer, layout in layouts:
        entries: list[dict[str, Any]] = []
        for matrix in layout.matrices():
            key = (layer, layout.shape.kind, matrix.name)
            prefix = _prefix(*key)
            score = importance[key]
            total = float(score.sum(dtype=np.float64)) or 1.0
            # half precision holds five decades: enough to look at, once the largest is 1
            scores[prefix] = (score / (float(score.max()) or 1.0)).astype(np.float16)
            shares: list[float] = []
            for g, (rows, columns) in enumerate(zip(matrix.row_groups, matrix.column_groups, strict=True)):
                indices[f"{prefix}.rows.{g}"] = rows.astype(np.int32)
                indices[f"{prefix}.columns.{g}"] = columns.astype(np.int32)
                shares.append(float(score[np.ix_(rows, columns)].sum(dtype=np.float64)) / total)
            entries.append(
                {
                    "name": matrix.name,
                    "rows": matrix.rows,
                    "columns": matrix.columns,
                    "dense_tensor": dense_tensors[key],
                    "blocks": [
                        {"tensor": name, "row_start": start, "row_stop": stop, "kept_importance": share}
                        for (name, start, stop), share in zip(blocks[key], shares, strict=True)
                    ],
                }
            )
        sublayers.append({"layer": layer, "kind": layout.shape.kind, "dropped": layout.dropped, "matrices": entries})
    save_file(indices, path / "layout.safetensors")
    save_file(scores, path / "importance.safetensors")
    write_json(path / "layout.json", {"schema": SCHEMA, "sublayers": sublayers})


def _prefix(layer: int, kind: str, name: str) -> str:
    return f"{layer}.{kind}.{name}"


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


def find_run(runs_dir: Path, run_id: str) -> Run:
    """The run with id `run_id`; an id that is not one never touches the disk.

    Raises:
        RunError: there is no such run.
    """
    if not _RUN_ID.fullmatch(run_id) or not (runs_dir / run_id).is_dir():
        raise RunError(f"There is no run {run_id[:40]!r} on this server.")
    return read_run(runs_dir / run_id)


def list_runs(runs_dir: Path) -> list[Run]:
    """All readable runs, newest first; damaged folders are left out."""
    runs = []
    for path in _run_folders(runs_dir):
        with contextlib.suppress(RunError):
            runs.append(read_run(path))
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
    """Option table per sublayer: [{layer, kind, chosen, options: [{label, groups, units, cost, density, loss}]}]."""
    options: list[dict[str, Any]] = read_json(run.path / "options.json")["sublayers"]
    return options


@dataclass(frozen=True)
class MatrixView:
    """One matrix of a run, in the ORIGINAL order of rows and columns; float32 (rows, columns)."""

    layout: MatrixLayout
    pruned: NDArray[np.float32]
    """Kept weights after refit (and recovery); zero where a weight was removed."""
    importance: NDArray[np.float32]
    """Relative to the matrix's largest."""
    kept_importance: tuple[float, ...]
    """Share of the matrix's importance inside each group."""
    dense: NDArray[np.float32] | None
    """Weights of the checkpoint; None when its file is gone, or is another one than when the run began."""


def read_layouts(run: Run) -> dict[tuple[int, str, str], MatrixLayout]:
    """Layout of every matrix, by (layer, kind, matrix name)."""
    with _tensors(run.path / "layout.safetensors") as indices:
        return {
            (sublayer["layer"], sublayer["kind"], matrix["name"]): _matrix_layout(
                indices, _prefix(sublayer["layer"], sublayer["kind"], matrix["name"]), matrix
            )
            for sublayer in read_json(run.path / "layout.json")["sublayers"]
            for matrix in sublayer["matrices"]
        }


def read_matrix(run: Run, layer: int, kind: str, name: str) -> MatrixView:
    """One matrix of a finished run.

    Raises:
        RunError: the run has no such matrix, or its files are damaged.
    """
    for sublayer in read_json(run.path / "layout.json")["sublayers"]:
        matrices = {matrix["name"]: matrix for matrix in sublayer["matrices"]}
        if (sublayer["layer"], sublayer["kind"]) == (layer, kind) and name in matrices:
            return _read_matrix(run, _prefix(layer, kind, name), matrices[name])
    raise RunError(f"Run {run.id} has no matrix {name!r} in the {kind} of layer {layer + 1}.")


def _read_matrix(run: Run, prefix: str, entry: Mapping[str, Any]) -> MatrixView:
    with _tensors(run.path / "layout.safetensors") as indices:
        layout = _matrix_layout(indices, prefix, entry)
    pruned = np.zeros((layout.rows, layout.columns), dtype=np.float32)
    with _tensors(run.model_dir / "model.safetensors") as weights:
        for block, rows, columns in zip(entry["blocks"], layout.row_groups, layout.column_groups, strict=True):
            tensor = weights.get_slice(block["tensor"])[block["row_start"] : block["row_stop"]]
            pruned[np.ix_(rows, columns)] = tensor
    with _tensors(run.path / "importance.safetensors") as scores:
        importance = scores.get_tensor(prefix).astype(np.float32)
    shares = tuple(block["kept_importance"] for block in entry["blocks"])
    return MatrixView(layout, pruned, importance, shares, _dense_weights(run, entry["dense_tensor"]))


def _dense_weights(run: Run, tensor: str) -> NDArray[np.float32] | None:
    path = Path(run.spec.get("checkpoint_path", "")) / "model.safetensors"
    return read_weights(path, tensor, run.spec.get("fingerprint", ""))


def _matrix_layout(indices: Any, prefix: str, entry: Mapping[str, Any]) -> MatrixLayout:
    def groups(axis: str) -> tuple[IntArray, ...]:
        return tuple(indices.get_tensor(f"{prefix}.{axis}.{g}").astype(np.int64) for g in range(len(entry["blocks"])))

    return MatrixLayout(entry["name"], entry["rows"], entry["columns"], groups("rows"), groups("columns"))


@contextlib.contextmanager
def _tensors(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="numpy") as tensors:
            yield tensors
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path.name} of {path.parent.name} is missing or damaged.") from error

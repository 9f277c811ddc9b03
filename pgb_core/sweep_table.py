"""A sweep as a table: one row per point, whatever became of it, as CSV and as Parquet."""

from __future__ import annotations

import csv
import io
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pgb_core import store
from pgb_core.errors import RunError
from pgb_core.sweep_spec import AXES, Point, Sweep, locked

CSV_FILE, PARQUET_FILE = "points.csv", "points.parquet"
COLUMNS = {
    "run": str, "checkpoint": str, "task": str, "method": str, "sparsity": float, "recover_epochs": int, "seed": int,
    "state": str, "message": str,
    "achieved_sparsity": float, "metric": str, "score": float, "standard_error": float, "dense": float,
    "masked": float, "compensated": float, "recovered": float, "majority": float, "samples": int, "parameters": int,
    "encoder_weights": int, "flops": int, "bytes": int, "latency_ms": float, "latency_p10_ms": float,
    "latency_p90_ms": float, "dense_latency_ms": float, "speedup": float, "ideal_speedup": float, "seconds": float,
}  # fmt: skip
"""Columns and their types. Scores and shares are fractions, `score` is that of the model that was kept, after the last
stage; a point that has not begun is `pending`, and what is not known of a point is None."""


def rows(sweep: Sweep) -> list[dict[str, Any]]:
    """The sweep's points in order, each with a value or None for every one of `COLUMNS`."""
    return [row(sweep, point) for point in sweep.points]


def row(sweep: Sweep, point: Point) -> dict[str, Any]:
    """One point as a row."""
    values = {
        "run": point.run,
        **{name: getattr(point.spec, name) for name in AXES},
        "checkpoint": _name_of(point.spec.checkpoint),
        "state": "pending",
    }
    try:
        run = store.read_run(sweep.folder(point))
    except RunError:
        return {**dict.fromkeys(COLUMNS), **values}
    values |= {"state": run.status.state, "message": None if run.status.state == "done" else run.status.message}
    return {**dict.fromkeys(COLUMNS), **values, **({} if run.result is None else _measured(run.result))}


def _name_of(checkpoint: str) -> str:
    """Of a folder its name: the table is for everybody, where it lies on the server is not."""
    return Path(checkpoint).name if Path(checkpoint).is_absolute() else checkpoint


def _measured(result: Mapping[str, Any]) -> dict[str, Any]:
    score, latency = result["score"], result["latency"]
    kept = "compensated" if score["recovered"] is None else "recovered"
    names = ("metric", "dense", "masked", "compensated", "recovered", "majority", "samples")
    found = {
        "achieved_sparsity": result["sparsity"]["achieved"],
        **{name: score[name] for name in names},
        "score": score[kept],
        "standard_error": score["standard_error"].get(kept),
        "parameters": result["parameters"]["pruned"],
        "encoder_weights": result["parameters"]["encoder_pruned"],
        "flops": result["flops"]["pruned"],
        "bytes": result["bytes"]["pruned"],
        "seconds": result["seconds"]["total"],
    }
    if latency is not None:
        pruned = latency["pruned"]
        found |= {"latency_ms": pruned["median_ms"], "dense_latency_ms": latency["dense"]["median_ms"]}
        found |= {f"latency_{name}": pruned[name] for name in ("p10_ms", "p90_ms")}
        found |= {name: latency[name] for name in ("speedup", "ideal_speedup")}
    return found


def as_csv(table: Sequence[Mapping[str, Any]]) -> str:
    """The rows as CSV; a text that a spreadsheet would take for a formula gets an apostrophe in front."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(COLUMNS), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _harmless(value) for name, value in each.items()} for each in table)
    return out.getvalue()


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def write_table(sweep: Sweep) -> list[dict[str, Any]]:
    """Write the CSV and the Parquet file of `sweep` anew and return their rows.

    Of several processes that do so at once the last one reads what all others have finished.
    """
    with locked(sweep.path):
        table = rows(sweep)
        _write(sweep.path, table)
    return table


def _write(folder: Path, table: Sequence[Mapping[str, Any]]) -> None:
    import pandas as pd

    types = {int: "Int64", float: "Float64", str: "string"}  # each knows missing values
    frame = pd.DataFrame({name: pd.array([r[name] for r in table], dtype=types[t]) for name, t in COLUMNS.items()})
    _replace(folder / CSV_FILE, as_csv(table).encode())
    _replace(folder / PARQUET_FILE, frame.to_parquet(index=False))


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)

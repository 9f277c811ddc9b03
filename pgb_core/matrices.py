"""The matrices of a run: what was kept of each, in which groups, and how important it was.

`layout.json` describes every matrix, `layout.safetensors` holds its permutations, groups and the places of its zeros,
`importance.safetensors` its scores. A sample run has the scores of a few matrices only, in coarse steps, in a file that
it shares with other samples, and no weights. Nothing here imports torch: the dashboard reads matrices through this
module.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save_file

from pgb_core.errors import RunError
from pgb_core.files import packed_file, read_bytes
from pgb_core.layout import IntArray, Kind, Layout, MatrixLayout
from pgb_core.store import SCHEMA, Run, read_json, write_json
from pgb_core.weights import read_weights

DECADES = 4
"""Powers of ten below the matrix's largest value that the logarithmic scale of importance spans."""
LEVELS = 16
"""Steps of that scale in which a sample run keeps importance."""


def write_layout(
    path: Path,
    layouts: Sequence[tuple[int, Layout]],
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
            for g, (rows, columns) in enumerate(zip(matrix.row_groups, matrix.column_groups, strict=True)):
                indices[f"{prefix}.rows.{g}"] = rows.astype(np.int32)
                indices[f"{prefix}.columns.{g}"] = columns.astype(np.int32)
            if matrix.support is not None:
                indices[f"{prefix}.support"] = np.packbits(matrix.support, axis=1)
            entries.append(
                {
                    "name": matrix.name,
                    "rows": matrix.rows,
                    "columns": matrix.columns,
                    "dense_tensor": dense_tensors[key],
                    "blocks": [
                        {"tensor": name, "row_start": start, "row_stop": stop, "kept_importance": kept / total}
                        for (name, start, stop), kept in zip(blocks[key], matrix.block_sums(score), strict=True)
                    ],
                }
            )
        sublayers.append({"layer": layer, "kind": layout.shape.kind, "dropped": layout.dropped, "matrices": entries})
    save_file(indices, path / "layout.safetensors")
    save_file(scores, path / "importance.safetensors")
    write_json(path / "layout.json", {"schema": SCHEMA, "sublayers": sublayers})


@dataclass(frozen=True)
class MatrixView:
    """One matrix of a run, in the ORIGINAL order of rows and columns; float32 (rows, columns)."""

    layout: MatrixLayout
    pruned: NDArray[np.float32] | None
    """Kept weights after refit (and recovery); zero where a weight was removed. None of a sample run."""
    importance: NDArray[np.float32]
    """Relative to the matrix's largest."""
    kept_importance: tuple[float, ...]
    """Share of the matrix's importance inside each group."""
    dense: NDArray[np.float32] | None
    """Weights of the checkpoint; None when its file is gone, or is another one than when the run began."""

    @functools.cached_property
    def weight_limit(self) -> float:
        """Where the color scale of weights saturates, never 0: the 99.5th percentile of their magnitude.

        Of the checkpoint's weights, else of the kept: one scale for before and after, so that the eye can compare.
        """
        weights = self.dense
        if weights is None and self.pruned is not None:
            weights = self.pruned[self.layout.mask()]
        return float(np.quantile(np.abs(weights), 0.995)) or 1.0 if weights is not None and weights.size else 1.0


def to_levels(importance: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Importance relative to the largest, (rows, columns), as steps of the logarithmic scale: 0 to `LEVELS` - 1."""
    decades = np.log10(np.maximum(importance.astype(np.float32), np.float32(10.0**-DECADES)))
    return np.rint((decades / DECADES + 1) * (LEVELS - 1)).astype(np.uint8)


def from_levels(levels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The importance that each step of the scale stands for; the lowest step is an upper bound."""
    return np.power(10.0, (levels / (LEVELS - 1) - 1) * DECADES, dtype=np.float32)


def read_layouts(run: Run) -> dict[tuple[int, str, str], MatrixLayout]:
    """Layout of every matrix, by (layer, kind, matrix name).

    Raises:
        RunError: the run's files are damaged.
    """
    with _tensors(run.path / "layout.safetensors") as indices:
        return {key: _matrix_layout(indices, _prefix(*key), entry) for key, entry in _entries(run)}


def read_kept_importance(run: Run) -> dict[tuple[int, str, str], float]:
    """Share of its importance that every matrix kept, by (layer, kind, matrix name).

    Raises:
        RunError: layout.json is damaged.
    """
    return {key: sum(block["kept_importance"] for block in entry["blocks"]) for key, entry in _entries(run)}


def _entries(run: Run) -> Iterator[tuple[tuple[int, str, str], dict[str, Any]]]:
    for sublayer in read_json(run.path / "layout.json")["sublayers"]:
        for matrix in sublayer["matrices"]:
            yield (sublayer["layer"], sublayer["kind"], matrix["name"]), matrix


def readable(run: Run) -> frozenset[tuple[int, str, str]]:
    """(layer, kind, matrix name) of what `read_matrix` can read: of a sample run a few matrices, else all."""
    if not run.sample:
        return frozenset(read_layouts(run))
    with _tensors(_importance_file(run)) as scores:
        parts = (prefix.split(".") for prefix in scores.keys())  # noqa: SIM118  # an open file of tensors is no mapping
        return frozenset((int(layer), kind, name) for layer, kind, name in parts)


def read_matrix(run: Run, layer: int, kind: str, name: str) -> MatrixView:
    """One matrix of a finished run.

    Raises:
        RunError: the run has no such matrix, its files are damaged, or a sample run came without this matrix.
    """
    if run.sample and (layer, kind, name) not in readable(run):
        raise RunError(f"The sample run {run.id} came without {name!r} of layer {layer + 1}; prune the demo to see it.")
    for key, entry in _entries(run):
        if key == (layer, kind, name):
            return _read_matrix(run, _prefix(*key), entry)
    raise RunError(f"Run {run.id} has no matrix {name!r} in the {kind} of layer {layer + 1}.")


def _read_matrix(run: Run, prefix: str, entry: Mapping[str, Any]) -> MatrixView:
    with _tensors(run.path / "layout.safetensors") as indices:
        layout = _matrix_layout(indices, prefix, entry)
    with _tensors(_importance_file(run)) as scores:
        found = scores.get_tensor(prefix)
    importance = from_levels(found) if run.sample else found.astype(np.float32)
    shares = tuple(block["kept_importance"] for block in entry["blocks"])
    pruned, dense = None, None
    if not run.sample:
        pruned, dense = _pruned_weights(run, layout, entry), _dense_weights(run, entry["dense_tensor"])
    return MatrixView(layout, pruned, importance, shares, dense)


def _importance_file(run: Run) -> Path:
    return (
        run.path.parent / read_json(run.path / "sample.json")["importance"]
        if run.sample
        else run.path / "importance.safetensors"
    )


def _pruned_weights(run: Run, layout: MatrixLayout, entry: Mapping[str, Any]) -> NDArray[np.float32]:
    pruned = np.zeros((layout.rows, layout.columns), dtype=np.float32)
    with _tensors(run.model_dir / "model.safetensors") as weights:
        for block, rows, columns in zip(entry["blocks"], layout.row_groups, layout.column_groups, strict=True):
            tensor = weights.get_slice(block["tensor"])[block["row_start"] : block["row_stop"]]
            pruned[np.ix_(rows, columns)] = tensor
    return pruned


def _dense_weights(run: Run, tensor: str) -> NDArray[np.float32] | None:
    return read_weights(Path(run.spec.get("checkpoint_path", "")), tensor, run.spec.get("fingerprint", ""))


def _matrix_layout(indices: Any, prefix: str, entry: Mapping[str, Any]) -> MatrixLayout:
    def groups(axis: str) -> tuple[IntArray, ...]:
        return tuple(indices.get_tensor(f"{prefix}.{axis}.{g}").astype(np.int64) for g in range(len(entry["blocks"])))

    rows, columns, support = entry["rows"], entry["columns"], None
    if f"{prefix}.support" in indices.keys():  # noqa: SIM118  # an open file of tensors is no mapping
        support = np.unpackbits(indices.get_tensor(f"{prefix}.support"), axis=1, count=columns).astype(bool)
    return MatrixLayout(entry["name"], rows, columns, groups("rows"), groups("columns"), support)


class _Loaded(dict[str, NDArray[Any]]):
    """Tensors in memory, asked for like those of an open file."""

    def get_tensor(self, name: str) -> NDArray[Any]:
        return self[name]


@contextlib.contextmanager
def _tensors(path: Path) -> Iterator[Any]:
    try:
        if packed_file(path):
            yield _Loaded(load(read_bytes(path)))
            return
        with safe_open(path, framework="numpy") as tensors:
            yield tensors
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path.name} of {path.parent.name} is missing or damaged.") from error


def _prefix(layer: int, kind: str, name: str) -> str:
    return f"{layer}.{kind}.{name}"

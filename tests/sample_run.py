"""Finished run folders for tests of whatever shows a run: real layouts and tensors, made up scores.

Everything is written through `store`, in the shape that the pruner writes, so that a page cannot tell the difference.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from pgb_core import matrices, store
from pgb_core.answers import Answers, Said, write_answers
from pgb_core.index import SETTLED_SECONDS
from pgb_core.layout import (
    Group,
    Kind,
    SublayerLayout,
    SublayerShape,
    dropped_layout,
    rectangle_layout,
    untouched_layout,
)
from pgb_core.spec import BASELINES

KINDS: tuple[Kind, ...] = ("attention", "feed_forward")
DENSE_NAMES = {
    ("attention", "query"): "attention.self.query",
    ("attention", "key"): "attention.self.key",
    ("attention", "value"): "attention.self.value",
    ("attention", "output"): "attention.output.dense",
    ("feed_forward", "intermediate"): "intermediate.dense",
    ("feed_forward", "output"): "output.dense",
}


@dataclass(frozen=True)
class SampleShape:
    """Sizes of the made up encoder; the defaults are tiny."""

    layers: int = 2
    hidden: int = 32
    heads: int = 4
    intermediate: int = 64

    def sublayer(self, kind: Kind) -> SublayerShape:
        if kind == "attention":
            return SublayerShape(kind, self.hidden, self.heads, self.hidden // self.heads)
        return SublayerShape(kind, self.hidden, self.intermediate, 1)


MINILM = SampleShape(layers=6, hidden=384, heads=12, intermediate=1536)


def make_sample_run(
    runs_dir: Path,
    *,
    shape: SampleShape = SampleShape(),
    sparsity: float = 0.5,
    method: str = "pgb",
    checkpoint: str = "demo",
    task: str = "bbc-news",
    recovered: bool = False,
    latency: bool = True,
    run_id: str | None = None,
    checkpoint_dir: Path | None = None,
    seed: int = 0,
    kept_answers: bool = True,
) -> Path:
    """Write a finished run below `runs_dir` and return its folder; without `kept_answers` as the first versions did.

    `checkpoint_dir` receives the dense weights unless they are there already; they depend on the shape alone.
    """
    rng = np.random.default_rng(seed)
    path = _folder(runs_dir, run_id)
    source = checkpoint_dir or path / "dense"
    layouts = _layouts(shape, sparsity, method, rng)
    names = {
        (
            layer,
            layout.shape.kind,
            matrix,
        ): f"bert.encoder.layer.{layer}.{DENSE_NAMES[layout.shape.kind, matrix]}.weight"
        for layer, layout in layouts
        for matrix in layout.shape.matrices
    }
    dense = _dense_weights(source, layouts, names)
    importance: dict[tuple[int, Kind, str], NDArray[np.float32]] = {}
    blocks: dict[tuple[int, Kind, str], list[tuple[str, int, int]]] = {}
    tensors: dict[str, NDArray[np.float32]] = {}
    for layer, layout in layouts:
        for matrix in layout.matrices():
            key = (layer, layout.shape.kind, matrix.name)
            contrast = 1.0 + 9.0 * matrix.mask()
            noise = rng.lognormal(0.0, 1.0, (matrix.rows, matrix.columns))
            importance[key] = (dense[names[key]] ** 2 * contrast * noise).astype(np.float32)
            blocks[key] = []
            for g, (rows, columns) in enumerate(zip(matrix.row_groups, matrix.column_groups, strict=True)):
                name = f"layer.{layer}.{layout.shape.kind}.{matrix.name}.{g}"
                tensors[name] = np.ascontiguousarray(1.05 * dense[names[key]][np.ix_(rows, columns)], dtype=np.float32)
                blocks[key].append((name, 0, len(rows)))
    (path / "model").mkdir()
    save_file(tensors or {"empty": np.zeros(1, np.float32)}, path / "model" / "model.safetensors")
    matrices.write_layout(path, layouts, names, blocks, importance)
    if method not in BASELINES:
        tables = [_options(layer, layout, method) for layer, layout in layouts]
        store.write_json(path / "options.json", {"sublayers": tables})
    store.write_json(path / "spec.json", _spec(checkpoint, task, sparsity, method, recovered, source))
    result = _result(path, layouts, sparsity, method, shape, recovered, latency, rng)
    store.write_json(path / "result.json", result)
    if kept_answers:
        write_answers(path, _answers(result["score"], seed))
    now = time.time()
    store.write_status(
        path,
        store.Status("done", "evaluation", 1.0, "finished", now - 130, now - 128, now, eta_seconds=0.0),
    )
    (path / "log.txt").write_text("[100%] evaluation: finished\n", encoding="utf-8")
    return path


def make_unfinished_run(
    runs_dir: Path, status: store.Status, *, run_id: str | None = None, log: str = "", sparsity: float = 0.5
) -> Path:
    """Write a run that is waiting, running, failed or cancelled, as `status` says."""
    path = _folder(runs_dir, run_id)
    store.write_json(path / "spec.json", _spec("demo", "bbc-news", sparsity, "pgb", False, path / "dense"))
    store.write_status(path, status)
    (path / "log.txt").write_text(log, encoding="utf-8")
    return path


def write_running(runs_dir: Path, **changes: Any) -> Path:
    """Write a run that this process would be running; `changes` are to its status."""
    path = store.new_run(runs_dir)
    store.write_json(path / "spec.json", {"checkpoint": "demo"})
    store.write_status(path, replace(store.this_process(store.Status("running", created=time.time())), **changes))
    return path


def settle(path: Path) -> None:
    """Have run folder `path` look as if nothing had happened in it for a while."""
    past = time.time() - SETTLED_SECONDS - 1
    os.utime(path, (past, past))


def _folder(runs_dir: Path, run_id: str | None) -> Path:
    if run_id is None:
        return store.new_run(runs_dir)
    path = runs_dir / run_id
    path.mkdir(parents=True)
    return path


LADDER = ((0, 0.0), (4, 0.12), (4, 0.25), (3, 1 / 3), (2, 0.5), (1, 1.0))
"""(groups, density) of the layouts that a sample sublayer may take, dropped to untouched."""


def _layouts(
    shape: SampleShape, sparsity: float, method: str, rng: np.random.Generator
) -> list[tuple[int, SublayerLayout]]:
    """A mixed layout per sublayer whose total density is near the target, more of it in the lower layers."""
    keys: list[tuple[int, Kind]] = [(layer, kind) for layer in range(shape.layers) for kind in KINDS]
    weights = np.array([shape.sublayer(kind).weights for _, kind in keys])
    steps = rng.integers(0, len(LADDER), len(keys))
    for _ in range(400):
        excess = weights @ [LADDER[step][1] for step in steps] / weights.sum() - (1 - sparsity)
        if abs(excess) < 0.01:
            break
        place = int(rng.integers(len(keys)))
        steps[place] = np.clip(steps[place] - np.sign(excess), 0, len(LADDER) - 1)
    return [
        (layer, _layout(shape.sublayer(kind), *LADDER[step], method, rng))
        for (layer, kind), step in zip(keys, steps, strict=True)
    ]


def _layout(shape: SublayerShape, count: int, density: float, method: str, rng: np.random.Generator) -> SublayerLayout:
    if count == 0:
        return dropped_layout(shape)
    if count == 1:
        return untouched_layout(shape)
    if method == "structured" or method in BASELINES:
        kept = max(1, round(density * shape.units))
        return rectangle_layout(shape, np.sort(rng.permutation(shape.units)[:kept]))
    per_group = max(1, min(round(math.sqrt(density) * shape.units / count), shape.units // count))
    share = density * shape.units / (per_group * count)
    width = max(1, min(round(share * shape.hidden), shape.hidden // count))
    units, columns, rows = (rng.permutation(size) for size in (shape.units, shape.hidden, shape.hidden))
    return SublayerLayout(
        shape,
        tuple(
            Group(
                np.sort(units[g * per_group : (g + 1) * per_group]),
                np.sort(columns[g * width : (g + 1) * width]),
                np.sort(rows[g * width : (g + 1) * width]),
            )
            for g in range(count)
        ),
    )


def _dense_weights(
    folder: Path, layouts: list[tuple[int, SublayerLayout]], names: dict[tuple[int, Kind, str], str]
) -> dict[str, NDArray[np.float32]]:
    file = folder / "model.safetensors"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(7)
        weights = {}
        for layer, layout in layouts:
            for matrix in layout.matrices():
                # rows and columns of different scale, as in a real checkpoint
                rows = rng.lognormal(0, 0.35, (matrix.rows, 1))
                columns = rng.lognormal(0, 0.35, (1, matrix.columns))
                values = 0.03 * rows * columns * rng.standard_normal((matrix.rows, matrix.columns))
                weights[names[layer, layout.shape.kind, matrix.name]] = values.astype(np.float32)
        save_file(weights, file)
    return load_file(file)


def _options(layer: int, layout: SublayerLayout, method: str) -> dict[str, Any]:
    """A table that rises as weights go, groups and whole units side by side; what was taken is about the best there."""
    shape = layout.shape
    scale = 4e-9 * shape.weights / max(1 - layout.density, 0.2) ** 1.5 * (0.5 if layout.dropped else 1.0)
    kinds = {(1.0, 1, shape.units), (0.0, 0, 0)}
    for share in (3 / 4, 1 / 2, 3 / 8, 1 / 4, 1 / 8):
        kinds |= {(share, groups, shape.units // groups * groups) for groups in (2, 4) if share <= 2 / groups}
        kinds.add((share, 1, max(1, round(share * shape.units))))
    if not (layout.untouched or layout.dropped):
        kinds.add((layout.density, len(layout.groups), layout.kept_units))
    options = [
        {
            "label": _label(groups, units, shape),
            "tied": True,
            "groups": groups,
            "units": units,
            "cost": round(density * shape.weights),
            "density": density,
            "loss": scale * (1 - density) ** 2.5 * (1.1 if density < 1 and groups == 1 else 1.0),
            "flops": 2 * 128 * round(density * shape.weights),
            "methods": _choosers(groups, density) if method != "pgb-paper" else ["pgb-paper"],
            "admitted": True,
        }
        for density, groups, units in sorted(kinds)
    ]
    taken = (layout.cost, len(layout.groups), layout.kept_units)
    chosen = next(i for i, o in enumerate(options) if (o["cost"], o["groups"], o["units"]) == taken)
    return {"layer": layer, "kind": shape.kind, "chosen": chosen, "options": options}


def _choosers(groups: int, density: float) -> list[str]:
    rectangle = groups == 1 and density < 1
    return [
        *(() if rectangle else ("pgb",)),
        "pgb-mixed",
        *(() if groups > 1 else ("structured",)),
    ]


def _label(groups: int, units: int, shape: SublayerShape) -> str:
    noun = ("head" if shape.kind == "attention" else "neuron") + ("s" if units > 1 else "")
    if groups == 0:
        return "dropped"
    if groups == 1 and units == shape.units:
        return "untouched"
    return f"{groups} group{'s' if groups > 1 else ''}, {units} {noun}"


def _spec(checkpoint: str, task: str, sparsity: float, method: str, recovered: bool, source: Path) -> dict[str, Any]:
    weights = source / "model.safetensors"
    return {
        "checkpoint": checkpoint,
        "task": task,
        "sparsity": sparsity,
        "method": method,
        "importance": "compensated",
        "recover_epochs": 2 if recovered else 0,
        "seed": 0,
        "device": "auto",
        "train_file": None,
        "eval_file": None,
        "calibration_samples": 1024,
        "eval_samples": None,
        "max_length": None,
        "latency": True,
        "budget": "weights",
        "min_groups": None,
        "max_groups": None,
        "pins": [],
        "checkpoint_path": str(source),
        "checkpoint_source": "demo",
        "fingerprint": hashlib.sha256(weights.read_bytes()).hexdigest() if weights.exists() else "",
        "revision": None,
        "device_name": "cpu",
        "threads": 2,
        "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
    }


def _result(
    path: Path,
    layouts: list[tuple[int, SublayerLayout]],
    sparsity: float,
    method: str,
    shape: SampleShape,
    recovered: bool,
    latency: bool,
    rng: np.random.Generator,
) -> dict[str, Any]:
    encoder = sum(layout.shape.weights for _, layout in layouts)
    kept = sum(layout.cost for _, layout in layouts)
    others = 30522 * shape.hidden + 512 * shape.hidden
    achieved = 1 - kept / encoder
    lost = 0.04 * achieved**3 + float(rng.normal(0, 0.002))
    scores = {"dense": 0.9753, "masked": 0.9753 - 6 * abs(lost) - 0.1 * achieved, "compensated": 0.9753 - lost}
    scores["recovered"] = 0.9753 - lost / 2
    share = kept / encoder
    return {
        "schema": 1,
        "method": method,
        "sparsity": {"target": sparsity, "achieved": achieved},
        "budget": {"unit": "weights", "achieved": achieved},
        "parameters": {
            "dense": encoder + others,
            "pruned": kept + others,
            "encoder_dense": encoder,
            "encoder_pruned": kept,
        },
        "flops": {
            "dense": 2 * 128 * encoder * 1.1,
            "pruned": 2 * 128 * (kept + 0.1 * encoder * share),
            "batch": 1,
            "length": 128,
        },
        "bytes": {"dense": 4 * (encoder + others), "pruned": 4 * (kept + others) + 12_000},
        "score": {
            "metric": "accuracy",
            **{name: value for name, value in scores.items() if name != "recovered"},
            "recovered": scores["recovered"] if recovered else None,
            "majority": 0.24,
            "samples": 425,
            "standard_error": {
                name: math.sqrt(value * (1 - value) / 425)
                for name, value in scores.items()
                if recovered or name != "recovered"
            },
        },
        "latency": _latency(share) if latency else None,
        "latencies": [_latency(share), _latency(share, 1, 32)] if latency else [],
        "seconds": {
            "importance": 21.4,
            "grouping": 30.2,
            "budget": 41.9,
            "compensation": 12.3,
            "recovery": 35.0 if recovered else 0.0,
            "evaluation": 14.2,
            "total": 155.0 if recovered else 120.0,
        },
        "sublayers": [_sublayer(layer, layout) for layer, layout in layouts],
        "restored": [],
        "predictions": _predictions(method, layouts, lost),
        "recovery": _recovery(scores["recovered"]) if recovered else None,
        "environment": {
            "python": "3.11.9",
            "torch": "2.13.0",
            "transformers": "5.23.0",
            "device": "cpu",
            "threads": 2,
            "peak_memory_bytes": 1_310_000_000,
        },
    }


TOPICS = ("business", "entertainment", "politics", "sport", "tech")


def _answers(score: dict[str, Any], seed: int) -> Answers:
    """Answers to 425 examples, of which as many are right as the scores say; dense ones are those of every run."""
    labels = np.random.default_rng(11).integers(0, len(TOPICS), score["samples"])
    by_stage = {}
    for stage in ("dense", "masked", "compensated", "recovered"):
        if score[stage] is None:
            continue
        rng = np.random.default_rng(13 if stage == "dense" else 100 * seed + len(stage))
        wrong = rng.permutation(len(labels))[: round((1 - score[stage]) * len(labels))]
        predicted = labels.copy()
        predicted[wrong] = (predicted[wrong] + rng.integers(1, len(TOPICS), len(wrong))) % len(TOPICS)
        sure = rng.uniform(0.5, 1.0, len(labels)).astype(np.float32)
        by_stage[stage] = Said(predicted, sure, np.where(predicted == labels, sure, 1 - sure).astype(np.float32))
    return Answers(np.arange(len(labels)), labels, TOPICS, by_stage)


def _predictions(method: str, layouts: list[tuple[int, SublayerLayout]], lost: float) -> dict[str, Any]:
    if method in BASELINES:
        return {}
    loss = abs(lost) / 10
    own = {
        "loss": loss,
        "sparsity": 1 - sum(x.cost for _, x in layouts) / sum(x.shape.weights for _, x in layouts),
        "grouped": sum(x.group_count > 1 for _, x in layouts),
        "dropped": sum(x.dropped for _, x in layouts),
    }
    if method == "pgb-paper":
        return {method: own}
    others = {"pgb": {**own, "loss": 1.1 * loss}, "pgb-mixed": {**own, "loss": 0.8 * loss}, "structured": None}
    return {**others, method: own}


def _recovery(score: float) -> dict[str, Any]:
    losses = ((None, 0.31, -0.02), (0.28, 0.19, -0.004), (0.17, 0.16, 0.0), (0.11, 0.17, -0.003), (0.08, 0.18, -0.002))
    history = [
        {"epoch": n / 2, "loss": loss, "dev_loss": dev_loss, "dev_score": score + lower}
        for n, (loss, dev_loss, lower) in enumerate(losses)
    ]
    figures = {"learning_rate": 5e-5, "batch_size": 32, "trained": 1518, "set_aside": 168, "kept": 2}
    return {"metric": "accuracy", **figures, "history": history}


def _latency(share: float, batch: int = 8, length: int = 128) -> dict[str, Any]:
    dense = 182.0 * batch * length / 1024

    def spread(median: float) -> dict[str, float]:
        ms = {"median_ms": median, "p10_ms": 0.96 * median, "p90_ms": 1.07 * median, "repeats": 15}
        return {**ms, "peak_bytes": 90_000_000 + 1e6 * median}

    pruned = dense * (0.15 + 0.85 * share)
    return {
        "dense": spread(dense),
        "pruned": spread(pruned),
        "speedup": dense / pruned,
        "ideal_speedup": 1 / (0.08 + 0.92 * share),
        "batch": batch,
        "length": length,
        "threads": 2,
        "device": "cpu",
        "dtype": "float32",
    }


def _sublayer(layer: int, layout: SublayerLayout) -> dict[str, Any]:
    return {
        "layer": layer,
        "kind": layout.shape.kind,
        "dropped": layout.dropped,
        "tied": layout.tied,
        "label": layout.label,
        "density": layout.density,
        "kept_importance": min(1.0, math.sqrt(layout.density) * 1.1),
        "units": {"dense": layout.shape.units, "kept": layout.kept_units},
        "matrices": [
            {
                "name": matrix.name,
                "rows": matrix.rows,
                "columns": matrix.columns,
                "groups": len(matrix.row_groups),
                "group_rows": [len(rows) for rows in matrix.row_groups],
                "group_columns": [len(columns) for columns in matrix.column_groups],
                "density": matrix.density,
            }
            for matrix in layout.matrices()
        ],
    }

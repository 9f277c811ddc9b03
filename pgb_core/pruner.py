"""The pipeline: stages in order, progress out, cancellation in.

`prune` runs one spec into one run folder. Nothing of the evaluation split is read
before the evaluation stage.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pgb_core import checkpoints, evaluation, latency, recovery, results, store, tasks
from pgb_core.architectures import encoder_sublayers
from pgb_core.batching import Example, encode, stratified_positions
from pgb_core.grouped import cut, install
from pgb_core.layout import Layout
from pgb_core.options import TABLE_METHODS
from pgb_core.planning import (
    Goal,
    Prediction,
    Scores,
    Tables,
    by_baseline,
    candidates_of,
    choose_options,
    predictions,
    score,
    tables_of,
)
from pgb_core.progress import ProgressCallback, Reporter
from pgb_core.recording import Clock, recorded
from pgb_core.settings import get_settings
from pgb_core.spec import BASELINES, PruneSpec

if TYPE_CHECKING:
    from transformers import BertTokenizer

log = logging.getLogger(__name__)

_WEIGHTS = {  # seconds of the demo on two CPU cores
    "loading": 4.0,
    "importance": 28.0,
    "grouping": 13.0,
    "budget": 80.0,
    "compensation": 22.0,
    "recovery": 35.0,  # per epoch
    "evaluation": 10.0,
    "latency": 12.0,
    "saving": 1.0,
}


@dataclass(frozen=True, eq=False)
class Loaded:
    """What a run starts from."""

    checkpoint: checkpoints.Checkpoint
    model: nn.Module
    tokenizer: BertTokenizer
    data: tasks.TaskData
    device: torch.device
    max_length: int


@dataclass(frozen=True, eq=False)
class Plan:
    """What is to be kept: the option tables, the choice among them, and what other methods would have chosen."""

    tables: Tables
    chosen: tuple[int, ...]
    predictions: dict[str, Prediction | None]

    @property
    def layouts(self) -> list[Layout]:
        return [table[option].layout for table, option in zip(self.tables, self.chosen, strict=True)]


def prune(spec: PruneSpec, out: str | Path, on_progress: ProgressCallback | None = None) -> dict[str, Any]:
    """Prune `spec.checkpoint` and write everything into run folder `out`; returns the contents of result.json.

    `on_progress` is called with a `Progress` several times a second; raising `JobCancelled` from it stops the run,
    which is then recorded as cancelled.

    >>> prune(PruneSpec("demo", "bbc-news", 0.5), out="runs/first", on_progress=print)  # doctest: +SKIP

    Raises:
        PGBError: the run cannot be done; status.json says why. Nothing half-written is left behind.
    """
    folder = Path(out)

    def work(report: ProgressCallback) -> dict[str, Any]:
        with torch.random.fork_rng():
            torch.manual_seed(spec.seed)
            return _run(spec, folder, report)

    return recorded(folder, spec, work, on_progress)


# --- the stages ----------------------------------------------------------------------------------------------------


def _run(spec: PruneSpec, folder: Path, report: ProgressCallback) -> dict[str, Any]:
    weights = dict(_WEIGHTS)
    weights["recovery"] *= spec.recover_epochs
    weights["latency"] *= spec.latency * (len(latency.GRID) if spec.latency_grid else 1)
    reporter = Reporter(report, weights)
    clock = Clock()
    log.info("%s", spec)

    with clock.stage("loading"):
        loaded = load(spec, reporter)
        store.write_json(
            folder / "spec.json",
            results.resolved_spec(spec, loaded.checkpoint, loaded.device, loaded.max_length),
        )
        # a pin that does not fit is told now, not after minutes of scoring
        spec.constraints.check({sub.key: sub.shape.units for sub in encoder_sublayers(loaded.model)})
        calibration = calibration_of(spec, loaded)
    with clock.stage("importance"):
        scores = score(
            loaded.model,
            calibration,
            importance=spec.importance,
            seed=spec.seed,
            step=reporter.stage("importance"),
        )
    plan = None if spec.method in BASELINES else make_plan(spec, scores, reporter, clock)
    model, sublayers = loaded.model, scores.sublayers
    with clock.stage("compensation"):
        step = reporter.stage("compensation")
        if plan is None:
            refitted = by_baseline(spec.method, scores, spec.sparsity, budget=spec.budget, step=step)
        else:
            refitted = scores.refit(plan.layouts, step=step)
        layouts = [new.layout for new in refitted]
        models = {
            "dense": model,
            "masked": install(model, sublayers, [cut(s, layout) for s, layout in zip(sublayers, layouts, strict=True)]),
            "compensated": install(model, sublayers, refitted),
        }
    recovered = None
    if spec.recover_epochs:
        with clock.stage("recovery"):
            models["recovered"] = copy.deepcopy(models["compensated"])
            recovered = recovery.recover(
                models["recovered"],
                encode(loaded.data.train, loaded.tokenizer, loaded.max_length),
                epochs=spec.recover_epochs,
                learning_rate=recovery.default_learning_rate(sublayers[0].shape.hidden),
                metric=loaded.data.task.metric,
                seed=spec.seed,
                device=loaded.device,
                step=reporter.stage("recovery"),
            )
    pruned = models["recovered" if spec.recover_epochs else "compensated"]
    with clock.stage("evaluation"):
        measured = _scores(spec, loaded, models, reporter)
    latencies: list[dict[str, Any]] = []
    if spec.latency:
        shapes = latency.GRID if spec.latency_grid else (latency.DEFAULT,)
        with clock.stage("latency"):
            latencies = latency.compare(model, pruned, shapes, step=reporter.stage("latency"))
    reporter.stage("saving")
    results.save_model(folder, pruned, loaded.tokenizer, sublayers, layouts)
    results.save_layout(folder, sublayers, layouts, scores.importance)
    if plan is not None:
        results.save_options(folder, sublayers, plan.tables, plan.chosen, spec)
    runs_dir = get_settings().runs_dir
    if plan is not None and spec.method in TABLE_METHODS and folder.resolve().parent == runs_dir:  # a run of the server
        resolved = store.read_json(folder / "spec.json")
        results.save_record(runs_dir, resolved, loaded.checkpoint, model, sublayers, plan.tables)
    return {
        "schema": store.SCHEMA,
        "method": spec.method,
        **results.sizes(model, pruned, spec.sparsity),
        "budget": results.budget(layouts, spec.budget),
        "bytes": {
            "dense": results.dense_bytes(loaded.checkpoint.path),
            "pruned": (folder / "model" / "model.safetensors").stat().st_size,
        },
        "score": measured,
        "latency": latencies[0] if latencies else None,
        "latencies": latencies,
        "seconds": {**dict.fromkeys(("grouping", "budget", "recovery"), 0.0), **clock.total()},
        "sublayers": [
            results.describe_sublayer(sub, layout, values)
            for sub, layout, values in zip(sublayers, layouts, scores.importance, strict=True)
        ],
        "predictions": {} if plan is None else {name: p and asdict(p) for name, p in plan.predictions.items()},
        "recovery": recovered and {**asdict(recovered), "history": [asdict(check) for check in recovered.history]},
        "environment": results.environment(loaded.device),
    }


def load(spec: PruneSpec, reporter: Reporter) -> Loaded:
    """The checkpoint on its device, and the task's data.

    Raises:
        PGBError: one of them cannot be used, or they do not fit each other.
    """
    step = reporter.stage("loading")
    device = evaluation.choose_device(spec.device)
    checkpoint = checkpoints.resolve(spec.checkpoint, spec.task, step)
    step(1, 3, "loading the checkpoint")
    model = checkpoints.load_model(checkpoint.path).to(device)
    tokenizer = checkpoints.load_tokenizer(checkpoint.path)
    step(2, 3, "loading the texts")
    data = tasks.load_task(
        spec.task,
        id2label=evaluation.labels_of(model),
        train_file=spec.train_file,
        eval_file=spec.eval_file,
        seed=spec.seed,
    )
    return Loaded(checkpoint, model, tokenizer, data, device, spec.max_length or data.task.max_length)


def calibration_of(spec: PruneSpec, loaded: Loaded) -> list[Example]:
    """The calibration sample, label-stratified, from training data only."""
    rows = stratified_positions(list(loaded.data.train["label"]), spec.calibration_samples, spec.seed)
    return encode(loaded.data.train.select(rows), loaded.tokenizer, loaded.max_length)


def make_plan(spec: PruneSpec, scores: Scores, reporter: Reporter, clock: Clock) -> Plan:
    """Stages 2 and 3, permutation and grouping and budget, of the methods that choose from a table.

    Raises:
        SpecError: the target sparsity is out of reach.
    """
    with clock.stage("grouping"):
        found = candidates_of(spec.method, scores, seed=spec.seed, step=reporter.stage("grouping"))
    with clock.stage("budget"):
        tables = tables_of(spec.method, scores, found, seed=spec.seed, step=reporter.stage("budget"))
        scores.statistics.clear()  # larger than the model, and this run has one target
        goal = Goal(spec.sparsity, spec.budget, spec.constraints)
        choice = choose_options(scores.sublayers, tables, spec.method, goal)
        shared = list(TABLE_METHODS) if spec.method in TABLE_METHODS else [spec.method]
        predicted = predictions(scores.sublayers, tables, shared, goal)
    return Plan(tables, choice.options, predicted)


def _scores(spec: PruneSpec, loaded: Loaded, models: dict[str, nn.Module], reporter: Reporter) -> dict[str, Any]:
    step = reporter.stage("evaluation")
    metric = loaded.data.task.metric
    examples = evaluation.examples_of(
        loaded.data.evaluation, loaded.tokenizer, loaded.max_length, spec.eval_samples, spec.seed
    )
    scores: dict[str, float | None] = dict.fromkeys(("dense", "masked", "compensated", "recovered"))
    errors: dict[str, float] = {}
    for n, (name, model) in enumerate(models.items()):

        def inner(done: int, total: int, message: str = "", n: int = n, name: str = name) -> None:
            step(n * total + done, len(models) * total, f"{name} model, {message}")

        predictions = evaluation.predict(model, examples, step=inner)
        scores[name], errors[name] = evaluation.score_of(metric, predictions, examples)
    return {"metric": metric, **scores, "samples": len(examples), "standard_error": errors}

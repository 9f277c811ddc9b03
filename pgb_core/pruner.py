"""The pipeline: stages in order, progress out, cancellation in.

`prune` runs one spec into one run folder. Nothing of the evaluation split is read
before the evaluation stage.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pgb_core import answers, evaluation, judging, latency, processes, recovery, results, store
from pgb_core.architectures import encoder_sublayers
from pgb_core.grouped import PrunedSublayer, cut, install
from pgb_core.joint import Restored
from pgb_core.judging import Evaluation, Verdict
from pgb_core.layout import Layout
from pgb_core.options import TABLE_METHODS
from pgb_core.planning import Goal, Prediction, Scores, Tables, by_baseline, choose_settled, predictions
from pgb_core.progress import ProgressCallback, Reporter, Step, part, silent
from pgb_core.recording import Clock, make_room, recorded
from pgb_core.saving import load_pruned, save_pruned
from pgb_core.settings import get_settings
from pgb_core.shared import Shared
from pgb_core.spec import BASELINES, PruneSpec

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
class Plan:
    """What is to be kept: the option tables, the choice among them, and what other methods would have chosen.

    `restored` are the sublayers that the tables alone would have dropped.
    """

    tables: Tables
    chosen: tuple[int, ...]
    restored: list[Restored]
    predictions: dict[str, Prediction | None]

    @property
    def layouts(self) -> list[Layout]:
        return [table[option].layout for table, option in zip(self.tables, self.chosen, strict=True)]


def prune(
    spec: PruneSpec, out: str | Path, on_progress: ProgressCallback | None = None, *, shared: Shared | None = None
) -> dict[str, Any]:
    """Prune `spec.checkpoint` and write everything into run folder `out`; returns the contents of result.json.

    `on_progress` is called with a `Progress` several times a second; raising `JobCancelled` from it stops the run,
    which is then recorded as cancelled. What runs have in common is taken from `shared`, where it is given.

    >>> prune(PruneSpec("demo", "bbc-news", 0.5), out="runs/first", on_progress=print)  # doctest: +SKIP

    Raises:
        PGBError: the run cannot be done; status.json says why. Nothing half-written is left behind.
        ValueError: `shared` is of runs that this one has not so much in common with.
    """
    shared = shared or Shared(spec)
    if not shared.fits(spec):
        raise ValueError("what is shared was made for another checkpoint, task, seed or data")
    folder = Path(out)

    def work(report: ProgressCallback) -> dict[str, Any]:
        with torch.random.fork_rng():
            torch.manual_seed(spec.seed)
            return _run(spec, folder, report, shared)

    return recorded(folder, spec.to_dict(), work, on_progress)


# --- the stages ----------------------------------------------------------------------------------------------------


def stage_weights(spec: PruneSpec, spared: Collection[str] = ()) -> dict[str, float]:
    """Roughly how long each stage of a run takes beside the others, in order; `spared` are those with nothing to do."""
    weights = dict(_WEIGHTS)
    weights["recovery"] *= spec.recover_epochs
    weights["latency"] *= spec.latency * (len(latency.GRID) if spec.latency_grid else 1)
    return {stage: 0.0 if stage in spared else weight for stage, weight in weights.items()}


def _run(spec: PruneSpec, folder: Path, report: ProgressCallback, shared: Shared) -> dict[str, Any]:
    reporter = Reporter(report, stage_weights(spec, shared.spared(spec)))
    clock = Clock()
    log.info("%s", spec)

    with clock.stage("loading"):
        loaded = shared.loaded(reporter.stage("loading"))
        store.write_json(
            folder / "spec.json",
            results.resolved_spec(spec, loaded.checkpoint, loaded.device, loaded.max_length),
        )
        # a pin that does not fit is told now, not after minutes of scoring
        spec.constraints.check({sub.key: sub.shape.units for sub in encoder_sublayers(loaded.model)})
    with clock.stage("importance"):
        scores = shared.scores(reporter.stage("importance"))
    plan = None if spec.method in BASELINES else _plan(spec, shared, reporter, clock)
    model, sublayers = loaded.model, scores.sublayers
    with clock.stage("compensation"):
        refitted = _refit(spec, scores, plan, reporter)
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
            placed = [(sub.layer, layout) for sub, layout in zip(sublayers, layouts, strict=True)]
            with processes.lent(folder, lambda place: save_pruned(models["recovered"], placed, place)):
                recovered = _recover(spec, models["recovered"], shared, reporter.stage("recovery"))
    pruned = models["recovered" if spec.recover_epochs else "compensated"]
    with clock.stage("evaluation"):
        verdicts = _verdicts(models, shared, reporter)
        measured = _scores(shared.evaluation(), verdicts)
        alarm = judging.alarm(shared.evaluation(), verdicts["dense"])
        note = "; ".join(note for note in (loaded.note, alarm) if note)
    latencies: list[dict[str, Any]] = []
    if spec.latency:
        shapes = latency.GRID if spec.latency_grid else (latency.DEFAULT,)
        with clock.stage("latency"):
            latencies = latency.compare(model, pruned, shapes, step=reporter.stage("latency"))
    reporter.stage("saving")
    tensors = [*pruned.state_dict().values(), *(values for each in scores.importance for values in each.values())]
    make_room(folder, sum(tensor.numel() * tensor.element_size() for tensor in tensors))
    results.save_model(folder, pruned, loaded.tokenizer, sublayers, layouts)
    results.save_layout(folder, sublayers, layouts, scores.importance)
    answers.write_answers(folder, judging.answers_of(shared.evaluation(), loaded.data.label_names, verdicts))
    if plan is not None:
        pins = (*spec.pins, *(str(r.pin) for r in plan.restored))
        results.save_options(folder, sublayers, plan.tables, plan.chosen, replace(spec, pins=pins))
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
        **({"note": note} if note else {}),
        "latency": latencies[0] if latencies else None,
        "latencies": latencies,
        "seconds": {**dict.fromkeys(("grouping", "budget", "recovery"), 0.0), **clock.total()},
        "sublayers": [
            results.describe_sublayer(sub, layout, values)
            for sub, layout, values in zip(sublayers, layouts, scores.importance, strict=True)
        ],
        "restored": [] if plan is None else [asdict(r) for r in plan.restored],
        "predictions": {} if plan is None else {name: p and asdict(p) for name, p in plan.predictions.items()},
        "recovery": recovered and {**asdict(recovered), "history": [asdict(check) for check in recovered.history]},
        "environment": results.environment(loaded.device),
    }


def _recover(spec: PruneSpec, model: nn.Module, shared: Shared, step: Step) -> recovery.Recovery:
    loaded = shared.loaded(silent)
    return recovery.recover(
        model,
        shared.training(),
        epochs=spec.recover_epochs,
        learning_rate=recovery.default_learning_rate(encoder_sublayers(loaded.model)[0].shape.hidden),
        metric=loaded.data.task.metric,
        positive=loaded.data.task.positive,
        seed=spec.seed,
        device=loaded.device,
        step=step,
    )


def help_recover(spec: PruneSpec, out: str | Path, step: Step = silent) -> None:
    """What the other processes of a launch do while the first one makes the run of `spec` in folder `out`."""
    if spec.recover_epochs == 0:
        return
    began = time.time()
    processes.take_gpu()
    shared = Shared(spec)
    device = shared.loaded(step).device
    place = processes.borrow(Path(out), began, step)
    if place is not None:
        _recover(spec, load_pruned(place).to(device), shared, step)


def _plan(spec: PruneSpec, shared: Shared, reporter: Reporter, clock: Clock) -> Plan:
    """Stages 2 and 3, permutation and grouping and budget, of the methods that choose from a table.

    Raises:
        SpecError: the target sparsity is out of reach.
    """
    with clock.stage("grouping"):
        shared.candidates(spec.method, reporter.stage("grouping"))
    with clock.stage("budget"):
        tables = shared.tables(spec.method, reporter.stage("budget"))
        sublayers = shared.scores(silent).sublayers
        goal = Goal(spec.sparsity, spec.budget, spec.constraints)
        together = shared.together()
        choice, restored = choose_settled(sublayers, tables, spec.method, goal, together)
        methods = list(TABLE_METHODS) if spec.method in TABLE_METHODS else [spec.method]
        predicted = predictions(sublayers, tables, methods, goal, together)
    return Plan(tables, choice.options, restored, predicted)


def _refit(spec: PruneSpec, scores: Scores, plan: Plan | None, reporter: Reporter) -> list[PrunedSublayer]:
    step = reporter.stage("compensation")
    if plan is None:
        return by_baseline(spec.method, scores, spec.sparsity, budget=spec.budget, step=step)
    return scores.refit(plan.layouts, step=step)


def _verdicts(models: Mapping[str, nn.Module], shared: Shared, reporter: Reporter) -> dict[str, Verdict]:
    """On what each model says of the evaluation examples."""
    step = reporter.stage("evaluation")
    found = shared.evaluation()
    verdicts = {}
    for n, (name, model) in enumerate(models.items()):
        inner = _naming(part(step, n / len(models), (n + 1) / len(models)), name)
        dense = name == "dense"
        logits = shared.dense_logits(inner) if dense else evaluation.logits(model, found.examples, step=inner)
        verdicts[name] = judging.judge(found, logits)
    return verdicts


def _naming(step: Step, model: str) -> Step:
    def inner(done: int, total: int, message: str = "") -> None:
        step(done, total, f"{model} model, {message}")

    return inner


def _scores(found: Evaluation, verdicts: Mapping[str, Verdict]) -> dict[str, Any]:
    """result.json's `score`; `majority` is the score of always giving one answer, `secondary` has further metrics."""
    first, *others = (found.task.metric, *found.task.secondary)
    stages: dict[str, float | None] = dict.fromkeys(("dense", "masked", "compensated", "recovered"))
    main = _by_stage(verdicts, first)
    secondary = {metric: _by_stage(verdicts, metric) for metric in others}
    return {
        "metric": first,
        **stages,
        **main,
        "majority": judging.majority(found),
        "samples": len(found.rows),
        **({"secondary": secondary} if secondary else {}),
    }


def _by_stage(verdicts: Mapping[str, Verdict], metric: str) -> dict[str, Any]:
    """The score of each stage's model by one metric, and all their standard errors."""
    scores = {stage: verdict.scores[metric] for stage, verdict in verdicts.items()}
    errors = {stage: error for stage, (_, error) in scores.items()}
    return {**{stage: score for stage, (score, _) in scores.items()}, "standard_error": errors}

"""The pipeline: stages in order, progress out, cancellation in.

`prune` runs one spec into one run folder. Nothing of the evaluation split is read
before the evaluation stage.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pgb_core import checkpoints, evaluation, recovery, results, store, tasks
from pgb_core.architectures import Sublayer, encoder_sublayers
from pgb_core.batching import Example, batches, encode, stratified_positions
from pgb_core.budget import allot, table_of
from pgb_core.compensation import compensate
from pgb_core.errors import JobCancelled, explain, reason
from pgb_core.grouped import cut, install
from pgb_core.importance import SublayerStatistics, collect_statistics, matrix_importance
from pgb_core.layout import Layout
from pgb_core.options import TABLE_METHODS, Option, all_candidates
from pgb_core.pricing import price_candidates, pricing_batches
from pgb_core.progress import Progress, ProgressCallback, Reporter
from pgb_core.spec import PruneSpec

if TYPE_CHECKING:
    from transformers import BertTokenizer

log = logging.getLogger(__name__)

BATCH = 32
GRAM_TOKENS = 20
"""Tokens behind an exit's Gram matrix, for each of its rows."""

_WEIGHTS = {  # seconds of the demo on two CPU cores
    "loading": 4.0,
    "importance": 28.0,
    "grouping": 38.0,
    "budget": 22.0,
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
    """What is to be kept: the option tables, the choice among them, and the scores behind both."""

    sublayers: list[Sublayer]
    statistics: list[SublayerStatistics]
    importance: list[dict[str, Tensor]]
    tables: list[list[Option]]
    chosen: list[int]

    @property
    def layouts(self) -> list[Layout]:
        return [table[option].layout for table, option in zip(self.tables, self.chosen, strict=True)]


class _Clock:
    """Seconds spent in each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._started = time.perf_counter()

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started
        log.info("%s took %.1f s", name, self.seconds[name])

    def total(self) -> dict[str, float]:
        return {**self.seconds, "total": time.perf_counter() - self._started}


def prune(spec: PruneSpec, out: str | Path, on_progress: ProgressCallback | None = None) -> dict[str, Any]:
    """Prune `spec.checkpoint` and write everything into run folder `out`; returns the contents of result.json.

    `on_progress` is called with a `Progress` several times a second; raising `JobCancelled` from it stops the run,
    which is then recorded as cancelled.

    >>> prune(PruneSpec("demo", "bbc-news", 0.5), out="runs/first", on_progress=print)  # doctest: +SKIP

    Raises:
        PGBError: the run cannot be done; status.json says why. Nothing half-written is left behind.
    """
    folder = Path(out)
    status = store.claim(folder)
    store.write_json(folder / "spec.json", spec.to_dict())  # what a run that fails early asked for
    last = 0.0

    def report(progress: Progress) -> None:
        nonlocal status, last
        if on_progress is not None:
            on_progress(progress)
        if progress.stage_fraction in (0.0, 1.0) or time.monotonic() - last > 0.3:
            last = time.monotonic()
            status = store.write_status(
                folder,
                replace(
                    status,
                    stage=progress.stage,
                    fraction=progress.fraction,
                    message=progress.message,
                    eta_seconds=progress.eta_seconds,
                ),
            )

    try:
        with _logged(folder), torch.random.fork_rng():
            torch.manual_seed(spec.seed)
            result = _run(spec, folder, report)
        store.write_json(folder / "result.json", result)
        _end(folder, replace(status, fraction=1.0), "done", "done")
    except BaseException as error:
        if store.recorded_status(folder).state != "done":  # else a cancel came too late
            store.discard_results(folder)
            stopped = isinstance(error, (JobCancelled, KeyboardInterrupt))
            _end(folder, status, "cancelled" if stopped else "failed", reason(error))
        raise
    return result


def _end(folder: Path, status: store.Status, state: store.State, message: str) -> None:
    ended = replace(status, state=state, message=message, finished=time.time(), eta_seconds=None)
    with contextlib.suppress(OSError):  # a full disk: then the missing process tells that the run failed
        store.write_status(folder, ended)


@contextlib.contextmanager
def _logged(folder: Path) -> Iterator[None]:
    """Inside, what this package logs goes to the run's log.txt, and so does the traceback of an unexpected error."""
    handler = logging.FileHandler(store.log_file(folder), encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    package = logging.getLogger("pgb_core")
    level = package.level
    package.addHandler(handler)
    package.setLevel(logging.INFO)
    try:
        yield
    except Exception as error:
        if explain(error) is None:
            log.exception("The run ended with an unexpected error.")
        raise
    finally:
        package.removeHandler(handler)
        package.setLevel(level)
        handler.close()


# --- the stages ----------------------------------------------------------------------------------------------------


def _run(spec: PruneSpec, folder: Path, report: ProgressCallback) -> dict[str, Any]:
    weights = dict(_WEIGHTS)
    weights["recovery"] *= spec.recover_epochs
    weights["latency"] *= spec.latency
    reporter = Reporter(report, weights)
    clock = _Clock()
    log.info("%s", spec)

    with clock.stage("loading"):
        loaded = load(spec, reporter)
        store.write_json(
            folder / "spec.json",
            results.resolved_spec(spec, loaded.checkpoint, loaded.device, loaded.max_length),
        )
        calibration = _calibration(spec, loaded)
    plan = make_plan(spec, loaded, calibration, reporter, clock)
    model, sublayers, layouts = loaded.model, plan.sublayers, plan.layouts

    with clock.stage("compensation"):
        ready = list(batches(calibration, BATCH))
        counted = [stats.weights for stats in plan.statistics]
        refitted = compensate(model, sublayers, layouts, counted, ready, step=reporter.stage("compensation"))
        models = {
            "dense": model,
            "masked": install(model, sublayers, [cut(s, layout) for s, layout in zip(sublayers, layouts, strict=True)]),
            "compensated": install(model, sublayers, refitted),
        }
    if spec.recover_epochs:
        with clock.stage("recovery"):
            models["recovered"] = copy.deepcopy(models["compensated"])
            recovery.recover(
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
        score = _scores(spec, loaded, models, reporter)
    latency = None
    if spec.latency:
        with clock.stage("latency"):
            latency = evaluation.compare_latency(model, pruned, step=reporter.stage("latency"))
    reporter.stage("saving")
    results.save_model(folder, pruned, loaded.tokenizer, sublayers, layouts)
    results.save_layout(folder, sublayers, layouts, plan.importance)
    results.save_options(folder, sublayers, plan.tables, plan.chosen)
    return {
        "schema": store.SCHEMA,
        "method": spec.method,
        **results.sizes(model, pruned, spec.sparsity),
        "bytes": {
            "dense": results.dense_bytes(loaded.checkpoint.path),
            "pruned": (folder / "model" / "model.safetensors").stat().st_size,
        },
        "score": score,
        "latency": latency,
        "seconds": {"recovery": 0.0, **clock.total()},
        "sublayers": [
            results.describe_sublayer(sub, layout, scores)
            for sub, layout, scores in zip(sublayers, layouts, plan.importance, strict=True)
        ],
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


def _calibration(spec: PruneSpec, loaded: Loaded) -> list[Example]:
    """The calibration sample, label-stratified, from training data only."""
    rows = stratified_positions(list(loaded.data.train["label"]), spec.calibration_samples, spec.seed)
    return encode(loaded.data.train.select(rows), loaded.tokenizer, loaded.max_length)


def make_plan(
    spec: PruneSpec, loaded: Loaded, calibration: Sequence[Example], reporter: Reporter, clock: _Clock
) -> Plan:
    """Stages 1 to 3: importance, permutation and grouping, budget.

    Raises:
        SpecError: the target sparsity is out of reach.
    """
    sublayers = encoder_sublayers(loaded.model)
    with clock.stage("importance"):
        statistics = collect_statistics(
            loaded.model,
            sublayers,
            list(batches(calibration, BATCH)),
            len(calibration),
            exit_every=_exit_every(calibration, sublayers),
            fisher=spec.importance == "fisher",
            seed=spec.seed,
            step=reporter.stage("importance"),
        )
        importance = [
            matrix_importance(sub, stats, spec.importance) for sub, stats in zip(sublayers, statistics, strict=True)
        ]
    with clock.stage("grouping"):
        step = reporter.stage("grouping")
        candidates = all_candidates(sublayers, statistics, importance, seed=spec.seed, step=step)
    with clock.stage("budget"):
        fit, test = pricing_batches(calibration, spec.seed, BATCH)
        step = reporter.stage("budget")
        tables = price_candidates(loaded.model, sublayers, statistics, candidates, fit, test, step=step)
        may_choose = TABLE_METHODS[spec.method]
        tables = [[option for option in table if may_choose(option.layout)] for table in tables]
        offers = [
            table_of(sub.layer, [(option.layout, option.loss) for option in table], spec.budget)
            for sub, table in zip(sublayers, tables, strict=True)
        ]
        choice = allot(offers, [spec.sparsity], spec.constraints)[0]
    return Plan(sublayers, statistics, importance, tables, list(choice.options))


def _exit_every(calibration: Sequence[Example], sublayers: Sequence[Sublayer]) -> int:
    """One in how many samples makes `GRAM_TOKENS` tokens for each row of the largest Gram matrix."""
    tokens = sum(len(example.input_ids) for example in calibration)
    wanted = GRAM_TOKENS * max(sub.shape.inner for sub in sublayers)
    return max(1, min(tokens // wanted, len(calibration) // 4))


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

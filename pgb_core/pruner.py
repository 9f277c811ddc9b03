"""The pipeline: stages in order, progress out, cancellation in.

`prune` runs one spec into one run folder; `PrunedModel` is what the stages hand on. Nothing of the evaluation split is read
before the evaluation stage.
"""

from __future__ import annotations

import contextlib
import copy
import platform
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from pgb_core import __version__, checkpoints, evaluation, recovery, store, tasks
from pgb_core.architectures import Sublayer, encoder_sublayers
from pgb_core.batching import Batch, Example, batches, encode, stratified_sample
from pgb_core.budget import TOLERANCE, choose
from pgb_core.compensation import compensate
from pgb_core.errors import JobCancelled, PGBError, RunError
from pgb_core.grouped import block_tensors, cut, install, save_pruned
from pgb_core.importance import collect_statistics, matrix_importance
from pgb_core.layout import Kind, SublayerLayout
from pgb_core.options import Option, all_candidates, price_candidates
from pgb_core.progress import Progress, ProgressCallback, Reporter
from pgb_core.spec import PruneSpec

if TYPE_CHECKING:
    from transformers import BertTokenizer

BATCH = 32
PRICING_TOKENS = 6144
"""Calibration tokens on which options are refitted; a third of that again, unseen, measures them."""

_WEIGHTS = {
    "loading": 5.0,
    "importance": 25.0,
    "grouping": 15.0,
    "budget": 40.0,
    "compensation": 30.0,
    "recovery": 40.0,  # per epoch
    "evaluation": 15.0,
    "latency": 10.0,
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
    importance: list[dict[str, Tensor]]
    tables: list[list[Option]]
    chosen: list[int]

    @property
    def layouts(self) -> list[SublayerLayout]:
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
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started

    def total(self) -> dict[str, float]:
        return {**self.seconds, "total": time.perf_counter() - self._started}


def prune(spec: PruneSpec, out: str | Path, on_progress: ProgressCallback | None = None) -> dict[str, Any]:
    """Prune `spec.checkpoint` and write everything into run folder `out`; returns the contents of result.json.

    `on_progress` is called with a `Progress` several times a second; raising `JobCancelled` from it stops the run, which is
    then recorded as cancelled.

    >>> prune(PruneSpec("demo", "bbc-news", 0.5), out="runs/first", on_progress=print)  # doctest: +SKIP

    Raises:
        PGBError: the run cannot be done; status.json says why. Nothing half-written is left behind.
    """
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder} cannot be made or is not a folder; choose another --out.") from error
    if (folder / "result.json").exists():
        raise RunError(f"{folder} already holds a finished run; choose another folder.")
    status = _begin(folder)
    if not (folder / "spec.json").exists():  # what a run that fails early asked for
        store.write_json(folder / "spec.json", spec.to_dict())

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
        with torch.random.fork_rng():
            torch.manual_seed(spec.seed)
            result = _run(spec, folder, report)
        store.write_json(folder / "result.json", result)
    except BaseException as error:
        _discard(folder)
        stopped = isinstance(error, (JobCancelled, KeyboardInterrupt))
        message = str(error) if isinstance(error, PGBError) else _unexpected(error)
        end = replace(status, state="cancelled" if stopped else "failed", message=message, finished=time.time())
        store.write_status(folder, replace(end, eta_seconds=None))
        if isinstance(error, torch.OutOfMemoryError | MemoryError):
            raise RunError(message) from error
        raise
    store.write_status(
        folder, replace(status, state="done", fraction=1.0, message="done", finished=time.time(), eta_seconds=None)
    )
    return result


def _begin(folder: Path) -> store.Status:
    created = time.time()
    with contextlib.suppress(RunError):  # queued by the app
        created = store.read_status(folder).created
    status = store.Status("running", "loading", created=created, started=time.time(), message="starting")
    return store.write_status(folder, store.this_process(status))


def _discard(folder: Path) -> None:
    for name in ("model", ".model"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("result.json", "options.json", "layout.json", "layout.safetensors", "importance.safetensors"):
        (folder / name).unlink(missing_ok=True)


def _unexpected(error: BaseException) -> str:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return "Out of memory; use fewer calibration samples, a shorter max length, or a smaller checkpoint."
    return f"{type(error).__name__}: {error}".splitlines()[0] if str(error) else type(error).__name__


# --- the stages ----------------------------------------------------------------------------------------------------


def _run(spec: PruneSpec, folder: Path, report: ProgressCallback) -> dict[str, Any]:
    weights = dict(_WEIGHTS)
    weights["recovery"] *= spec.recover_epochs
    weights["latency"] *= spec.latency
    reporter = Reporter(report, weights)
    clock = _Clock()

    with clock.stage("loading"):
        loaded = load(spec, reporter)
        store.write_json(folder / "spec.json", _resolved(spec, loaded))
        calibration = _calibration(spec, loaded)
    plan = make_plan(spec, loaded, calibration, reporter, clock)
    model, sublayers, layouts = loaded.model, plan.sublayers, plan.layouts

    with clock.stage("compensation"):
        ready = list(batches(calibration, BATCH))
        refitted = compensate(model, sublayers, layouts, ready, step=reporter.stage("compensation"))
        models = {
            "dense": model,
            "masked": install(model, sublayers, [cut(s, layout) for s, layout in zip(sublayers, layouts, strict=True)]),
            "compensated": install(model, sublayers, refitted),
        }
    if spec.recover_epochs:
        with clock.stage("recovery"):
            models["recovered"] = copy.deepcopy(models["compensated"])
            recovery.finetune(
                models["recovered"],
                encode(loaded.data.train, loaded.tokenizer, loaded.max_length),
                epochs=spec.recover_epochs,
                learning_rate=recovery.default_learning_rate(sublayers[0].shape.hidden),
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
    _save(folder, loaded, plan, pruned)
    return {
        "schema": store.SCHEMA,
        "method": spec.method,
        "sparsity": {
            "target": spec.sparsity,
            "achieved": 1 - evaluation.encoder_weights(pruned) / evaluation.encoder_weights(model),
        },
        "parameters": {
            "dense": evaluation.parameters(model),
            "pruned": evaluation.parameters(pruned),
            "encoder_dense": evaluation.encoder_weights(model),
            "encoder_pruned": evaluation.encoder_weights(pruned),
        },
        "flops": {
            "dense": evaluation.flops(model, batch=1, length=128),
            "pruned": evaluation.flops(pruned, batch=1, length=128),
            "batch": 1,
            "length": 128,
        },
        "bytes": {
            "dense": (loaded.checkpoint.path / "model.safetensors").stat().st_size,
            "pruned": (folder / "model" / "model.safetensors").stat().st_size,
        },
        "score": score,
        "latency": latency,
        "seconds": {"recovery": 0.0, **clock.total()},
        "sublayers": [
            _describe(sub, layout, scores)
            for sub, layout, scores in zip(sublayers, layouts, plan.importance, strict=True)
        ],
        "environment": {
            **_versions(),
            "device": evaluation.device_name(loaded.device),
            "threads": evaluation.cpu_threads(),
            "peak_memory_bytes": evaluation.peak_memory_bytes(loaded.device),
        },
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
    examples = encode(loaded.data.train, loaded.tokenizer, loaded.max_length)
    return stratified_sample(examples, spec.calibration_samples, spec.seed)


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
            batches(calibration, BATCH),
            len(calibration),
            fisher=spec.importance == "fisher",
            seed=spec.seed,
            step=reporter.stage("importance"),
        )
        importance = [
            matrix_importance(sub, stats, spec.importance) for sub, stats in zip(sublayers, statistics, strict=True)
        ]
    with clock.stage("grouping"):
        step = reporter.stage("grouping")
        candidates = all_candidates(sublayers, statistics, importance, spec.method, seed=spec.seed, step=step)
    with clock.stage("budget"):
        fit, test = pricing_batches(calibration, spec.seed)
        step = reporter.stage("budget")
        tables = price_candidates(loaded.model, sublayers, statistics, candidates, fit, test, step=step)
        total = sum(sub.shape.weights for sub in sublayers)
        chosen = choose(
            [[option.cost for option in table] for table in tables],
            [[option.loss for option in table] for table in tables],
            budget=round(total * spec.density),
            slack=round(total * TOLERANCE),
        )
    return Plan(sublayers, importance, tables, chosen)


def pricing_batches(calibration: Sequence[Example], seed: int) -> tuple[list[Batch], list[Batch]]:
    """Two disjoint samples of the calibration text: one to refit options on, one to measure them on."""
    order = np.random.default_rng(seed).permutation(len(calibration))
    lengths = np.cumsum([len(calibration[i].input_ids) for i in order])
    split = min(int(np.searchsorted(lengths, PRICING_TOKENS)) + 1, max(1, len(order) * 3 // 4))
    end = int(np.searchsorted(lengths, lengths[split - 1] * 4 / 3)) + 1
    fit, test = order[:split], order[split : max(end, split + 1)]
    return (
        list(batches([calibration[i] for i in fit], BATCH)),
        list(batches([calibration[i] for i in test], BATCH)),
    )


def _scores(
    spec: PruneSpec, loaded: Loaded, models: dict[str, nn.Module], reporter: Reporter
) -> dict[str, Any]:
    step = reporter.stage("evaluation")
    metric = loaded.data.task.metric
    examples = encode(loaded.data.evaluation, loaded.tokenizer, loaded.max_length)
    if spec.eval_samples is not None:
        examples = stratified_sample(examples, spec.eval_samples, spec.seed)
    scores: dict[str, float | None] = dict.fromkeys(("dense", "masked", "compensated", "recovered"))
    errors: dict[str, float] = {}
    for n, (name, model) in enumerate(models.items()):

        def inner(done: int, total: int, message: str = "", n: int = n, name: str = name) -> None:
            step(n * total + done, len(models) * total, f"{name} model, {message}")

        predictions = evaluation.predict(model, examples, step=inner)
        scores[name], errors[name] = evaluation.score_of(metric, predictions, examples)
    return {"metric": metric, **scores, "samples": len(examples), "standard_error": errors}


# --- what is written -----------------------------------------------------------------------------------------------


def _resolved(spec: PruneSpec, loaded: Loaded) -> dict[str, Any]:
    """The spec with everything that was left open, and what a second run needs to be the same."""
    return {
        **spec.to_dict(),
        "max_length": loaded.max_length,
        "checkpoint_path": str(loaded.checkpoint.path),
        "checkpoint_source": loaded.checkpoint.source,
        "fingerprint": loaded.checkpoint.fingerprint,
        "revision": loaded.checkpoint.revision,
        "device_name": evaluation.device_name(loaded.device),
        "dtype": "float32",
        "threads": evaluation.cpu_threads(),
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    import transformers

    return {
        "pgb": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _save(folder: Path, loaded: Loaded, plan: Plan, pruned: nn.Module) -> None:
    layouts = [(sub.layer, layout) for sub, layout in zip(plan.sublayers, plan.layouts, strict=True)]
    partial = folder / ".model"
    save_pruned(pruned, layouts, partial)
    loaded.tokenizer.save_pretrained(partial)
    partial.rename(folder / "model")
    dense_tensors: dict[tuple[int, Kind, str], str] = {}
    blocks: dict[tuple[int, Kind, str], list[tuple[str, int, int]]] = {}
    importance: dict[tuple[int, Kind, str], Any] = {}
    for sub, layout, scores in zip(plan.sublayers, plan.layouts, plan.importance, strict=True):
        blocks |= block_tensors(sub, layout)
        dense_tensors |= {(*sub.key, name): sub.tensor_name(name) for name in sub.shape.matrices}
        importance |= {(*sub.key, name): score.float().cpu().numpy() for name, score in scores.items()}
    store.write_layout(folder, layouts, dense_tensors, blocks, importance)
    store.write_json(
        folder / "options.json",
        {
            "schema": store.SCHEMA,
            "sublayers": [
                {
                    "layer": sub.layer,
                    "kind": sub.shape.kind,
                    "chosen": option,
                    "options": [entry.to_dict() for entry in table],
                }
                for sub, table, option in zip(plan.sublayers, plan.tables, plan.chosen, strict=True)
            ],
        },
    )


def _describe(sub: Sublayer, layout: SublayerLayout, importance: dict[str, Tensor]) -> dict[str, Any]:
    """One entry of result.json's `sublayers`."""
    total = sum(float(score.double().sum()) for score in importance.values()) or 1.0
    kept = sum(
        float(importance[m.name].double().cpu().numpy()[np.ix_(rows, columns)].sum())
        for m in layout.matrices()
        for rows, columns in zip(m.row_groups, m.column_groups, strict=True)
    )
    return {
        "layer": sub.layer,
        "kind": sub.shape.kind,
        "dropped": layout.dropped,
        "density": layout.density,
        "kept_importance": kept / total,
        "units": {"dense": sub.shape.units, "kept": layout.kept_units},
        "matrices": [
            {
                "name": m.name,
                "rows": m.rows,
                "columns": m.columns,
                "groups": len(m.row_groups),
                "group_rows": [len(rows) for rows in m.row_groups],
                "group_columns": [len(columns) for columns in m.column_groups],
                "density": m.density,
            }
            for m in layout.matrices()
        ],
    }



"""One point of `benchmarks.accuracy`, made as `prune` makes it, with what the points of a task share made once."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.accuracy_points import DENSE, EPOCHS, Key, Origin, Point, data_digest
from pgb_core import checkpoints, evaluation, judging, planning, recovery, tasks
from pgb_core.architectures import encoder_sublayers
from pgb_core.batching import Example, encode, stratified_positions
from pgb_core.errors import PGBError, reason
from pgb_core.grouped import PrunedSublayer, install
from pgb_core.joint import Together
from pgb_core.options import TABLE_METHODS
from pgb_core.progress import Step, silent
from pgb_core.spec import BASELINES


@dataclass(frozen=True, eq=False)
class Pruned:
    """The sublayers of a pruned model, what the tables predicted for it, and the seconds of its parts."""

    sublayers: list[PrunedSublayer]
    loss: float | None
    seconds: dict[str, float]


@dataclass(frozen=True, eq=False)
class Subject:
    """One task: its dense model and its data, and what its points share, made when it is first needed."""

    model: nn.Module
    checkpoint: str
    """SHA-256 of its weights."""
    metric: str
    train: Sequence[Example]
    calibration: Sequence[Example]
    held_out: Sequence[Example]
    seed: int = 0
    step: Step = silent

    @cached_property
    def data(self) -> str:
        """SHA-256 of all examples."""
        return data_digest(self.train, self.calibration, self.held_out)

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """(N,) of the held-out examples."""
        return np.array([example.label for example in self.held_out], dtype=np.int64)

    @cached_property
    def scores(self) -> tuple[planning.Scores, float]:
        """Stage 1, and its seconds."""
        started = time.perf_counter()
        scores = planning.score(self.model, self.calibration, seed=self.seed, step=self.step)
        return scores, time.perf_counter() - started

    def tables(self, method: str) -> tuple[planning.Tables, float]:
        """Stages 2 and 3a, and their seconds; all of `TABLE_METHODS` share them."""
        family = next(iter(TABLE_METHODS)) if method in TABLE_METHODS else method
        if family not in self._tables:
            scores, _ = self.scores
            started = time.perf_counter()
            candidates = planning.candidates_of(family, scores, seed=self.seed, step=self.step)
            tables = planning.tables_of(family, scores, candidates, seed=self.seed, step=self.step)
            self._tables[family] = tables, time.perf_counter() - started
        return self._tables[family]

    def prune(self, method: str, sparsity: float) -> Pruned:
        """Stages 3b and 4.

        Raises:
            SpecError: the target is out of reach.
        """
        scores, shared = self.scores
        seconds, loss = {"scores": shared}, None
        if method in BASELINES:
            started = time.perf_counter()
            sublayers = planning.by_baseline(method, scores, sparsity, step=self.step)
        else:
            tables, seconds["tables"] = self.tables(method)
            started = time.perf_counter()
            goal = planning.Goal(sparsity)
            choice, _ = planning.choose_settled(scores.sublayers, tables, method, goal, self.together)
            layouts = [table[option].layout for table, option in zip(tables, choice.options, strict=True)]
            sublayers, loss = scores.refit(layouts, step=self.step), choice.loss
        return Pruned(sublayers, loss, {**seconds, "pruning": time.perf_counter() - started})

    @cached_property
    def together(self) -> Together:
        """What drops lose together."""
        return planning.joint_drops(self.scores[0], seed=self.seed)

    @cached_property
    def _tables(self) -> dict[str, tuple[planning.Tables, float]]:
        return {}


def load(task: str, *, seed: int, samples: int | None, calibration: int, step: Step = silent) -> Subject:
    """The demo checkpoint of `task` and its texts, as `prune` takes them.

    Raises:
        PGBError: they cannot be had.
    """
    device = evaluation.choose_device("auto")
    checkpoint = checkpoints.resolve("demo", task, step)
    model = checkpoints.load_model(checkpoint.path).to(device)
    tokenizer = checkpoints.load_tokenizer(checkpoint.path)
    data = tasks.load_task(task, id2label=evaluation.labels_of(model), seed=seed)
    length = data.task.max_length
    rows = stratified_positions(list(data.train["label"]), calibration, seed)
    return Subject(
        model,
        checkpoint.fingerprint,
        data.task.metric,
        train=encode(data.train, tokenizer, length, step),
        calibration=encode(data.train.select(rows), tokenizer, length),
        held_out=judging.evaluation_of(data.task, data.evaluation, tokenizer, length, samples, seed).examples,
        seed=seed,
        step=step,
    )


def measure_dense(subject: Subject, key: Key, origin: Origin) -> Point:
    """The point of the dense model, with its logits."""
    started = time.perf_counter()
    logits = evaluation.logits(subject.model, subject.held_out, step=subject.step)
    seconds = {"evaluation": time.perf_counter() - started}
    return Point(key, origin, logits.argmax(axis=1) == subject.labels, seconds=seconds, logits=logits)


def measure(subject: Subject, key: Key, origin: Origin, dense_logits: NDArray[np.float32]) -> Point:
    """The point of a pruned model, or of the dense one after recovery.

    A target out of reach and a training that diverges are points as well, failed ones.

    Args:
        dense_logits: (N, labels) of the dense model on the held-out examples.
    """
    cuda = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(subject.seed)  # as a run of its own: whatever was made before
        try:
            return _measure(subject, key, origin, dense_logits)
        except PGBError as error:
            return Point(key, origin, np.zeros(0, dtype=bool), failure=reason(error))


def _measure(subject: Subject, key: Key, origin: Origin, dense_logits: NDArray[np.float32]) -> Point:
    pruned = Pruned([], None, {}) if key.method == DENSE else subject.prune(key.method, key.sparsity)
    sublayers = encoder_sublayers(subject.model)
    model = install(subject.model, sublayers, pruned.sublayers) if pruned.sublayers else copy.deepcopy(subject.model)
    seconds = dict(pruned.seconds)
    if key.recovered:
        started = time.perf_counter()
        recovery.recover(
            model,
            subject.train,
            epochs=EPOCHS,
            learning_rate=recovery.default_learning_rate(sublayers[0].shape.hidden),
            metric=subject.metric,
            seed=subject.seed,
            device=next(subject.model.parameters()).device,
            step=subject.step,
        )
        seconds["recovery"] = time.perf_counter() - started
    started = time.perf_counter()
    logits = evaluation.logits(model, subject.held_out, step=subject.step)
    seconds["evaluation"] = time.perf_counter() - started
    layouts = [new.layout for new in pruned.sublayers]
    return Point(
        key,
        origin,
        logits.argmax(axis=1) == subject.labels,
        achieved=1 - evaluation.encoder_weights(model) / evaluation.encoder_weights(subject.model),
        sublayers=len(layouts),
        grouped=sum(layout.group_count > 1 for layout in layouts),
        dropped=sum(layout.dropped for layout in layouts),
        loss=pruned.loss,
        divergence=evaluation.divergence(dense_logits, logits),
        seconds=seconds,
    )

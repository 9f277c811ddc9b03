"""What runs of one checkpoint, task and seed have in common, made when it is first needed and then kept.

A sweep makes it once for all its points; a single run is a sweep of one. None of it depends on the target, the method
(but for its option tables) or the recovery, so a run that takes it from here is the run that would have made it itself.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pgb_core import checkpoints, evaluation, judging, tasks
from pgb_core.architectures import head_of
from pgb_core.batching import Example, stratified_positions
from pgb_core.joint import Together
from pgb_core.judging import Evaluation
from pgb_core.options import TABLE_METHODS
from pgb_core.planning import Candidates, Scores, Tables, candidates_of, joint_drops, score, tables_of
from pgb_core.progress import Step
from pgb_core.spec import BASELINES, PruneSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

log = logging.getLogger(__name__)

COMMON = (
    "checkpoint",
    "task",
    "seed",
    "device",
    "train_file",
    "eval_file",
    "text_column",
    "pair_column",
    "label_column",
    "label_map",
    "calibration_samples",
    "eval_samples",
    "max_length",
    "importance",
)
"""Fields of a spec in which runs that share must agree."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """What a run starts from."""

    checkpoint: checkpoints.Checkpoint
    model: nn.Module
    tokenizer: PreTrainedTokenizerFast
    data: tasks.TaskData
    device: torch.device
    max_length: int

    @property
    def note(self) -> str | None:
        """What has to be said of checkpoint and labels, if anything."""
        return "; ".join(note for note in (self.checkpoint.note, self.data.note) if note) or None


def load(spec: PruneSpec, step: Step) -> Loaded:
    """The checkpoint on its device, and the task's data.

    Raises:
        PGBError: one of them cannot be used, or they do not fit each other.
    """
    device = evaluation.choose_device(spec.device)
    checkpoint = checkpoints.resolve(spec.checkpoint, spec.task, step)
    step(1, 3, "loading the checkpoint")
    model = checkpoints.load_model(checkpoint.path).to(device)
    tokenizer = checkpoints.load_tokenizer(checkpoint.path)
    step(2, 3, "loading the texts")
    data = tasks.load_task(
        spec.task,
        id2label=evaluation.labels_of(model),
        head=head_of(model),
        train_file=spec.train_file,
        eval_file=spec.eval_file,
        columns=spec.columns,
        seed=spec.seed,
    )
    length = spec.max_length or min(data.task.max_length, tokenizer.model_max_length)
    loaded = Loaded(checkpoint, model, tokenizer, data, device, length)
    if loaded.note:
        log.warning("%s", loaded.note)
    return loaded


def calibration_of(spec: PruneSpec, loaded: Loaded) -> list[Example]:
    """The calibration sample, label-stratified, from training data only; of a long paragraph, one window may come."""
    count, train = spec.calibration_samples, loaded.data.train
    rows = stratified_positions(list(train["label"]), count, spec.seed)
    examples = judging.examples_of(loaded.data.task, train.select(rows), loaded.tokenizer, loaded.max_length)
    if len(examples) <= count:
        return examples
    chosen = np.random.default_rng(spec.seed).choice(len(examples), count, replace=False)
    return [examples[n] for n in np.sort(chosen)]


def family(method: str) -> str | None:
    """The name under which the methods that share `method`'s option tables keep them; None without tables."""
    if method in BASELINES:
        return None
    return next(iter(TABLE_METHODS)) if method in TABLE_METHODS else method


class Shared:
    """What the runs of `spec` with any of `methods` have in common.

    The statistics of the scoring pass are larger than the model; they are kept until the last of the option tables
    that `methods` need has been made.

    Args:
        spec: of one of the runs; the others agree with it in all that is in `COMMON`.
        methods: of all runs; by default that of `spec` alone.
    """

    def __init__(self, spec: PruneSpec, methods: Iterable[str] = ()) -> None:
        self._spec = spec
        self._awaited = {family(method) for method in (spec.method, *methods)} - {None}
        self._loaded: Loaded | None = None
        self._scores: Scores | None = None
        self._candidates: dict[str, Candidates] = {}
        self._tables: dict[str, Tables] = {}
        self._together: Together | None = None
        self._training: list[Example] | None = None
        self._evaluation: Evaluation | None = None
        self._dense_logits: NDArray[np.float32] | None = None

    def fits(self, spec: PruneSpec) -> bool:
        """Whether a run of `spec` may take what it needs from here."""
        return all(getattr(spec, name) == getattr(self._spec, name) for name in COMMON)

    def spared(self, spec: PruneSpec) -> set[str]:
        """The stages of a run of `spec` in which nothing is left to do."""
        name = family(spec.method)
        tables = name is None or name in self._tables
        done = {
            "loading": self._loaded is not None,
            "importance": self._scores is not None,
            "grouping": tables or name in self._candidates,
            "budget": tables,
        }
        return {stage for stage, spared in done.items() if spared}

    def loaded(self, step: Step) -> Loaded:
        """The checkpoint and the data."""
        if self._loaded is None:
            self._loaded = load(self._spec, step)
        return self._loaded

    def scores(self, step: Step) -> Scores:
        """Stage 1."""
        if self._scores is None:
            loaded, spec = self._there(), self._spec
            calibration = calibration_of(spec, loaded)
            self._scores = score(loaded.model, calibration, importance=spec.importance, seed=spec.seed, step=step)
            self._spare_memory()
        return self._scores

    def candidates(self, method: str, step: Step) -> Candidates:
        """Stage 2, of a method with option tables; nothing once its tables are there."""
        name = family(method)
        if name is None or name in self._tables:
            return ()
        if name not in self._candidates:
            self._candidates[name] = candidates_of(name, self._scored(), seed=self._spec.seed, step=step)
        return self._candidates[name]

    def tables(self, method: str, step: Step) -> Tables:
        """Stage 3a, of a method with option tables.

        Raises:
            ValueError: the method has none, or is not among those this was made for.
        """
        name = family(method)
        if name is None or (name not in self._tables and name not in self._awaited):
            raise ValueError(f"no option tables for method {method!r} here")
        if name not in self._tables:
            candidates = self._candidates[name]
            self._tables[name] = tables_of(name, self._scored(), candidates, seed=self._spec.seed, step=step)
            self._candidates.pop(name)
            self._awaited.discard(name)
            self._spare_memory()
        return self._tables[name]

    def together(self) -> Together:
        """Stage 3c: what dropping several sublayers loses; nothing is computed twice."""
        if self._together is None:
            self._together = joint_drops(self._scored(), seed=self._spec.seed)
        return self._together

    def training(self) -> list[Example]:
        """The whole training split, tokenized, for recovery."""
        if self._training is None:
            loaded = self._there()
            self._training = judging.examples_of(
                loaded.data.task, loaded.data.train, loaded.tokenizer, loaded.max_length
            )
        return self._training

    def evaluation(self) -> Evaluation:
        """The evaluation examples; nothing reads them before the first call."""
        if self._evaluation is None:
            loaded, spec = self._there(), self._spec
            self._evaluation = judging.evaluation_of(
                loaded.data.task,
                loaded.data.evaluation,
                loaded.tokenizer,
                loaded.max_length,
                spec.eval_samples,
                spec.seed,
            )
        return self._evaluation

    def dense_logits(self, step: Step) -> NDArray[np.float32]:
        """The dense model's predictions for the evaluation examples, as `evaluation.logits` gives them."""
        if self._dense_logits is None:
            self._dense_logits = evaluation.logits(self._there().model, self.evaluation().examples, step=step)
        return self._dense_logits

    def _there(self) -> Loaded:
        if self._loaded is None:
            raise ValueError("nothing is loaded yet")
        return self._loaded

    def _scored(self) -> Scores:
        if self._scores is None:
            raise ValueError("there are no scores yet")
        return self._scores

    def _spare_memory(self) -> None:
        if not self._awaited and self._scores is not None:
            self._scores.statistics.clear()

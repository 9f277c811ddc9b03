"""The evaluation split and the verdict on what a model says of it: scores with their errors, and single answers.

What a head predicts differs (labels, values, spans of words); a verdict looks the same for all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pgb_core import metrics, squad
from pgb_core.answers import Answers, Graded, Said, said
from pgb_core.batching import Example, encode, stratified_positions
from pgb_core.progress import Step, silent
from pgb_core.squad import Window
from pgb_core.tasks import Task

if TYPE_CHECKING:
    from datasets import Dataset

Number = tuple[float, float]
"""A score, as a fraction, and its standard error."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The evaluation examples of a task: `rows` (N,) are their places in the split, `labels` (N,) what is right.

    Of question answering, `examples` are windows, several for one row, and `labels` say whether there is an answer.
    """

    task: Task
    rows: NDArray[np.int64]
    examples: Sequence[Example]
    labels: NDArray[Any]
    windows: Sequence[Window] = ()
    contexts: tuple[str, ...] = ()
    answers: tuple[Sequence[str], ...] = ()
    """The paragraph and the right answers of each row."""


@dataclass(frozen=True, eq=False)
class Verdict:
    """What a model scores on `Evaluation`."""

    scores: Mapping[str, Number]
    """By metric, the task's main one first."""
    said: Said | NDArray[np.float64]
    """Its answers, of a classifier; else (N,) points for each: F1, or less the squared error."""


def evaluation_of(
    task: Task, split: Dataset, tokenizer: Any, max_length: int, samples: int | None = None, seed: int = 0
) -> Evaluation:
    """The tokenized examples: all, or a label-stratified sample of `samples`.

    Raises:
        TaskError: `max_length` is more than the checkpoint has positions for.
    """
    count = len(split) if samples is None else samples
    places = stratified_positions(list(split["label"]), count, seed)
    rows, chosen = np.array(places, dtype=np.int64), split.select(places)
    labels = np.array(chosen["label"])
    if task.head != "question_answering":
        return Evaluation(task, rows, encode(chosen, tokenizer, max_length), labels)
    windows = squad.windows_of(chosen, tokenizer, max_length)
    contexts, answers = tuple(chosen["text_pair"]), tuple(chosen["answers"])
    return Evaluation(task, rows, [window.example for window in windows], labels, windows, contexts, answers)


def examples_of(task: Task, dataset: Dataset, tokenizer: Any, max_length: int, step: Step = silent) -> list[Example]:
    """Tokenized examples to train on or to calibrate with, in the dataset's order.

    Raises:
        TaskError: `max_length` is more than the checkpoint has positions for.
    """
    if task.head == "question_answering":
        return [window.example for window in squad.windows_of(dataset, tokenizer, max_length, step)]
    return encode(dataset, tokenizer, max_length, step)


def judge(found: Evaluation, predictions: NDArray[np.float32]) -> Verdict:
    """The verdict on `predictions`, (N, labels), (N, 1) or (windows, L, 2)."""
    names = (found.task.metric, *found.task.secondary)
    if found.task.head == "question_answering":
        texts = texts_said(found, predictions)
        by_metric = {name: squad.points(name, texts, found.answers) for name in names}
        return Verdict({name: _mean(values) for name, values in by_metric.items()}, by_metric[found.task.metric])
    regression = found.task.head == "regression"
    answers = predictions[:, 0] if regression else predictions.argmax(axis=1)
    given = answers, found.labels, found.task.positive
    scores = {name: (metrics.compute_score(name, *given), metrics.standard_error(name, *given)) for name in names}
    return Verdict(scores, -np.square(answers - found.labels) if regression else said(predictions, found.labels))


def texts_said(found: Evaluation, predictions: NDArray[np.float32]) -> list[str]:
    """The answer to every question, in the order of the rows."""
    contexts = dict(enumerate(found.contexts))
    none = bool((found.labels == 0).any())
    texts = squad.answer_texts(predictions, found.windows, contexts, may_be_none=none or found.task.name == "squad_v2")
    return [texts[row] for row in contexts]


def majority(found: Evaluation) -> float:
    """The score of always giving one answer: the commonest label, one value, or none."""
    if found.task.head == "question_answering":
        return float((found.labels == 0).mean())
    return metrics.majority_score(found.task.metric, found.labels, found.task.positive)


def alarm(found: Evaluation, verdict: Verdict) -> str | None:
    """What has to be said of a dense model that scores worse than guessing, by more than two standard errors.

    Nobody uses such a model: almost always its labels are in another order than the data's.
    """
    metric, guessed = found.task.metric, majority(found)
    score, error = verdict.scores[metric]
    if score + 2 * error >= guessed:
        return None
    return (
        f"the dense model's {metrics.title(metric)} is {score:.4f}, worse than always giving the same answer "
        f"({guessed:.4f}): its labels may be in another order than the data's, or it was trained on another task"
    )


def answers_of(found: Evaluation, names: Sequence[str], verdicts: Mapping[str, Verdict]) -> Answers | Graded:
    """What a run keeps of the verdicts on its stages; `names` are the checkpoint's labels."""
    if found.task.head == "classification":
        by_stage = {stage: v.said for stage, v in verdicts.items() if isinstance(v.said, Said)}
        return Answers(found.rows, found.labels.astype(np.int64), tuple(names), by_stage)
    unit = "F1" if found.task.head == "question_answering" else "less the squared error"
    points = {stage: v.said for stage, v in verdicts.items() if not isinstance(v.said, Said)}
    return Graded(found.rows, unit, points)


def _mean(values: NDArray[np.float64]) -> Number:
    """The mean of independent values and its standard error."""
    count = len(values)
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(count)) if count > 1 else 0.0

"""What the model of each stage of a run answers to every evaluation example, so that two runs can be compared in pairs.

`answers.safetensors` of a run folder holds the places of the examples in the evaluation split, the right labels and,
for each stage, the label given with its probability and that of the right one: some 20 bytes an example, no texts. Of a
regression and of question answering it holds how good each answer is (`Graded`), not the answer.
Nothing here imports torch: the dashboard reads answers through this module.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from pgb_core.errors import RunError
from pgb_core.store import Run

FILE = "answers.safetensors"


@dataclass(frozen=True, eq=False)
class Said:
    """One model's answers to N examples: labels (N,) int64; probabilities (N,) float32, of the label given and of the
    right one.
    """

    predicted: NDArray[np.int64]
    probability: NDArray[np.float32]
    right_probability: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers of a run's models, by stage: `dense`, `masked`, `compensated` and, if there was one, `recovered`.

    `rows` (N,) are places in the evaluation split, `labels` (N,) the right answers, `label_names` what they are called.
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    label_names: tuple[str, ...]
    said: Mapping[str, Said]

    def same_examples(self, other: Answers) -> bool:
        """Whether both are answers to the same examples, in the same order."""
        return np.array_equal(self.rows, other.rows) and np.array_equal(self.labels, other.labels)

    def right(self, stage: str) -> NDArray[np.bool_]:
        """(N,) where the model of `stage` gives the right label."""
        return np.equal(self.said[stage].predicted, self.labels)


@dataclass(frozen=True, eq=False)
class Graded:
    """How good the answers of a run's models are that are no labels: by stage, (N,) `points`, more being better.

    `rows` (N,) are places in the evaluation split; `unit` says in words what a point is.
    """

    rows: NDArray[np.int64]
    unit: str
    points: Mapping[str, NDArray[np.float64]]

    def same_examples(self, other: Graded) -> bool:
        """Whether both are of the same examples, in the same order, and graded alike."""
        return self.unit == other.unit and np.array_equal(self.rows, other.rows)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """(N, labels) probabilities."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares


def said(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> Said:
    """The answers that (N, labels) `logits` are, softmax and all, where `labels` (N,) are right."""
    probabilities = softmax(logits)
    predicted, places = logits.argmax(axis=1), np.arange(len(logits))
    return Said(
        predicted.astype(np.int64),
        probabilities[places, predicted].astype(np.float32),
        probabilities[places, labels].astype(np.float32),
    )


def write_answers(folder: Path, answers: Answers | Graded) -> None:
    """Write `answers` into run folder `folder`."""
    tensors: dict[str, NDArray[Any]] = {"rows": answers.rows.astype(np.int32)}
    if isinstance(answers, Graded):
        tensors |= {f"{stage}.points": points.astype(np.float32) for stage, points in answers.points.items()}
        save_file(tensors, folder / FILE, metadata={"unit": answers.unit})
        return
    tensors["labels"] = answers.labels.astype(np.int16)
    for stage, each in answers.said.items():
        tensors[f"{stage}.predicted"] = each.predicted.astype(np.int16)
        tensors[f"{stage}.probability"] = each.probability.astype(np.float16)
        tensors[f"{stage}.right_probability"] = each.right_probability.astype(np.float16)
    save_file(tensors, folder / FILE, metadata={"label_names": json.dumps(answers.label_names)})


def read_answers(run: Run) -> Answers | Graded | None:
    """The answers of a finished run; None of a run of the first versions, which did not keep them.

    Raises:
        RunError: the file is damaged.
    """
    path = run.path / FILE
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
        return _graded(tensors, metadata) if "unit" in metadata else _answers(tensors, metadata)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{FILE} of run {run.id} is damaged; delete the run.") from error


def _answers(tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> Answers:
    names = tuple(map(str, json.loads(metadata["label_names"])))
    by_stage = {
        stage: Said(
            tensors[f"{stage}.predicted"].astype(np.int64),
            tensors[f"{stage}.probability"].astype(np.float32),
            tensors[f"{stage}.right_probability"].astype(np.float32),
        )
        for stage in _stages(tensors)
    }
    return Answers(tensors["rows"].astype(np.int64), tensors["labels"].astype(np.int64), names, by_stage)


def _graded(tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> Graded:
    points = {stage: tensors[f"{stage}.points"].astype(np.float64) for stage in _stages(tensors)}
    return Graded(tensors["rows"].astype(np.int64), metadata["unit"], points)


def _stages(tensors: Mapping[str, NDArray[Any]]) -> set[str]:
    return {name.partition(".")[0] for name in tensors if "." in name}

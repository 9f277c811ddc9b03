"""FinetuneSpec: which checkpoint gets a new head, trained on which task. Validated once, when it is made.

And what that head is: a classifier of which labels, a regression or a question answering model.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from pgb_core import tasks
from pgb_core.data_files import MOST_VALUES, Columns, Preview
from pgb_core.errors import SpecError, TaskError
from pgb_core.families import Head
from pgb_core.settings import get_settings
from pgb_core.spec import check_evaluation

HIGHEST_RATE = 1e-2
REGRESSION_LABEL = "value"


@dataclass(frozen=True)
class FinetuneSpec:
    """One fine-tuning: the encoder of `checkpoint` with a new head, trained on `task`.

    >>> FinetuneSpec("bert-base-uncased", "bbc-news").epochs
    3

    Raises:
        SpecError: a value is out of range; the message names the field and the allowed range.
    """

    checkpoint: str
    """A folder or a Hub id; it may have a head, which is replaced."""
    task: str
    epochs: int = 3
    learning_rate: float | None = None
    """Peak; None takes what suits the encoder's hidden size."""
    seed: int = 0
    device: str = "auto"
    train_file: str | None = None
    eval_file: str | None = None
    text_column: str | None = None
    pair_column: str | None = None
    label_column: str | None = None
    label_map: tuple[str, ...] = ()
    """Names for values of the label column: `VALUE=LABEL`; several may share one."""
    max_length: int | None = None
    """Tokens per sequence; None takes the task's own default."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "label_map", tuple(self.label_map))  # JSON has lists
        check_evaluation(
            checkpoint=self.checkpoint,
            task=self.task,
            train_file=self.train_file,
            eval_file=self.eval_file,
            eval_samples=None,
            max_length=self.max_length,
            device=self.device,
            seed=self.seed,
            columns=self.columns,
        )
        most = get_settings().max_recover_epochs
        if not 1 <= self.epochs <= most:
            raise SpecError(f"epochs {self.epochs} is not in 1..{most}.")
        if self.learning_rate is not None and not 0 < self.learning_rate <= HIGHEST_RATE:
            raise SpecError(f"learning rate {self.learning_rate} is not above 0 and up to {HIGHEST_RATE}.")

    @property
    def columns(self) -> Columns:
        """What the columns of the files hold."""
        return Columns(self.text_column, self.pair_column, self.label_column, self.label_map)

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return {**asdict(self), "label_map": list(self.label_map)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FinetuneSpec:
        """The spec in `values`; keys that are not fields of a spec are ignored."""
        names = {item.name for item in fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in names})


def labels_for(task: str, file: Preview | None, columns: Columns) -> tuple[Head, tuple[str, ...]]:
    """The head that a task needs, and its labels in their order; `file` is the training file of task csv.

    A file's labels are the values of its label column, numbers by size and others by the alphabet, or what these are
    to be called. Numbers of which some are not whole, or more than a hundred different ones, make a regression.

    Raises:
        TaskError: unknown task, or a file without labels that could be learned.
    """
    found = tasks.task_for(task)
    if found.name != "csv":
        if found.head == "question_answering":
            return found.head, ("LABEL_0", "LABEL_1")
        return found.head, found.labels or (REGRESSION_LABEL,)
    if file is None:
        raise TaskError("task csv needs a training file.")
    column = columns.names[2]
    if column not in file.columns:
        raise TaskError(f"the training file has no column {column!r}; name the one with the labels.")
    values = [value for value, _ in file.values.get(column, ()) if value]
    numbers = column in file.numbers
    if numbers and not (values and all(float(value).is_integer() for value in values)):
        return "regression", (REGRESSION_LABEL,)
    if column not in file.values:
        raise TaskError(
            f"column {column!r} has more than {MOST_VALUES} different values, not all of them numbers; name the column "
            "with the labels."
        )
    names = [columns.renamed.get(value, value) for value in sorted(values, key=float if numbers else str)]
    labels = tuple(dict.fromkeys(names))
    if len(labels) < 2:
        raise TaskError(f"column {column!r} has fewer than 2 different labels; name the column with the labels.")
    return "classification", labels

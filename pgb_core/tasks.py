"""Tasks: where labeled text comes from, how its labels meet the checkpoint's, and what is measured on it.

Importing this module imports neither torch nor datasets nor pandas.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgb_core import data_files, demo, hub_data
from pgb_core.corpora import CORPORA
from pgb_core.data_files import LABEL, PAIR, TEXT, Columns
from pgb_core.errors import TaskError
from pgb_core.families import HEAD_TITLES, Head
from pgb_core.hub_data import Source
from pgb_core.label_order import ids_of_task, order_note
from pgb_core.splitting import hold_out, split_in_three

if TYPE_CHECKING:
    from datasets import Dataset

LEAST_TRAINING_ROWS = 8
"""Calibration sets some of them apart to price the options on, and both parts need more than a few."""
SPLIT_SEED = 0
"""Seed of the split of offline tasks: fixed, as their demo checkpoint was trained on the rows that are not held out."""


@dataclass(frozen=True)
class Task:
    """What a task is. `text_columns` are the source's columns with the text, or the pair of texts."""

    name: str
    title: str
    description: str
    metric: str
    """The main one, of `metrics`; `f1` of question answering is that of `squad`."""
    text_columns: tuple[str, ...]
    max_length: int
    """Tokens per example, unless the run says otherwise."""
    offline: bool
    """Whether the text comes with the demo, or from the user, rather than from the Hub."""
    labels: tuple[str, ...] | None
    """Label names by the source's label ids; None where the user's file decides, or there are none."""
    head: Head = "classification"
    """What a checkpoint needs for it. The user's own file is for a classifier or a regression, as the checkpoint is."""
    secondary: tuple[str, ...] = ()
    """Metrics that are reported beside the main one."""
    source: Source | None = None
    """Where on the Hub it is; None of one that is offline."""
    positive: int = 1
    """The label that F1 is of, by the checkpoint's id; in the order of the tasks that have an F1 it is the second."""


# --- the tasks -----------------------------------------------------------------------------------------------------


def _glue(config: str, **splits: str) -> Source:
    """A data set of GLUE (Wang et al., 2019), as it has been on the Hub since January 2024."""
    return Source("nyu-mll/glue", "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c", config, **splits)


_NLI = ("entailment", "neutral", "contradiction")
_OFFLINE = (
    *(
        Task(name, corpus.title, corpus.description, "accuracy", (TEXT,), corpus.max_length, True, corpus.labels)
        for name, corpus in CORPORA.items()
    ),
    Task(
        "csv",
        "Your own file",
        "A CSV, Parquet or JSONL file with one or two texts and a label per row; you say which columns hold them.",
        "accuracy",
        (TEXT, PAIR),
        128,
        True,
        None,
    ),
)
_GLUE = (
    Task(
        "sst2",
        "SST-2",
        "Whether a sentence from a film review is positive (GLUE, from the Hub).",
        "accuracy",
        ("sentence",),
        64,
        False,
        ("negative", "positive"),
        source=_glue("sst2"),
    ),
    Task(
        "qnli",
        "QNLI",
        "Whether a sentence answers a question (GLUE, from the Hub).",
        "accuracy",
        ("question", "sentence"),
        128,
        False,
        ("entailment", "not_entailment"),
        source=_glue("qnli"),
    ),
    Task(
        "mnli",
        "MNLI, matched",
        "Whether a premise entails a hypothesis, contradicts it or neither, in genres seen in training (GLUE, from "
        "the Hub).",
        "accuracy",
        ("premise", "hypothesis"),
        128,
        False,
        _NLI,
        source=_glue("mnli", evaluation="validation_matched"),
    ),
    Task(
        "mnli_mismatched",
        "MNLI, mismatched",
        "The same as MNLI, evaluated on genres that were not seen in training (GLUE, from the Hub).",
        "accuracy",
        ("premise", "hypothesis"),
        128,
        False,
        _NLI,
        source=_glue("mnli", evaluation="validation_mismatched"),
    ),
    Task(
        "qqp",
        "QQP",
        "Whether two questions ask the same (GLUE, from the Hub).",
        "f1",
        ("question1", "question2"),
        128,
        False,
        ("not_duplicate", "duplicate"),
        secondary=("accuracy",),
        source=_glue("qqp"),
    ),
    Task(
        "mrpc",
        "MRPC",
        "Whether two sentences say the same (GLUE, from the Hub).",
        "f1",
        ("sentence1", "sentence2"),
        128,
        False,
        ("not_equivalent", "equivalent"),
        secondary=("accuracy",),
        source=_glue("mrpc"),
    ),
    Task(
        "rte",
        "RTE",
        "Whether a text entails a sentence (GLUE, from the Hub).",
        "accuracy",
        ("sentence1", "sentence2"),
        128,
        False,
        ("entailment", "not_entailment"),
        source=_glue("rte"),
    ),
    Task(
        "cola",
        "CoLA",
        "Whether a sentence is grammatical (GLUE, from the Hub).",
        "matthews",
        ("sentence",),
        64,
        False,
        ("unacceptable", "acceptable"),
        secondary=("accuracy",),
        source=_glue("cola"),
    ),
    Task(
        "stsb",
        "STS-B",
        "How similar two sentences are, from 0 to 5: a regression (GLUE, from the Hub).",
        "pearson_spearman",
        ("sentence1", "sentence2"),
        128,
        False,
        None,
        "regression",
        secondary=("pearson", "spearman"),
        source=_glue("stsb"),
    ),
)
_SQUAD = (
    Task(
        "squad",
        "SQuAD 1.1",
        "Which words of a paragraph answer a question (from the Hub).",
        "f1",
        ("question", "context"),
        384,
        False,
        None,
        "question_answering",
        secondary=("exact_match",),
        source=Source("rajpurkar/squad", "7b6d24c440a36b6815f21b70d25016731768db1f", "plain_text"),
    ),
    Task(
        "squad_v2",
        "SQuAD 2.0",
        "Which words of a paragraph answer a question, if any do (from the Hub).",
        "f1",
        ("question", "context"),
        384,
        False,
        None,
        "question_answering",
        secondary=("exact_match",),
        source=Source("rajpurkar/squad_v2", "3ffb306f725f7d2ce8394bc1873b24868140c412", "squad_v2"),
    ),
)
TASKS: dict[str, Task] = {task.name: task for task in (*_OFFLINE, *_GLUE, *_SQUAD)}


# --- their data ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TaskData:
    """Labeled text, ready to be tokenized: `datasets.Dataset`s with text, [text_pair] and label.

    `label` is the index in the checkpoint's `id2label`, and `label_names[label]` is its name; of a regression the value
    itself. Of question answering, `text` is the question, `text_pair` the paragraph, `label` whether it has an answer
    (1 or 0), and there are the columns `answers`, a list of right ones, and `starts`, their first characters.
    """

    task: Task
    train: Dataset
    evaluation: Dataset
    label_names: tuple[str, ...]
    note: str | None = None
    """What has to be said about how the labels met the checkpoint's, if not all met by name."""


def load_task(
    name: str,
    *,
    id2label: Mapping[int, str],
    head: Head | None = None,
    train_file: str | Path | None = None,
    eval_file: str | Path | None = None,
    columns: Columns | None = None,
    seed: int = 0,
) -> TaskData:
    """Training and evaluation examples of task `name` for a checkpoint with the labels `id2label`.

    `csv` reads `train_file` and `eval_file`, and `columns` says what their columns hold; without an evaluation file, a
    stratified fifth that `seed` decides is held out.

    Args:
        head: of the checkpoint; by default a regression where it has one label, else what the task needs.

    Raises:
        TaskError: unknown task, unreadable file, wrong columns, or a head or labels that do not fit the checkpoint.
    """
    from datasets import Dataset

    task = task_for(name, head or ("regression" if len(id2label) == 1 else None))
    if task.labels and task.metric == "f1":
        task = replace(task, positive=ids_of_task(name, task.labels, id2label)[task.labels[1]])
    note = order_note(task.labels or (), id2label)
    if name == "csv":
        train, evaluation, note = _load_files(train_file, eval_file, columns or Columns(), id2label, seed)
    elif task.source is None:
        train, evaluation, _ = _load_offline(task, id2label)
    else:
        train, evaluation = _load_hub(task, task.source, id2label)
    if len(train[LABEL]) < LEAST_TRAINING_ROWS:
        raise TaskError(
            f"task {name} leaves {len(train[LABEL])} rows to train on, but pruning needs at least "
            f"{LEAST_TRAINING_ROWS}; give a longer training file."
        )
    names = tuple(id2label[index] for index in sorted(id2label))
    return TaskData(task, Dataset.from_dict(train), Dataset.from_dict(evaluation), names, note)


def task_for(name: str, head: Head | None = None) -> Task:
    """The task `name` as a checkpoint with this head does it; the head is not looked at where it is not known.

    Raises:
        TaskError: there is no such task, or it is not for such a head.
    """
    if name not in TASKS:
        raise TaskError(f"unknown task {name!r}; choose one of {', '.join(TASKS)}.")
    task = TASKS[name]
    if name == "csv" and head == "regression":
        return replace(task, head=head, metric="pearson_spearman", secondary=("pearson", "spearman"))
    if head not in (None, task.head):
        fitting = [other.name for other in TASKS.values() if other.head == head]
        raise TaskError(
            f"task {name} is for a {HEAD_TITLES[task.head]}, but this checkpoint is a {HEAD_TITLES[head]}; choose "
            f"{' or '.join(['csv', *fitting] if head == 'regression' else fitting)}, or another checkpoint."
        )
    return task


def load_reserve(name: str, id2label: Mapping[int, str]) -> Dataset:
    """The rows of an offline task that `load_task` gives to no run, in the same form.

    A benchmark may choose a method's defaults on them and still report a score on rows that decided nothing.

    Raises:
        TaskError: the task has none.
    """
    from datasets import Dataset

    if name not in CORPORA or CORPORA[name].split is None:
        have = [name for name, corpus in CORPORA.items() if corpus.split]
        raise TaskError(f"task {name!r} has no reserve of rows; {' and '.join(have)} has one.")
    return Dataset.from_dict(_load_offline(TASKS[name], id2label)[2])


Table = dict[str, list[Any]]
"""Columns by name, as `TaskData` describes them."""


def _load_offline(task: Task, id2label: Mapping[int, str]) -> tuple[Table, Table, Table]:
    """Rows to train on, rows held out and the reserve; which they are depends on nothing but the task."""
    table = demo.load_texts(task.name)
    split = CORPORA[task.name].split
    parts = split_in_three(table, *split, SPLIT_SEED) if split else (*hold_out(table, SPLIT_SEED, task.name), table[:0])
    ids = ids_of_task(task.name, task.labels or (), id2label)
    train, evaluation, reserve = (
        {TEXT: part[TEXT].tolist(), LABEL: [ids[label] for label in part[LABEL]]} for part in parts
    )
    return train, evaluation, reserve


def _load_files(
    train_file: str | Path | None,
    eval_file: str | Path | None,
    columns: Columns,
    id2label: Mapping[int, str],
    seed: int,
) -> tuple[Table, Table, str | None]:
    if train_file is None:
        raise TaskError("task csv needs a training file with the columns text and label.")
    train, note = data_files.read_table(Path(train_file), columns, id2label)
    if eval_file is None:
        train, evaluation = hold_out(train, seed, Path(train_file).name)
    else:
        evaluation, other = data_files.read_table(Path(eval_file), columns, id2label)
        note = note or other
    if set(train.columns) != set(evaluation.columns):
        raise TaskError("only one of the two files has a column text_pair; both or neither must have it.")
    return train.to_dict(orient="list"), evaluation.to_dict(orient="list"), note


def _load_hub(task: Task, source: Source, id2label: Mapping[int, str]) -> tuple[Table, Table]:
    """Both splits of a task of the Hub."""
    answered = task.head == "question_answering"
    train, evaluation = hub_data.load(source, (*task.text_columns, "answers" if answered else LABEL))
    return _table(task, train, id2label), _table(task, evaluation, id2label)


def _table(task: Task, split: Dataset, id2label: Mapping[int, str]) -> Table:
    columns = (TEXT, PAIR)[: len(task.text_columns)]
    table = {name: list(split[column]) for name, column in zip(columns, task.text_columns, strict=True)}
    if task.head == "question_answering":
        found = list(split["answers"])
        answers = [list(each["text"]) for each in found]
        starts = [list(each["answer_start"]) for each in found]
        return {**table, "answers": answers, "starts": starts, LABEL: [int(bool(texts)) for texts in answers]}
    if task.head == "regression":
        return {**table, LABEL: [float(value) for value in split[LABEL]]}
    return {**table, LABEL: _glue_labels(task, split, id2label)}


def _glue_labels(task: Task, split: Dataset, id2label: Mapping[int, str]) -> list[int]:
    """Checkpoint ids of a split's labels, whose names and order are the data's own, where it tells them."""
    names = tuple(getattr(split.features[LABEL], "names", None) or task.labels or ())
    if set(names) != set(task.labels or ()):
        raise TaskError(f"the labels of task {task.name} are {', '.join(names)} on the Hub; its format has changed.")
    ids = ids_of_task(task.name, task.labels or (), id2label)
    labels = list(split[LABEL])
    if not all(0 <= label < len(names) for label in labels):
        raise TaskError(f"task {task.name} holds examples without a label; its test splits cannot be scored.")
    return [ids[names[label]] for label in labels]

"""Tasks: where labeled text comes from, how its labels meet the checkpoint's, and how predictions are scored.

Importing this module imports neither torch nor datasets nor pandas.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pgb_core import demo, hub
from pgb_core.corpora import CORPORA
from pgb_core.errors import TaskError, raise_if_cancelled

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset

GLUE = "nyu-mll/glue"
"""Dataset on the Hub, or a folder with the same layout."""
HELD_OUT = 0.2
LEAST_TRAINING_ROWS = 8
"""Calibration sets some of them apart to price the options on, and both parts need more than a few."""
SPLIT_SEED = 0
"""Seed of the split of offline tasks: fixed, as their demo checkpoint was trained on the rows that are not held out."""
_BOOTSTRAP = 200


@dataclass(frozen=True)
class Task:
    """What a task is. `text_columns` are the source's columns with the text, or the pair of texts."""

    name: str
    title: str
    description: str
    metric: str
    text_columns: tuple[str, ...]
    max_length: int
    """Tokens per example, unless the run says otherwise."""
    offline: bool
    """Whether the text comes with the demo rather than from the Hub."""
    labels: tuple[str, ...] | None
    """Label names by the source's label ids; None where the user's file decides."""


_ALL = (
    *(
        Task(name, corpus.title, corpus.description, "accuracy", ("text",), corpus.max_length, True, corpus.labels)
        for name, corpus in CORPORA.items()
    ),
    Task(
        "csv",
        "Your own file",
        "A CSV or Parquet file with the columns text, label and, for pairs, text_pair.",
        "accuracy",
        ("text", "text_pair"),
        128,
        True,
        None,
    ),
    Task(
        "sst2",
        "SST-2",
        "Whether a sentence from a film review is positive (GLUE, from the Hub).",
        "accuracy",
        ("sentence",),
        64,
        False,
        ("negative", "positive"),
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
    ),
)
TASKS: dict[str, Task] = {task.name: task for task in _ALL}


@dataclass(frozen=True)
class TaskData:
    """Labeled text, ready to be tokenized: `datasets.Dataset`s with text, [text_pair] and label.

    `label` is the index in the checkpoint's `id2label`; `label_names[label]` is its name.
    """

    task: Task
    train: Dataset
    evaluation: Dataset
    label_names: tuple[str, ...]


def load_task(
    name: str,
    *,
    id2label: Mapping[int, str],
    train_file: str | Path | None = None,
    eval_file: str | Path | None = None,
    seed: int = 0,
) -> TaskData:
    """Training and evaluation examples of task `name` for a checkpoint with the labels `id2label`.

    `csv` reads `train_file` and `eval_file`; without the latter, a stratified fifth that `seed` decides is held out.

    Raises:
        TaskError: unknown task, unreadable file, wrong columns, or labels that do not fit the checkpoint.
    """
    from datasets import Dataset

    if name not in TASKS:
        raise TaskError(f"unknown task {name!r}; choose one of {', '.join(TASKS)}.")
    task = TASKS[name]
    if name == "csv":
        train, evaluation = _load_files(train_file, eval_file, id2label, seed)
    elif task.offline:
        train, evaluation, _ = _load_offline(task, id2label)
    else:
        train, evaluation = (_load_glue(task, split, id2label) for split in ("train", "validation"))
    if len(train) < LEAST_TRAINING_ROWS:
        raise TaskError(
            f"task {name} leaves {len(train)} rows to train on, but pruning needs at least {LEAST_TRAINING_ROWS}; "
            "give a longer training file."
        )
    names = tuple(id2label[index] for index in sorted(id2label))
    return TaskData(
        task,
        Dataset.from_dict(train.to_dict(orient="list")),
        Dataset.from_dict(evaluation.to_dict(orient="list")),
        names,
    )


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
    reserve = _load_offline(TASKS[name], id2label)[2]
    return Dataset.from_dict(reserve.to_dict(orient="list"))


def compute_score(metric: str, predictions: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """The metric as a fraction: share of right answers (`accuracy`), or Matthews correlation (`matthews`).

    Raises:
        TaskError: unknown metric.
    """
    from sklearn import metrics

    functions = {"accuracy": metrics.accuracy_score, "matthews": metrics.matthews_corrcoef}
    if metric not in functions:
        raise TaskError(f"unknown metric {metric!r}; choose one of {', '.join(functions)}.")
    return float(functions[metric](labels, predictions))


def standard_error(metric: str, predictions: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """Standard error of `compute_score` over the choice of examples: binomial for accuracy, else a seeded bootstrap."""
    count = len(labels)
    if metric == "accuracy":
        score = compute_score(metric, predictions, labels)
        return float(np.sqrt(score * (1 - score) / count))
    generator = np.random.default_rng(0)
    draws = (generator.integers(0, count, count) for _ in range(_BOOTSTRAP))
    return float(np.std([compute_score(metric, predictions[d], labels[d]) for d in draws], ddof=1))


def majority_score(metric: str, labels: NDArray[np.int64]) -> float:
    """The score of a classifier that always gives the commonest of `labels` (N,): what no model should fall below."""
    return compute_score(metric, np.full_like(labels, np.bincount(labels).argmax()), labels)


def _load_offline(task: Task, id2label: Mapping[int, str]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Rows to train on, rows held out and the reserve; which they are depends on nothing but the task."""
    table = demo.load_texts(task.name)
    split = CORPORA[task.name].split
    parts = _split_in_three(table, *split) if split else (*_split(table, SPLIT_SEED, task.name), table[:0])
    train, evaluation, reserve = (
        part.assign(label=_match_names(task, id2label, part["label"].tolist())) for part in parts
    )
    return train, evaluation, reserve


def _split_in_three(
    table: pd.DataFrame, train_rows: int, held_out_rows: int
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """`train_rows` rows, `held_out_rows` rows and the others, each with the labels in the proportions of the whole."""
    from pgb_core.batching import stratified_positions

    held_out = stratified_positions(table["label"].tolist(), held_out_rows, SPLIT_SEED)
    others = table.drop(index=held_out)
    train = others.iloc[stratified_positions(others["label"].tolist(), train_rows, SPLIT_SEED)]
    return train, table.loc[held_out], others.drop(index=train.index)


def _split(table: pd.DataFrame, seed: int, what: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Hold out a fifth of each label, rounded; a label with one or two examples stays in the training part."""
    generator = np.random.default_rng(seed)
    labels = table["label"].to_numpy()
    held_out = np.zeros(len(table), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        held_out[generator.permutation(members)[: round(HELD_OUT * len(members))]] = True
    if not held_out.any():
        raise TaskError(
            f"{what} has too few rows to hold a fifth out; give an evaluation file or at least 3 per label."
        )
    return table[~held_out], table[held_out]


_SPELLINGS: tuple[Callable[[str], str], ...] = (
    str.strip,
    lambda name: name.strip().casefold(),
    # one separator inside the name is like another, but a sign is none: `-1` is not `1`, `C#` is not `C`
    lambda name: re.sub(r"(?<=\w)(\s+|[_-])(?=\w)", " ", name.strip().casefold()),
)
"""Ways to compare label names, from strict to loose: `Not_Entailment` is `not entailment` by the last."""


def _ids_by_name(id2label: Mapping[int, str], values: Iterable[str]) -> dict[str, int]:
    """Checkpoint id of each of `values` that is, by the strictest way possible, the name of exactly one label."""
    found: dict[str, int] = {}
    for spelled in _SPELLINGS:
        names = [spelled(name) for name in id2label.values()]
        counts = Counter(names)
        ids = {name: index for name, index in zip(names, id2label, strict=True) if counts[name] == 1}
        found = {value: ids[spelled(value)] for value in set(values) if spelled(value) in ids} | found
    return found


def _match_names(task: Task, id2label: Mapping[int, str], values: Sequence[str]) -> list[int]:
    """Checkpoint ids for the label names `values` of a task with known labels.

    A checkpoint with nameless labels (LABEL_0, ...) and the right number of them is taken to use the task's own order.
    """
    labels = task.labels or ()
    nameless = {index: f"LABEL_{index}" for index in range(len(labels))}
    ids = _ids_by_name(dict(enumerate(labels)) if dict(id2label) == nameless else id2label, labels)
    unknown = [label for label in labels if label not in ids]
    if unknown:
        raise TaskError(
            f"the checkpoint's labels ({_listed(id2label.values())}) do not include {unknown[0]!r} of task "
            f"{task.name}; choose a checkpoint that was fine-tuned on this task."
        )
    return [ids[value] for value in values]


def _listed(names: Iterable[object], most: int = 8) -> str:
    texts = [str(name) for name in names]
    return ", ".join(texts[:most]) + (", ..." if len(texts) > most else "")


def _load_glue(task: Task, split: str, id2label: Mapping[int, str]) -> pd.DataFrame:
    """One split of a GLUE task, from the Hub or from the cache of `datasets`."""
    import datasets
    import pandas as pd

    datasets.disable_progress_bars()
    try:
        with nullcontext() if Path(GLUE).is_dir() else hub.offline_unless_reachable(GLUE):
            source = datasets.load_dataset(GLUE, task.name, split=split)
    except Exception as error:  # the library lets errors of its HTTP client, of files and of parsers through
        raise_if_cancelled(error)
        raise TaskError(
            f"task {task.name} cannot be loaded from the Hub ({type(error).__name__}); check the network, or use a "
            f"task that works offline: {', '.join(name for name, task in TASKS.items() if task.offline)}."
        ) from error
    missing = {*task.text_columns, "label"} - set(source.column_names)
    if missing:
        raise TaskError(f"{GLUE} {task.name} has no column {min(missing)!r}; its format has changed.")
    table = pd.DataFrame({"text": source[task.text_columns[0]][:]})
    if len(task.text_columns) > 1:
        table["text_pair"] = source[task.text_columns[1]][:]
    labels, names = source["label"][:], task.labels or ()
    if not all(0 <= label < len(names) for label in labels):
        raise TaskError(f"the {split} part of {GLUE} {task.name} holds examples without a label.")
    table["label"] = _match_names(task, id2label, [names[label] for label in labels])
    return table


def _load_files(
    train_file: str | Path | None, eval_file: str | Path | None, id2label: Mapping[int, str], seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    if train_file is None:
        raise TaskError("task csv needs a training file with the columns text and label.")
    train = _read_table(Path(train_file), id2label)
    if eval_file is None:
        return _split(train, seed, Path(train_file).name)
    evaluation = _read_table(Path(eval_file), id2label)
    if set(train.columns) != set(evaluation.columns):
        raise TaskError("only one of the two files has a column text_pair; both or neither must have it.")
    return train, evaluation


def _read_table(file: Path, id2label: Mapping[int, str]) -> pd.DataFrame:
    """Columns text, [text_pair], label (checkpoint id) of a CSV, TSV or Parquet file."""
    import pandas as pd

    if not file.is_file():
        raise TaskError(f"there is no file {file}; give the path of a CSV or Parquet file.")
    try:
        if file.suffix.lower() in (".parquet", ".pq"):
            table = pd.read_parquet(file)
        elif file.suffix.lower() in (".csv", ".tsv"):
            # Everything as text: a label 1 must not become 1.0, nor a text "NA" a missing value.
            separator = "\t" if file.suffix.lower() == ".tsv" else ","
            with warnings.catch_warnings():
                # A first row longer than the header only makes pandas warn; longer ones below are errors anyway.
                warnings.simplefilter("error", pd.errors.ParserWarning)
                table = pd.read_csv(
                    file, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False
                )
        else:
            raise TaskError(f"{file.name} is neither .csv, .tsv nor .parquet; save it as one of them.")
    except UnicodeDecodeError as error:
        raise TaskError(f"{file.name} is not UTF-8 text; save it as UTF-8.") from error
    except pd.errors.ParserWarning as error:
        raise TaskError(
            f"row 1 of {file.name} has more cells than the header; put texts that hold a separator in quotes."
        ) from error
    except (ValueError, OSError) as error:  # of pandas' parsers and of pyarrow
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise TaskError(f"{file.name} cannot be read as a table ({reason:.150}); check its format.") from error
    columns = [str(column).strip() for column in table.columns]
    missing = [column for column in ("text", "label") if columns.count(column) != 1]
    if missing:
        raise TaskError(
            f"{file.name} has the columns {_listed(columns)}, but needs one called {missing[0]!r}: text, label and, "
            "for pairs, text_pair; rename its columns."
        )
    table.columns = pd.Index(columns)
    return _clean(table, file.name, id2label)


def _clean(table: pd.DataFrame, name: str, id2label: Mapping[int, str]) -> pd.DataFrame:
    """Only the known columns, checked row by row; rows are counted from 1, without the header."""
    import pandas as pd

    if table.empty:
        raise TaskError(f"{name} has no rows.")
    clean = pd.DataFrame()
    for column in ("text", "text_pair"):
        if column in table.columns:
            values = [value if isinstance(value, str) else "" for value in table[column]]
            empty = [row for row, value in enumerate(values, 1) if not value.strip()]
            if empty:
                raise TaskError(f"row {empty[0]} of {name} has no {column}; fill it in or remove the row.")
            clean[column] = values
    clean["label"] = _match_values(name, id2label, [_label_text(value) for value in table["label"]])
    return clean


def _label_text(value: object) -> str:
    """A cell of the label column as text; whole numbers without a fraction, missing values as nothing."""
    if isinstance(value, float | np.floating):
        return "" if np.isnan(value) else f"{value:g}"
    return "" if value is None else str(value).strip()


def _match_values(name: str, id2label: Mapping[int, str], values: Sequence[str]) -> list[int]:
    """Checkpoint ids for a file's labels: all of them names, or all of them ids."""
    by_name = _ids_by_name(id2label, values)
    by_id = {str(index): index for index in id2label}
    for ids in (by_name, by_id):
        if all(value in ids for value in values):
            return [ids[value] for value in values]
    # Not all are names, so there is a first that is none; if that is an id, other rows mix names with ids.
    row, value = next((row, value) for row, value in enumerate(values, 1) if value not in by_name)
    raise TaskError(
        f"row {row} of {name} has the label {value!r:.60}, which names none, or several, of the checkpoint's labels: "
        f"{_listed(id2label.values())} or, for all rows, 0 to {len(id2label) - 1}."
    )

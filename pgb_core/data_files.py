"""Files that users bring: CSV, TSV, Parquet or JSON Lines with one or two texts and a label per row.

Which column is which, and which of the checkpoint's labels a value stands for, is the user's to say (`Columns`).
Importing this module does not import pandas.
"""

from __future__ import annotations

import json
import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pgb_core.errors import SpecError, TaskError
from pgb_core.label_order import ids_of_values, listed

if TYPE_CHECKING:
    import pandas as pd

TEXT, PAIR, LABEL = "text", "text_pair", "label"
"""What the columns are called, unless one is told otherwise."""
ENDINGS = ("csv", "tsv", "parquet", "pq", "jsonl")


@dataclass(frozen=True)
class Columns:
    """Which columns of a file hold what, and which label a value of the label column stands for.

    >>> Columns(text="review", labels=("1=negative", "5=positive")).renamed
    {'1': 'negative', '5': 'positive'}

    Raises:
        SpecError: a column has two roles, or an entry of `labels` is not VALUE=LABEL.
    """

    text: str | None = None
    """None: `text`."""
    pair: str | None = None
    """None: `text_pair`, if there is one; empty: no second text."""
    label: str | None = None
    """None: `label`."""
    labels: tuple[str, ...] = ()
    """`VALUE=LABEL` for values of the label column that are not names of the checkpoint's labels."""

    def __post_init__(self) -> None:
        names = [name for name in (self.names[0], self.pair, self.names[2]) if name]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise SpecError(f"column {twice!r} cannot be two of text, second text and label; name different columns.")
        values = [_halves(entry)[0] for entry in self.labels]
        if len(set(values)) < len(values):
            raise SpecError(
                f"the label map names {max(values, key=values.count)!r} twice; say once what it stands for."
            )

    @classmethod
    def of_spec(cls, spec: Mapping[str, Any]) -> Columns:
        """The columns that a recorded spec names."""
        text, pair, label = (spec.get(f"{name}_column") for name in ("text", "pair", "label"))
        return cls(text, pair, label, tuple(spec.get("label_map") or ()))

    @property
    def names(self) -> tuple[str, str, str]:
        """Names of the columns: text, second text (empty: there is none), label."""
        text, label = self.text or TEXT, self.label or LABEL
        usual = "" if PAIR in (text, label) else PAIR
        return text, usual if self.pair is None else self.pair, label

    @property
    def renamed(self) -> dict[str, str]:
        """The checkpoint's label by value of the label column."""
        return dict(_halves(entry) for entry in self.labels)


def _halves(entry: str) -> tuple[str, str]:
    value, sign, label = entry.rpartition("=")
    if not sign or not value.strip() or not label.strip():
        raise SpecError(f"label map {entry!r:.80} is not VALUE=LABEL, for instance good=positive.")
    return value.strip(), label.strip()


# --- for a form ----------------------------------------------------------------------------------------------------


_TEXTS = ("text", "sentence", "sentence1", "question1", "premise", "question", "review", "content")
_PAIRS = ("text_pair", "text2", "sentence2", "question2", "hypothesis")
_LABELS = ("label", "labels", "class", "category", "target", "sentiment", "score", "topic")
"""What columns are often called, the likeliest first."""


@dataclass(frozen=True)
class Preview:
    """What a file holds, for choosing its columns."""

    columns: tuple[str, ...]
    rows: int
    values: Mapping[str, tuple[tuple[str, int], ...]]
    """Per column: its values with their counts, commonest first, where there are at most `MOST_VALUES`."""
    lengths: Mapping[str, float]
    """Per column: mean number of characters."""
    numbers: frozenset[str]
    """Columns whose every cell is a finite number."""

    def guess(self) -> Columns:
        """The columns by their names, or else by what they hold: few values make a label, many characters a text."""
        text, pair, label = (self._first(names) for names in (_TEXTS, _PAIRS, _LABELS))
        if label is None:
            few = {
                name: len(found) for name, found in self.values.items() if len(found) > 1 and name not in (text, pair)
            }
            label = min(few, key=few.__getitem__, default=self.columns[-1])
        if text in (None, label):
            others = [name for name in self.columns if name not in (pair, label)]
            text = max(others, key=self.lengths.__getitem__, default=self.columns[0])
        return Columns(text, "" if pair in (None, text, label) else pair, label) if text != label else Columns()

    def _first(self, names: Sequence[str]) -> str | None:
        by_name = {column.casefold(): column for column in reversed(self.columns)}
        return next((by_name[name] for name in names if name in by_name), None)


MOST_VALUES = 100
MOST_CHARACTERS = 2 * 10**9
"""Of all texts of a file together; a Parquet file of some kilobytes can unpack to any number."""


def preview(file: Path) -> Preview:
    """Columns, number of rows and the values of columns with few of them.

    Raises:
        TaskError: the file cannot be read as a table.
    """
    table = _read(file)
    values, lengths, numbers = {}, {}, set()
    for column in table.columns:
        counts = Counter(cell_text(value) for value in table[column])
        if counts and all(math.isfinite(_number(value)) for value in counts):
            numbers.add(column)
        lengths[column] = sum(len(value) * count for value, count in counts.items()) / max(len(table), 1)
        if len(counts) <= MOST_VALUES:
            values[column] = tuple(counts.most_common())
    return Preview(tuple(table.columns), len(table), values, lengths, frozenset(numbers))


# --- for a run -----------------------------------------------------------------------------------------------------


def read_table(file: Path, columns: Columns, id2label: Mapping[int, str]) -> tuple[pd.DataFrame, str | None]:
    """Columns text, [text_pair], label of a file, every row checked; rows are counted from 1, without the header.

    Labels are checkpoint ids; for a regression, which is a checkpoint with one label, finite numbers. Beside the table
    is what has to be said of how the labels met the checkpoint's, see `ids_of_values`.

    Raises:
        TaskError: the file cannot be read, lacks a column, or holds a row that cannot be used.
    """
    import pandas as pd

    table, name = _read(file), file.name
    text, pair, label = columns.names
    optional = {pair} if columns.pair is None else {""}
    missing = [column for column in (text, pair, label) if column not in table.columns and column not in optional]
    if missing:
        raise TaskError(
            f"{name} has the columns {listed(table.columns)}, but needs one called {missing[0]!r}; rename it, or say "
            "which columns hold text, second text and label."
        )
    if table.empty:
        raise TaskError(f"{name} has no rows.")
    clean = pd.DataFrame({TEXT: _texts(table[text], name)})
    if pair in table.columns:
        clean[PAIR] = _texts(table[pair], name)
    values, note = [cell_text(value) for value in table[label]], None
    if len(id2label) == 1:
        clean[LABEL] = _numbers(values, name)
    else:
        clean[LABEL], note = ids_of_values(name, values, id2label, columns.renamed)
    return clean, note


def cell_text(value: object) -> str:
    """A cell of a label column as text; whole numbers without a fraction, missing values as nothing."""
    if isinstance(value, float | np.floating):
        return f"{value:.12g}"
    return "" if value is None else str(value).strip()


def _texts(column: pd.Series, name: str) -> list[str]:
    strange = [row for row, value in enumerate(column, 1) if not (value is None or isinstance(value, str))]
    if strange:
        raise TaskError(f"row {strange[0]} of {name} has a {column.name} that is no text; choose a column of texts.")
    values = [value or "" for value in column]
    empty = [row for row, value in enumerate(values, 1) if not value.strip()]
    if empty:
        raise TaskError(f"row {empty[0]} of {name} has no {column.name}; fill it in or remove the row.")
    return values


def _numbers(values: Sequence[str], name: str) -> list[float]:
    numbers = []
    for row, value in enumerate(values, 1):
        number = _number(value)
        if not math.isfinite(number):
            raise TaskError(
                f"row {row} of {name} has the label {value!r:.60}, but this checkpoint is a regression, whose labels "
                "are numbers."
            )
        numbers.append(number)
    return numbers


def _number(text: str) -> float:
    """NaN where it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _read(file: Path) -> pd.DataFrame:
    """The table in a file; its columns have different names, without white space around them. Missing is None."""
    import pandas as pd

    if not file.is_file():
        raise TaskError(f"there is no file {file}; give the path of a CSV, Parquet or JSONL file.")
    try:
        table = _parse(file)
    except UnicodeDecodeError as error:
        raise TaskError(f"{file.name} is not UTF-8 text; save it as UTF-8.") from error
    except pd.errors.ParserWarning as error:
        raise TaskError(
            f"row 1 of {file.name} has more cells than the header; put texts that hold a separator in quotes."
        ) from error
    except (ValueError, OSError) as error:  # of pandas' parsers and of pyarrow
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise TaskError(f"{file.name} cannot be read as a table ({reason:.150}); check its format.") from error
    names = [str(column).strip() for column in table.columns]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise TaskError(f"{file.name} has several columns called {twice[0]!r}; rename one.")
    table.columns = pd.Index(names)
    table = table.astype(object).where(table.notna(), None)
    # rows can share one text here, as in the file, but nowhere behind
    if sum(len(value) for name in names for value in table[name] if isinstance(value, str)) > MOST_CHARACTERS:
        raise TaskError(f"{file.name} holds more than {MOST_CHARACTERS:,} characters; give a smaller file.")
    return table


def _parse(file: Path) -> pd.DataFrame:
    import pandas as pd

    ending = file.suffix.lower()
    if ending in (".parquet", ".pq"):
        table = pd.read_parquet(file)
        for column, labels in _labels_inside(file).items():
            if column in table and pd.api.types.is_numeric_dtype(table[column]):  # anybody can have written them
                table[column] = [labels.get(value) for value in table[column]]
        return table
    if ending == ".jsonl":
        # numbers stay numbers and strings strings: a text "2020" must not become a date or a number
        return pd.read_json(file, lines=True, dtype=False, convert_axes=False, encoding="utf-8-sig")
    if ending not in (".csv", ".tsv"):
        raise TaskError(f"{file.name} is neither .csv, .tsv, .parquet nor .jsonl; save it as one of them.")
    with warnings.catch_warnings():
        # A first row longer than the header only makes pandas warn; longer ones below are errors anyway.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        # Everything as text: a label 1 must not become 1.0, nor a text "NA" a missing value.
        return pd.read_csv(
            file,
            sep="\t" if ending == ".tsv" else ",",
            dtype=str,
            keep_default_na=False,
            encoding="utf-8-sig",
            index_col=False,
        )


def _labels_inside(file: Path) -> dict[str, dict[object, str]]:
    """Names of the numbers in label columns of a Parquet file, where `datasets` wrote them into it.

    Without them a file's 0, 1 and 2 would be taken for the checkpoint's, whose order may be another.
    """
    import pyarrow.parquet as pq

    written = (pq.read_schema(file).metadata or {}).get(b"huggingface")
    try:
        features = json.loads(written or b"{}")["info"]["features"]
        return {
            column: {number: str(name) for number, name in enumerate(feature["names"])}
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}  # not as `datasets` writes it: the numbers stay numbers

"""What the columns of an uploaded file hold, and which of the checkpoint's labels its values stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import streamlit as st

from pgb_core import data_files, previewing
from pgb_core.data_files import LABEL, PAIR, TEXT, Columns, Preview
from pgb_core.errors import PGBError
from pgb_core.finetune_spec import labels_for
from pgb_core.label_order import ids_by_name, nameless
from ui import units, words

NONE = ""
MOST_MAPPED = 20
"""Values that a visitor may map one by one."""
_KEEP: dict[str, Any] = {"persist_state": "session"}


@dataclass(frozen=True)
class Choice:
    """Fields of a spec about the columns, and whether all is said that a run has to know."""

    fields: dict[str, Any] = field(default_factory=dict)
    complete: bool = True


def choose(
    path: str, key: str, label_names: Sequence[str] | None, *, regression: bool = False, learned: bool = False
) -> Choice:
    """Ask which columns of the training file at `path` hold what, and what its labels stand for.

    Args:
        key: of this upload: another file has other columns.
        label_names: the checkpoint's labels by id; None where they are not known yet.
        regression: whether its labels are numbers.
        learned: whether a new head is going to learn the labels of the file, whatever they are.
    """
    try:
        found = _preview(path)
    except PGBError as error:
        st.error(f"This file cannot be used: {units.plain(str(error).replace(Path(path).name, 'the file'))}")
        return Choice(complete=False)
    text, pair, label = _columns(found, key)
    if len({name for name in (text, pair, label) if name}) < 2 + bool(pair):
        st.warning("Text, second text and label must be different columns.")
        return Choice(complete=False)
    fields: dict[str, Any] = {
        "text_column": None if text == TEXT else text,
        "pair_column": None if pair == (PAIR if PAIR in found.columns else NONE) else pair,
        "label_column": None if label == LABEL else label,
    }
    if learned:
        return Choice(fields, _told_what_is_learned(found, label))
    if regression:
        return Choice(fields, _told_that_numbers_are_read(found, label))
    mapping = _labels(found, label, key, label_names)
    return Choice({**fields, "label_map": tuple(mapping or ())}, mapping is not None)


@st.cache_data(max_entries=16, ttl=3600, show_spinner="Reading the file …")
def _preview(path: str) -> Preview:
    """Of an upload, whose name is random and whose content never changes."""
    return previewing.preview_apart(Path(path))


def _columns(found: Preview, key: str) -> tuple[str, str, str]:
    guess = found.guess().names
    columns = list(found.columns)
    chosen = []
    roles = (("Text column", columns), ("Second text column", [NONE, *columns]), ("Label column", columns))
    for place, (title, options), name in zip(st.columns(3), roles, guess, strict=True):
        with place:
            chosen.append(
                st.selectbox(
                    title,
                    options,
                    options.index(name) if name in options else 0,
                    format_func=lambda column: column or "None",
                    key=f"{title}_{key}",
                    help=words.COLUMNS,
                    **_KEEP,
                )
            )
    text, pair, label = chosen
    return text, pair, label


def _told_what_is_learned(found: Preview, column: str) -> bool:
    """Say what a new head makes of a label column; False where it cannot learn it."""
    try:
        head, names = labels_for("csv", found, Columns(label=column))
    except PGBError as error:
        st.warning(units.plain(f"{str(error)[0].upper()}{str(error)[1:]}"))
        return False
    if any(not value for value, _ in found.values.get(column, ())):
        st.warning("Some rows have no label: fill them in, or remove the rows.")
        return False
    learned = f"{len(names)} labels, {_first(names)}" if head == "classification" else "the numbers, as a regression"
    st.caption(f"{units.several(found.rows, 'row')}. The new head learns {learned}.")
    return True


def _told_that_numbers_are_read(found: Preview, column: str) -> bool:
    """Say that a checkpoint gives values; False where the label column holds something else."""
    if column not in found.numbers:
        st.warning(
            f"This checkpoint is a regression, whose labels are numbers; “{units.plain(column)}” holds something else."
        )
        return False
    st.caption(f"{units.several(found.rows, 'row')}. The labels are read as numbers: this checkpoint gives values.")
    return True


def _labels(found: Preview, column: str, key: str, names: Sequence[str] | None) -> list[str] | None:
    """`VALUE=LABEL` for values that are not names of the checkpoint's labels; None while one is left open."""
    if column not in found.values:
        most = data_files.MOST_VALUES
        st.warning(f"“{units.plain(column)}” has more than {most} different values, which is much for a label.")
        return None
    counts = dict(found.values[column])
    summary = f"{units.several(found.rows, 'row')}, {units.several(len(counts), 'label')}"
    if names is None:
        st.caption(f"{summary}. The run compares them with the checkpoint's, by name.")
        return []
    id2label = dict(enumerate(names))
    known = ids_by_name(id2label, counts)
    if len(known) == len(counts):
        st.caption(f"{summary}; all of them are names of the checkpoint's labels.")
        return []
    if all(value in map(str, id2label) for value in counts):
        counts = {value: counts[value] for value in sorted(counts, key=int)}
        if nameless(id2label) or len(counts) > MOST_MAPPED:
            meanings = ", ".join(f"{value} is {units.plain(id2label[int(value)])}" for value in counts)
            st.caption(f"{summary}, taken as the numbers of the checkpoint's labels: {meanings}.")
            return []
        st.caption(f"{summary}. They are numbers: in the checkpoint's order, unless you say otherwise.")
        return _mapping(counts, key + column, names, {value: id2label[int(value)] for value in counts})
    return _mapping({value: count for value, count in counts.items() if value not in known}, key + column, names)


def _mapping(
    unknown: dict[str, int], key: str, names: Sequence[str], likely: Mapping[str, str] | None = None
) -> list[str] | None:
    """A box for each value; `likely` has the label that it stands for unless told otherwise."""
    if len(unknown) > MOST_MAPPED:
        st.warning(
            f"{len(unknown)} values are none of the checkpoint's labels ({_first(names)}): is this the label column?"
        )
        return None
    st.markdown("**Which of the checkpoint's labels are these?**", help=words.LABEL_MAP)
    options, entries, columns = list(dict.fromkeys(names)), [], st.columns(2)
    for n, (value, count) in enumerate(unknown.items()):
        title = f"“{units.plain(value)}”" if value else "No label"
        with columns[n % 2]:
            chosen = st.selectbox(
                f"{title} ({units.several(count, 'row')})",
                options,
                None if likely is None else options.index(likely[value]),
                placeholder="Choose a label",
                key=f"map_{value}_{key}",
                disabled=not value,
                **_KEEP,
            )
        if chosen is not None:
            entries.append(f"{value}={chosen}")
    if "" in unknown:
        st.warning("Some rows have no label: fill them in, or remove the rows.")
    return entries if len(entries) == len(unknown) else None


def _first(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(map(units.plain, names[:most])) + (" …" if len(names) > most else "")

"""Which number stands for which label: the checkpoint's order decides, and a source's labels are brought into it.

Two orders that are taken for one another cost nothing but accuracy, silently. So labels meet by name; by number only
where the checkpoint has no names; and a label that fits none, or several, is an error.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from pgb_core.errors import TaskError

_SPELLINGS: tuple[Callable[[str], str], ...] = (
    str.strip,
    lambda name: name.strip().casefold(),
    # one separator inside the name is like another, but a sign is none: `-1` is not `1`, `C#` is not `C`
    lambda name: re.sub(r"(?<=\w)(\s+|[_-])(?=\w)", " ", name.strip().casefold()),
)
"""Ways to compare label names, from strict to loose: `Not_Entailment` is `not entailment` by the last."""


def ids_by_name(id2label: Mapping[int, str], values: Iterable[str]) -> dict[str, int]:
    """Checkpoint id of each of `values` that is, by the strictest way possible, the name of exactly one label."""
    found: dict[str, int] = {}
    for spelled in _SPELLINGS:
        names = [spelled(name) for name in id2label.values()]
        counts = Counter(names)
        ids = {name: index for name, index in zip(names, id2label, strict=True) if counts[name] == 1}
        found = {value: ids[spelled(value)] for value in set(values) if spelled(value) in ids} | found
    return found


def nameless(id2label: Mapping[int, str]) -> bool:
    """Whether the checkpoint's labels are but numbered: LABEL_0, LABEL_1 and so on, or 0, 1 and so on."""
    return bool(id2label) and all(
        name.strip().casefold() in (f"label_{index}", str(index)) for index, name in id2label.items()
    )


def ids_of_task(task: str, labels: Sequence[str], id2label: Mapping[int, str]) -> dict[str, int]:
    """Checkpoint id of each of a task's `labels`, which are in the task's own order.

    Without names, and with as many labels, the checkpoint is taken to use the task's order; `order_note` says so.

    Raises:
        TaskError: the checkpoint lacks one of the labels, or has only numbers, and not as many.
    """
    if nameless(id2label) and len(id2label) == len(labels):
        return {label: index for index, label in enumerate(labels)}
    ids = ids_by_name(id2label, labels)
    unknown = [label for label in labels if label not in ids]
    if unknown:
        raise TaskError(
            f"the checkpoint's labels ({listed(id2label.values())}) do not include {unknown[0]!r} of task {task}; "
            "choose a checkpoint that was fine-tuned on this task."
        )
    return ids


def order_note(labels: Sequence[str], id2label: Mapping[int, str]) -> str | None:
    """What has to be said where labels met by number, or not all of them met; None where all met by name.

    >>> order_note(("no", "yes"), {0: "LABEL_0", 1: "LABEL_1"})
    "the checkpoint's labels have no names, so they are taken in the task's order: 0 is no, 1 is yes"
    >>> order_note(("no", "yes"), {0: "no", 1: "maybe", 2: "yes"})
    'the checkpoint also answers maybe, which this task has not, so such answers count as wrong'
    """
    if not labels:
        return None
    if nameless(id2label):
        return f"the checkpoint's labels have no names, so they are taken in the task's order: {_meanings(labels)}"
    own = set(ids_by_name(id2label, labels).values())
    others = [name for index, name in id2label.items() if index not in own]
    if not others:
        return None
    return f"the checkpoint also answers {listed(others)}, which this task has not, so such answers count as wrong"


def ids_of_values(
    source: str, values: Sequence[str], id2label: Mapping[int, str], renamed: Mapping[str, str] | None = None
) -> tuple[list[int], str | None]:
    """Checkpoint ids of a file's labels, row by row: all of them names, or all of them ids.

    Args:
        source: what the values are from, for errors.
        renamed: for some values, the checkpoint's label (or its id) that they stand for.

    Returns:
        The ids; and what has to be said where numbers were taken as ids of labels that have names.

    Raises:
        TaskError: a value names no label, or several.
    """
    new = {value: _target(source, value, label, id2label) for value, label in (renamed or {}).items()}
    others = [value for value in values if value not in new]
    by_name, by_id = ids_by_name(id2label, others), {str(index): index for index in id2label}
    for ids in (by_name, by_id):
        if all(value in ids for value in others):
            note = None
            if ids is by_id and others and not nameless(id2label):
                meanings = _meanings([id2label[index] for index in sorted(id2label)])
                note = f"the labels of {source} are numbers, taken as the checkpoint's: {meanings}"
            return [new[value] if value in new else ids[value] for value in values], note
    ids = max((by_name, by_id), key=lambda ids: sum(value in ids for value in others))  # what most of them are
    row, value = next((row, v) for row, v in enumerate(values, 1) if v not in ids and v not in new)
    raise TaskError(
        f"row {row} of {source} has the label {value!r:.60}, which names none, or several, of the checkpoint's labels: "
        f"{listed(id2label.values())} or, for all rows, 0 to {len(id2label) - 1}; a label map says which it stands for."
    )


def _target(source: str, value: str, label: str, id2label: Mapping[int, str]) -> int:
    found = ids_by_name(id2label, [label]).get(label)
    if found is None and label.strip().isdecimal() and int(label) in id2label:
        found = int(label)
    if found is None:
        raise TaskError(
            f"label {value!r:.60} of {source} is to stand for {label!r:.60}, which is none of the checkpoint's labels: "
            f"{listed(id2label.values())}."
        )
    return found


def _meanings(names: Sequence[str]) -> str:
    return listed((f"{index} is {name}" for index, name in enumerate(names)), most=20)


def listed(names: Iterable[object], most: int = 8) -> str:
    """The first of `names`, with commas between."""
    texts = [str(name) for name in names]
    return ", ".join(texts[:most]) + (", ..." if len(texts) > most else "")

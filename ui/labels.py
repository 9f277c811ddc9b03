"""Whether a task can go with a checkpoint, told by the names of its labels before a run is started."""

from __future__ import annotations

from collections.abc import Sequence

from pgb_core.families import Head
from pgb_core.tasks import Task


def fit(task: Task, labels: Sequence[str] | None, head: Head | None = None) -> bool:
    """Whether a checkpoint with `labels` and `head` can be scored on `task`; what is not known yet is left to the run.

    Spelling counts for less here than in the run, so that nothing is refused that it would accept.
    """
    head = head or ("regression" if labels is not None and len(labels) == 1 else None)
    if head not in ((None, "classification", "regression") if task.name == "csv" else (None, task.head)):
        return False
    if labels is None or task.labels is None:
        return True
    own, needed = [_loosely(name) for name in labels], [_loosely(name) for name in task.labels]
    nameless = [f"label{index}" for index in range(len(needed))]  # in the task's own order
    return own == nameless or set(needed) <= set(own)


def _loosely(name: str) -> str:
    return "".join(filter(str.isalnum, name.casefold()))

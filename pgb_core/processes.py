"""One run on several processes, each with a GPU of its own: `accelerate launch -m pgb_core prune ...`, or torchrun.

The first process is the run: it alone scores, prunes, measures and writes the run folder. The others wait until it
has a model to recover, which it lends them as a folder, train it together with the first (`recovery`) and end.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pgb_core import store
from pgb_core.errors import RunError, SpecError
from pgb_core.progress import Step
from pgb_core.run_folder import LENT

_LOOK_SECONDS = 0.2


def count() -> int:
    """Processes of this launch."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def first() -> bool:
    """Whether this process is the run, not one that only helps."""
    return int(os.environ.get("RANK", "0")) == 0


def take_gpu() -> None:
    """Have `cuda` mean this process's own GPU, if there are any."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))


def refuse_several(what: str) -> None:
    """Refuse what only one process may do.

    Raises:
        SpecError: there are several.
    """
    if count() > 1:
        raise SpecError(f"{what} runs on one process: do it by itself, without accelerate launch or torchrun.")


@contextmanager
def lent(folder: Path, write: Callable[[Path], object]) -> Iterator[None]:
    """Inside, the other processes, if there are any, find the model to recover that `write` puts into a folder."""
    if count() == 1:
        yield
        return
    with store.new_model(folder, LENT) as partial:
        write(partial)
    try:
        yield
    finally:
        shutil.rmtree(folder / LENT, ignore_errors=True)


def borrow(folder: Path, began: float, step: Step) -> Path | None:
    """Where the model to recover of the run in `folder` is, once it is there; None where the run ended before.

    Args:
        began: when this process was started, in seconds since the epoch: what was written before is of another run.
    """
    while True:
        status = _status(folder)
        if status is not None and status.updated > began:  # else it is of an earlier run in the same folder
            if not status.active:
                return None
            if (folder / LENT).is_dir():
                return folder / LENT
        step(0, 1, "waiting for the model to recover")
        time.sleep(_LOOK_SECONDS)


def _status(folder: Path) -> store.Status | None:
    try:
        return store.recorded_status(folder)
    except RunError:  # the run has not begun
        return None

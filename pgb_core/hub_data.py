"""Data sets of the Hugging Face Hub, at a pinned revision, or a copy of one in the data folder of the server.

`PGB_DATA_DIR/nyu-mll/glue` goes before the Hub: a server without a network needs no more than that folder. Either way
the rows come through `datasets.load_dataset`. Importing this module does not import `datasets`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pgb_core import hub
from pgb_core.errors import TaskError, raise_if_cancelled
from pgb_core.settings import get_settings

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Source:
    """A configuration of a data set on the Hub, and its splits."""

    repository: str
    """`owner/name`"""
    revision: str
    """The commit that is read."""
    config: str
    train: str = "train"
    evaluation: str = "validation"
    """GLUE's test splits have no labels: all the literature scores on these."""

    @property
    def copy(self) -> Path:
        """Where a copy of the whole data set would lie."""
        return get_settings().data_dir / self.repository


def load(source: Source, columns: Sequence[str]) -> tuple[Dataset, Dataset]:
    """The training and the evaluation split, with at least these columns.

    Raises:
        TaskError: the Hub is out of reach and nothing cached, or the data set is another than it should be.
    """
    import datasets

    datasets.disable_progress_bars()
    copied = source.copy.is_dir()
    path, revision = (str(source.copy), None) if copied else (source.repository, source.revision)
    splits = [source.train, source.evaluation]
    try:
        with nullcontext() if copied else hub.offline_unless_reachable(source.repository):
            train, evaluation = datasets.load_dataset(path, source.config, split=splits, revision=revision)
    except Exception as error:  # the library lets errors of its HTTP client, of files and of parsers through
        raise_if_cancelled(error)
        place = (
            f"from the server's copy ({type(error).__name__}); mend or remove that folder"
            if copied
            else f"from the Hub ({type(error).__name__}); check the network, put a copy of it into the server's data "
            "folder, or use a task that works offline"
        )
        raise TaskError(f"{source.repository} {source.config} cannot be loaded {place}.") from error
    for part in (train, evaluation):
        missing = sorted(set(columns) - set(part.column_names))
        if missing:
            raise TaskError(
                f"{source.repository} {source.config} has no column {missing[0]!r}; its format has changed."
            )
    return train, evaluation

"""Level of detail: a big matrix reduced to cells that a browser can draw and a page can afford."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

MAX_CELLS = 192
"""Along each axis: three overviews stand side by side, some 300 pixels wide each."""
How = Literal["extreme", "mean"]


@dataclass(frozen=True, eq=False)
class Pooled:
    """`cells` (r, c) float32, each standing for up to `row_step` x `column_step` entries; NaN where all are NaN."""

    cells: NDArray[np.float32]
    row_step: int
    column_step: int

    @property
    def exact(self) -> bool:
        """Whether a cell is one entry."""
        return self.row_step == self.column_step == 1

    def table(self) -> dict[str, NDArray[Any]]:
        """The cells by column; the first column and the headings name their first row and column."""
        rows: dict[str, NDArray[Any]] = {"from row": np.arange(self.cells.shape[0]) * self.row_step}
        return rows | {str(place * self.column_step): column for place, column in enumerate(self.cells.T)}


def pool(values: NDArray[np.float32], how: How, max_rows: int = MAX_CELLS, max_columns: int = MAX_CELLS) -> Pooled:
    """Reduce `values` (rows, columns) to at most `max_rows` x `max_columns` cells.

    "extreme" keeps the entry of the largest magnitude with its sign, "mean" averages; NaN entries do not count.
    """
    rows, columns = values.shape
    row_step, column_step = -(-rows // max_rows), -(-columns // max_columns)
    padding = (-rows % row_step, -columns % column_step)
    padded = np.pad(values.astype(np.float32), [(0, padding[0]), (0, padding[1])], constant_values=np.nan)
    tiles = padded.reshape(padded.shape[0] // row_step, row_step, -1, column_step)  # (r, row_step, c, column_step)
    if how == "extreme":
        highest: NDArray[Any] = np.fmax.reduce(
            np.fmax.reduce(tiles, axis=1), axis=2
        )  # NaN only where there is nothing else
        lowest: NDArray[Any] = np.fmin.reduce(np.fmin.reduce(tiles, axis=1), axis=2)
        cells = np.where(highest >= -lowest, highest, lowest)
    else:
        known = ~np.isnan(tiles)
        counts = known.sum(axis=(1, 3))
        sums = np.where(known, tiles, np.float32(0)).sum(axis=(1, 3))
        cells = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return Pooled(cells.astype(np.float32), row_step, column_step)

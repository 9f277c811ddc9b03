"""One weight of a matrix, followed from the checkpoint to the pruned model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pgb_core.layout import IntArray
from pgb_core.matrices import MatrixView


@dataclass(frozen=True)
class Followed:
    """What became of the weight at (`row`, `column`) of the original matrix, counted from 0."""

    row: int
    column: int
    permuted_row: int
    permuted_column: int
    row_group: int | None
    """Group of its row, from 1; None where the row is in no group."""
    column_group: int | None
    kept: bool
    dense: float | None
    """Value in the checkpoint; None where that is gone."""
    refit: float | None
    """Value in the pruned model; None where the weight was removed, or where the model is gone."""
    importance: float
    """Relative to the matrix's largest."""
    outranked: float
    """Share of the matrix's weights that are less important."""

    @property
    def group(self) -> int | None:
        """The group whose block it lies in; None where its row and its column do not meet in one."""
        return self.row_group if self.row_group == self.column_group else None


def follow(view: MatrixView, row: int, column: int) -> Followed:
    """The weight of `view` at (`row`, `column`) in original order.

    Raises:
        IndexError: the matrix has no such row or column.
    """
    layout = view.layout
    if not (0 <= row < layout.rows and 0 <= column < layout.columns):
        raise IndexError(f"({row}, {column}) lies outside of a {layout.rows} x {layout.columns} matrix")
    row_group, column_group = _group(layout.row_groups, row), _group(layout.column_groups, column)
    kept = row_group is not None and row_group == column_group
    if layout.support is not None:
        kept = kept and bool(layout.support[row, column])
    importance = view.importance[row, column]
    return Followed(
        row,
        column,
        int(np.flatnonzero(layout.row_order() == row)[0]),
        int(np.flatnonzero(layout.column_order() == column)[0]),
        row_group,
        column_group,
        kept,
        None if view.dense is None else float(view.dense[row, column]),
        float(view.pruned[row, column]) if kept and view.pruned is not None else None,
        float(importance),
        float(np.mean(view.importance < importance)),
    )


def explain(weight: Followed) -> str:
    """Why the weight was kept or removed, in a sentence."""
    if weight.group is not None:
        place = f"Its row and its column are both in group {weight.group}"
        return f"{place}, so it was kept." if weight.kept else f"{place}, but this weight itself was set to zero."
    if weight.row_group is None and weight.column_group is None:
        return "Neither its row nor its column is in a group, so it was removed."
    if weight.row_group is None or weight.column_group is None:
        inside, outside = ("row", "column") if weight.column_group is None else ("column", "row")
        number = weight.row_group or weight.column_group
        return f"Its {inside} is in group {number}, but its {outside} in no group, so it was removed."
    return (
        f"Its row is in group {weight.row_group} and its column in group {weight.column_group}: they meet in no block, "
        "so it was removed."
    )


def _group(groups: tuple[IntArray, ...], index: int) -> int | None:
    return next((g + 1 for g, members in enumerate(groups) if index in members), None)

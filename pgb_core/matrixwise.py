"""Layouts whose matrices have nothing to do with each other: groups of its own, or zeros of its own, for each.

Two methods need them. `pgb-paper` permutes every matrix by itself into blocks that tile it (`untied.py`); `magnitude`
keeps every matrix whole and sets single weights to zero (`magnitude.py`). As no matrix knows the order of another,
each gathers its inputs and scatters its outputs: between the matrices everything is in its original order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgb_core.layout import Block, BoolArray, Layout, LinearLayout, MatrixLayout, SublayerShape, unless_in_order


@dataclass(frozen=True)
class MatrixwiseLayout(Layout):
    """A layout for each matrix, in the order of `shape.matrices`.

    Raises:
        ValueError: the blocks of a matrix do not tile it, or it has zeros inside several blocks.
    """

    shape: SublayerShape
    per_matrix: tuple[MatrixLayout, ...]
    tied = False

    def __post_init__(self) -> None:
        if tuple(matrix.name for matrix in self.per_matrix) != self.shape.matrices:
            raise ValueError(f"A layout needs one entry for each of {', '.join(self.shape.matrices)}.")
        for matrix in self.per_matrix:
            for groups, size in ((matrix.row_groups, matrix.rows), (matrix.column_groups, matrix.columns)):
                if not np.array_equal(np.sort(np.concatenate(groups)), np.arange(size)):
                    raise ValueError(f"The groups of {matrix.name} do not tile it.")
            if matrix.support is not None and len(matrix.row_groups) > 1:
                raise ValueError(f"{matrix.name} has both groups and zeros.")

    @property
    def dropped(self) -> bool:
        return False

    @property
    def kept_units(self) -> int:
        return self.shape.units

    @property
    def cost(self) -> int:
        return sum(matrix.kept for matrix in self.per_matrix)

    @property
    def group_count(self) -> int:
        return max(len(matrix.row_groups) for matrix in self.per_matrix)

    @property
    def partial_entry(self) -> bool:
        return any(matrix.kept < matrix.rows * matrix.columns for matrix in self.per_matrix[:-1])

    @property
    def label(self) -> str:
        if self.untouched:
            return "untouched"
        if any(matrix.support is not None for matrix in self.per_matrix):
            return f"{1 - self.density:.1%} zeros"
        return "groups: " + ", ".join(f"{matrix.name} {len(matrix.row_groups)}" for matrix in self.per_matrix)

    def matrices(self) -> tuple[MatrixLayout, ...]:
        return self.per_matrix

    def entry_linears(self) -> tuple[LinearLayout, ...]:
        """One linear layer for each entry matrix."""
        return tuple(_linear(matrix, n * self.shape.inner) for n, matrix in enumerate(self.per_matrix[:-1]))

    def exit_linear(self) -> LinearLayout:
        return _linear(self.per_matrix[-1])

    def manifest(self) -> dict[str, Any]:
        return {
            "matrices": [
                {
                    "name": matrix.name,
                    "groups": [{"rows": len(block.rows), "columns": len(block.columns)} for block in linear.blocks],
                    "gather": linear.gather is not None,
                    "scatter": linear.scatter is not None,
                    "zeros": matrix.support is not None,
                }
                for matrix, linear in zip(self.per_matrix, (*self.entry_linears(), self.exit_linear()), strict=True)
            ]
        }


def whole_matrix(name: str, rows: int, columns: int) -> MatrixLayout:
    """Every weight kept, in its original order."""
    return MatrixLayout(name, rows, columns, (np.arange(rows),), (np.arange(columns),))


def sparse_matrix(name: str, support: BoolArray) -> MatrixLayout:
    """The weights kept where `support` (rows, columns) is true, in their original order."""
    whole = whole_matrix(name, *support.shape)
    return replace(whole, support=support)


def largest(values: NDArray[Any], share: float) -> BoolArray:
    """Of the shape of `values`, true for `share` of them, rounded down: the largest."""
    removed = values.size - math.floor(share * values.size + 1e-6)
    kept = np.zeros(values.size, dtype=bool)
    kept[np.argpartition(values.ravel(), min(removed, values.size - 1))[removed:]] = True
    return kept.reshape(values.shape)


def matrix_sizes(shape: SublayerShape) -> dict[str, tuple[int, int]]:
    """(rows, columns) of each matrix of a sublayer, by name."""
    *entries, last = shape.matrices
    return dict.fromkeys(entries, (shape.inner, shape.hidden)) | {last: (shape.hidden, shape.inner)}


def _linear(matrix: MatrixLayout, first_row: int = 0) -> LinearLayout:
    """How a matrix is executed whose inputs and outputs are in their original order.

    Args:
        first_row: place of its first row among the stacked rows of the entry matrices.
    """
    blocks = tuple(
        Block(r + first_row, c, None if matrix.support is None else matrix.support[np.ix_(r, c)])
        for r, c in zip(matrix.row_groups, matrix.column_groups, strict=True)
    )
    return LinearLayout(
        blocks,
        gather=unless_in_order(matrix.column_order(), matrix.columns),
        scatter=unless_in_order(np.argsort(matrix.row_order()), matrix.rows),
    )

"""Layouts: which weights of a sublayer stay, as groups of units, inputs and outputs.

A *sublayer* is the attention or the feed-forward half of a layer. Both are the same thing here: entry matrices that
read the hidden state (query, key and value; or intermediate), *units* in the middle (heads of `width` rows; or neurons
of one row), and an exit matrix that writes the hidden state (output). The permutations are tied: the entry matrices
share one grouping of the inputs, and the exit matrix's columns follow the units. `Group` g keeps

    entry[rows of units_g, columns_g]    and    exit[rows_g, columns of units_g]

and everything outside the groups is removed. Listing the groups one after another permutes every matrix to
block-diagonal form. G = 1 with all units is an untouched sublayer, G = 1 with some units classical structured pruning
(a *rectangle*), G = 0 a dropped sublayer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
Kind = Literal["attention", "feed_forward"]

ENTRY_NAMES: dict[Kind, tuple[str, ...]] = {"attention": ("query", "key", "value"), "feed_forward": ("intermediate",)}
EXIT_NAME = "output"
UNIT_NAMES: dict[Kind, str] = {"attention": "heads", "feed_forward": "neurons"}


@dataclass(frozen=True)
class SublayerShape:
    """Sizes of a dense sublayer: `hidden` inputs and outputs, `units` of `width` rows each."""

    kind: Kind
    hidden: int
    units: int
    width: int

    @property
    def inner(self) -> int:
        """Rows of each entry matrix, which are the columns of the exit matrix."""
        return self.units * self.width

    @property
    def matrices(self) -> tuple[str, ...]:
        """Matrix names in the order of the forward pass, the exit last."""
        return (*ENTRY_NAMES[self.kind], EXIT_NAME)

    @property
    def weights(self) -> int:
        """Encoder weights of the dense sublayer."""
        return len(self.matrices) * self.hidden * self.inner


@dataclass(frozen=True, eq=False)
class Group:
    """One group: `units` (u,), the input `columns` (c,) they read and the output `rows` (r,) they write."""

    units: IntArray
    columns: IntArray
    rows: IntArray


@dataclass(frozen=True)
class MatrixLayout:
    """The blocks of one matrix (rows x columns): block g is `row_groups[g]` x `column_groups[g]`."""

    name: str
    rows: int
    columns: int
    row_groups: tuple[IntArray, ...]
    column_groups: tuple[IntArray, ...]

    @property
    def kept(self) -> int:
        """Weights inside the blocks."""
        return sum(len(r) * len(c) for r, c in zip(self.row_groups, self.column_groups, strict=True))

    @property
    def density(self) -> float:
        """Share of the matrix's weights that stay."""
        return self.kept / (self.rows * self.columns)

    def mask(self) -> NDArray[np.bool_]:
        """(rows, columns), true where a weight stays."""
        mask = np.zeros((self.rows, self.columns), dtype=bool)
        for r, c in zip(self.row_groups, self.column_groups, strict=True):
            mask[np.ix_(r, c)] = True
        return mask

    def row_order(self) -> IntArray:
        """(rows,) original index at each permuted place: the groups one after another, rows in no group last."""
        return listing(self.row_groups, self.rows)

    def column_order(self) -> IntArray:
        """(columns,) original index at each permuted place: the groups one after another, the rest last."""
        return listing(self.column_groups, self.columns)


@dataclass(frozen=True)
class SublayerLayout:
    """The groups of one sublayer."""

    shape: SublayerShape
    groups: tuple[Group, ...]

    @property
    def dropped(self) -> bool:
        return not self.groups

    @property
    def kept_units(self) -> int:
        """Heads or neurons that stay."""
        return sum(len(group.units) for group in self.groups)

    @property
    def untouched(self) -> bool:
        return self.cost == self.shape.weights

    @property
    def cost(self) -> int:
        """Encoder weights that stay."""
        entries = len(ENTRY_NAMES[self.shape.kind])
        return sum(len(g.units) * self.shape.width * (entries * len(g.columns) + len(g.rows)) for g in self.groups)

    @property
    def density(self) -> float:
        return self.cost / self.shape.weights

    def unit_rows(self, group: Group) -> IntArray:
        """(units * width,) rows of the entry matrices that belong to the units of `group`, unit by unit."""
        return unit_rows(group.units, self.shape.width)

    def matrices(self) -> tuple[MatrixLayout, ...]:
        """The layout of each matrix, in the order of `shape.matrices`."""
        shape = self.shape
        inner = tuple(self.unit_rows(group) for group in self.groups)
        columns = tuple(group.columns for group in self.groups)
        rows = tuple(group.rows for group in self.groups)
        entries = tuple(
            MatrixLayout(name, shape.inner, shape.hidden, inner, columns) for name in ENTRY_NAMES[shape.kind]
        )
        return (*entries, MatrixLayout(EXIT_NAME, shape.hidden, shape.inner, rows, inner))


def untouched_layout(shape: SublayerShape) -> SublayerLayout:
    """Every weight kept: one group of all units, inputs and outputs in their original order."""
    return rectangle_layout(shape, np.arange(shape.units))


def rectangle_layout(shape: SublayerShape, units: IntArray) -> SublayerLayout:
    """Classical structured pruning: the given heads or neurons with all inputs and outputs."""
    everything = np.arange(shape.hidden)
    return SublayerLayout(shape, (Group(np.asarray(units, dtype=np.int64), everything, everything),))


def dropped_layout(shape: SublayerShape) -> SublayerLayout:
    """Nothing kept."""
    return SublayerLayout(shape, ())


def unit_rows(units: IntArray, width: int) -> IntArray:
    """(u * width,) rows of `units` when each unit owns `width` consecutive rows."""
    return (np.asarray(units, dtype=np.int64)[:, None] * width + np.arange(width)).reshape(-1)


def listing(groups: Sequence[IntArray], size: int) -> IntArray:
    """(size,) a bijection: the members of the groups one after another, then the indices in no group, ascending."""
    members = np.concatenate([np.asarray(g, dtype=np.int64) for g in groups]) if groups else np.empty(0, dtype=np.int64)
    rest = np.setdiff1d(np.arange(size), members, assume_unique=True)
    return np.concatenate([members, rest])

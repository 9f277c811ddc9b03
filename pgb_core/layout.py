"""Layouts: which weights of a sublayer stay, as groups of units, inputs and outputs.

A *sublayer* is the attention or the feed-forward half of a layer. Both are the same thing here: entry matrices that
read the hidden state (query, key and value; or intermediate), *units* in the middle (heads of `width` rows; or neurons
of one row), and an exit matrix that writes the hidden state (output). The permutations are tied: the entry matrices
share one grouping of the inputs, and the exit matrix's columns follow the units. `Group` g keeps

    entry[rows of units_g, columns_g]    and    exit[rows_g, columns of units_g]

and everything outside the groups is removed. Listing the groups one after another permutes every matrix to
block-diagonal form. G = 1 with all units is an untouched sublayer, G = 1 with some units classical structured pruning
(a *rectangle*), G = 0 a dropped sublayer.

`Layout` is what the other modules ask of any layout; in `matrixwise.py` every matrix has a layout of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
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


@dataclass(frozen=True, eq=False)
class MatrixLayout:
    """The blocks of one matrix (rows x columns): block g is `row_groups[g]` x `column_groups[g]`."""

    name: str
    rows: int
    columns: int
    row_groups: tuple[IntArray, ...]
    column_groups: tuple[IntArray, ...]
    support: BoolArray | None = None
    """(rows, columns), true where a weight inside the blocks stays; None: everywhere."""

    @property
    def kept(self) -> int:
        """Weights that stay."""
        return sum(self.block_kept())

    @property
    def density(self) -> float:
        """Share of the matrix's weights that stay."""
        return self.kept / (self.rows * self.columns)

    def block_kept(self) -> tuple[int, ...]:
        """Weights that stay in each block."""
        pairs = zip(self.row_groups, self.column_groups, strict=True)
        if self.support is None:
            return tuple(len(r) * len(c) for r, c in pairs)
        return tuple(int(np.count_nonzero(self.support[np.ix_(r, c)])) for r, c in pairs)

    def block_sums(self, values: NDArray[Any]) -> tuple[float, ...]:
        """Sum of `values` (rows, columns) over the weights that stay in each block."""
        kept = values if self.support is None else np.where(self.support, values, 0)
        pairs = zip(self.row_groups, self.column_groups, strict=True)
        return tuple(float(kept[np.ix_(r, c)].sum(dtype=np.float64)) for r, c in pairs)

    def mask(self) -> BoolArray:
        """(rows, columns), true where a weight stays."""
        mask = np.zeros((self.rows, self.columns), dtype=bool)
        for r, c in zip(self.row_groups, self.column_groups, strict=True):
            mask[np.ix_(r, c)] = True
        return mask if self.support is None else mask & self.support

    def row_order(self) -> IntArray:
        """(rows,) original index at each permuted place: the groups one after another, rows in no group last."""
        return listing(self.row_groups, self.rows)

    def column_order(self) -> IntArray:
        """(columns,) original index at each permuted place: the groups one after another, the rest last."""
        return listing(self.column_groups, self.columns)


@dataclass(frozen=True, eq=False)
class Block:
    """What one block of an executed linear layer holds: the dense weights `rows` (r,) x `columns` (c,).

    Rows of an entry count through all entry matrices of the sublayer, one below the other (query, key, value).
    """

    rows: IntArray
    columns: IntArray
    support: BoolArray | None = None
    """(r, c), true where a weight stays; None: everywhere."""


@dataclass(frozen=True, eq=False)
class LinearLayout:
    """One linear layer of a pruned sublayer as it is executed: each block reads its columns and gives its rows."""

    blocks: tuple[Block, ...]
    parts: int = 1
    """Matrices whose rows each block stacks."""
    rest: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """Rows in no block, which are their bias."""
    gather: IntArray | None = None
    """The input to be read at each place, where the inputs do not come in the order of the blocks already."""
    scatter: IntArray | None = None
    """Where each output is found in `order`, where the outputs have to be in another order than that."""

    @property
    def order(self) -> IntArray:
        """The rows in the order in which they are computed: the blocks one after another, then the rest."""
        return np.concatenate([*(block.rows for block in self.blocks), self.rest])


class Layout(ABC):
    """What stays of one sublayer."""

    shape: SublayerShape
    tied: bool
    """Whether the matrices share their groups: each group owns whole units."""

    @property
    def untouched(self) -> bool:
        return self.cost == self.shape.weights

    @property
    def density(self) -> float:
        return self.cost / self.shape.weights

    @property
    @abstractmethod
    def dropped(self) -> bool: ...

    @property
    @abstractmethod
    def kept_units(self) -> int:
        """Heads or neurons that stay."""

    @property
    @abstractmethod
    def cost(self) -> int:
        """Encoder weights that stay."""

    @property
    @abstractmethod
    def group_count(self) -> int:
        """Groups, at most, of a matrix."""

    @property
    @abstractmethod
    def partial_entry(self) -> bool:
        """Whether an entry matrix lost weights of rows that it keeps: its refit then has something to make up for."""

    @property
    @abstractmethod
    def label(self) -> str:
        """In words, e.g. `2 groups, 768 neurons`."""

    @abstractmethod
    def matrices(self) -> tuple[MatrixLayout, ...]:
        """The layout of each matrix, in the order of `shape.matrices`."""

    @abstractmethod
    def entry_linears(self) -> tuple[LinearLayout, ...]:
        """How the entry is executed; nothing when the sublayer is dropped."""

    @abstractmethod
    def exit_linear(self) -> LinearLayout:
        """How the exit is executed; without blocks when the sublayer is dropped."""

    @abstractmethod
    def manifest(self) -> dict[str, Any]:
        """The sizes that a reader of the saved model needs, for its pgb.json."""


@dataclass(frozen=True)
class SublayerLayout(Layout):
    """The tied groups of one sublayer."""

    shape: SublayerShape
    groups: tuple[Group, ...]
    tied = True

    @property
    def dropped(self) -> bool:
        return not self.groups

    @property
    def kept_units(self) -> int:
        return sum(len(group.units) for group in self.groups)

    @property
    def cost(self) -> int:
        entries = len(ENTRY_NAMES[self.shape.kind])
        return sum(len(g.units) * self.shape.width * (entries * len(g.columns) + len(g.rows)) for g in self.groups)

    @property
    def group_count(self) -> int:
        return len(self.groups)

    @property
    def partial_entry(self) -> bool:
        return any(len(group.columns) < self.shape.hidden for group in self.groups)

    @property
    def label(self) -> str:
        if self.dropped:
            return "dropped"
        if self.untouched:
            return "untouched"
        units = f"{self.kept_units} {UNIT_NAMES[self.shape.kind]}"
        if self.kept_units == 1:
            units = units.removesuffix("s")
        return units if len(self.groups) == 1 else f"{len(self.groups)} groups, {units}"

    def unit_rows(self, group: Group) -> IntArray:
        """(units * width,) rows of the entry matrices that belong to the units of `group`, unit by unit."""
        return unit_rows(group.units, self.shape.width)

    def matrices(self) -> tuple[MatrixLayout, ...]:
        shape = self.shape
        inner = tuple(self.unit_rows(group) for group in self.groups)
        columns = tuple(group.columns for group in self.groups)
        rows = tuple(group.rows for group in self.groups)
        entries = tuple(
            MatrixLayout(name, shape.inner, shape.hidden, inner, columns) for name in ENTRY_NAMES[shape.kind]
        )
        return (*entries, MatrixLayout(EXIT_NAME, shape.hidden, shape.inner, rows, inner))

    def entry_linears(self) -> tuple[LinearLayout, ...]:
        """One linear layer, whose blocks stack the entry matrices; its outputs stay in the order of the groups."""
        if self.dropped:
            return ()
        parts = len(ENTRY_NAMES[self.shape.kind])
        first = np.arange(parts)[:, None] * self.shape.inner
        blocks = tuple(Block((first + self.unit_rows(g)).reshape(-1), g.columns) for g in self.groups)
        columns = np.concatenate([g.columns for g in self.groups])
        return (LinearLayout(blocks, parts, gather=unless_in_order(columns, self.shape.hidden)),)

    def exit_linear(self) -> LinearLayout:
        blocks = tuple(Block(g.rows, self.unit_rows(g)) for g in self.groups)
        order = listing([g.rows for g in self.groups], self.shape.hidden)
        rest = order[sum(len(g.rows) for g in self.groups) :]
        return LinearLayout(blocks, rest=rest, scatter=unless_in_order(np.argsort(order), self.shape.hidden))

    def manifest(self) -> dict[str, Any]:
        moved = [linear.gather is not None for linear in self.entry_linears()]
        return {
            "groups": [{"units": len(g.units), "columns": len(g.columns), "rows": len(g.rows)} for g in self.groups],
            "gather": any(moved),
            "scatter": self.exit_linear().scatter is not None,
        }


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


def unless_in_order(order: IntArray, size: int) -> IntArray | None:
    """`order`, or None when it is 0, 1, ..., size - 1."""
    return None if np.array_equal(order, np.arange(size)) else order

"""Layouts of matrices that stand alone: what they keep, and how they are executed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgb_core.layout import MatrixLayout, SublayerShape
from pgb_core.matrixwise import MatrixwiseLayout, matrix_sizes, whole_matrix

ATTENTION = SublayerShape("attention", hidden=12, units=3, width=4)
FEED_FORWARD = SublayerShape("feed_forward", hidden=12, units=20, width=1)


def whole(shape: SublayerShape, **others: MatrixLayout) -> MatrixwiseLayout:
    """Every matrix whole but the ones that are given."""
    sizes = matrix_sizes(shape).items()
    return MatrixwiseLayout(shape, tuple(others.get(name) or whole_matrix(name, *size) for name, size in sizes))


@st.composite
def layouts(draw: st.DrawFn) -> MatrixwiseLayout:
    """Any valid layout: blocks of any sizes, or zeros."""
    shape = draw(
        st.builds(SublayerShape, st.just("attention"), st.integers(4, 12), st.integers(2, 5), st.integers(1, 4))
        | st.builds(SublayerShape, st.just("feed_forward"), st.integers(4, 12), st.integers(2, 20), st.just(1))
    )

    def tile(size: int, count: int) -> tuple[np.ndarray, ...]:
        order = np.array(draw(st.permutations(range(size))), dtype=np.int64)
        cuts = draw(st.lists(st.integers(1, size - 1), min_size=count - 1, max_size=count - 1, unique=True))
        return tuple(np.split(order, sorted(cuts)))

    found: list[MatrixLayout] = []
    for name, (rows, columns) in matrix_sizes(shape).items():
        if draw(st.booleans()):
            support = np.random.default_rng(draw(st.integers(0, 99))).random((rows, columns)) < 0.5
            found.append(MatrixLayout(name, rows, columns, (np.arange(rows),), (np.arange(columns),), support))
        else:
            count = draw(st.integers(1, min(4, rows, columns)))
            found.append(MatrixLayout(name, rows, columns, tile(rows, count), tile(columns, count)))
    return MatrixwiseLayout(shape, tuple(found))


@given(layouts())
def test_the_price_is_the_number_of_kept_weights(layout: MatrixwiseLayout) -> None:
    masks = [matrix.mask() for matrix in layout.matrices()]
    assert layout.cost == sum(int(mask.sum()) for mask in masks)
    assert layout.density == pytest.approx(layout.cost / sum(mask.size for mask in masks))
    for matrix, mask in zip(layout.matrices(), masks, strict=True):
        assert matrix.kept == sum(matrix.block_kept()) == mask.sum()
        values = np.random.default_rng(0).random(mask.shape)
        assert sum(matrix.block_sums(values)) == pytest.approx(values[mask].sum())
        for kept, total in zip(matrix.block_kept(), matrix.block_sums(np.ones(mask.shape)), strict=True):
            assert kept == total
    assert layout.partial_entry == any(not mask.all() for mask in masks[:-1])
    assert layout.kept_units == layout.shape.units
    assert not layout.dropped


@given(layouts())
def test_blocks_tile_and_permutations_are_bijections(layout: MatrixwiseLayout) -> None:
    for matrix in layout.matrices():
        assert sorted(matrix.row_order()) == list(range(matrix.rows))
        assert sorted(matrix.column_order()) == list(range(matrix.columns))
        # each row and each column lies in exactly one block
        assert sum(map(len, matrix.row_groups)) == matrix.rows
        assert sum(map(len, matrix.column_groups)) == matrix.columns


@given(layouts())
def test_gathering_multiplying_and_scattering_gives_the_masked_matrix(layout: MatrixwiseLayout) -> None:
    """The linear layers as they say of themselves, in numpy, against the masks."""
    rng = np.random.default_rng(0)
    linears = (*layout.entry_linears(), layout.exit_linear())
    stacked = rng.random((layout.shape.inner * (len(linears) - 1), layout.shape.hidden))
    dense = [*np.split(stacked, len(linears) - 1), rng.random((layout.shape.hidden, layout.shape.inner))]
    for n, (linear, matrix) in enumerate(zip(linears, layout.matrices(), strict=True)):
        source = dense[-1] if n == len(linears) - 1 else stacked
        x = rng.random(matrix.columns)
        read = x if linear.gather is None else x[linear.gather]
        outputs, place = [], 0
        for block in linear.blocks:
            weights = source[np.ix_(block.rows, block.columns)]
            weights = weights if block.support is None else weights * block.support
            outputs.append(weights @ read[place : place + len(block.columns)])
            place += len(block.columns)
        y = np.concatenate(outputs)
        y = y if linear.scatter is None else y[linear.scatter]
        np.testing.assert_allclose(y, (dense[n] * matrix.mask()) @ x)


@pytest.mark.parametrize("shape", [ATTENTION, FEED_FORWARD])
def test_whole_matrices_are_untouched_and_move_nothing(shape: SublayerShape) -> None:
    layout = whole(shape)
    assert layout.untouched
    assert not layout.partial_entry
    assert (layout.density, layout.group_count, layout.label) == (1.0, 1, "untouched")
    assert all(linear.gather is linear.scatter is None for linear in (*layout.entry_linears(), layout.exit_linear()))


def test_labels_say_what_was_done_to_each_matrix() -> None:
    halves = (np.arange(0, 12, 2), np.arange(1, 12, 2))
    assert whole(ATTENTION, key=MatrixLayout("key", 12, 12, halves, halves)).label == (
        "groups: query 1, key 2, value 1, output 1"
    )
    support = np.zeros((20, 12), dtype=bool)
    support[:5] = True
    zeros = MatrixLayout("intermediate", 20, 12, (np.arange(20),), (np.arange(12),), support)
    assert whole(FEED_FORWARD, intermediate=zeros).label == "37.5% zeros"


def test_what_does_not_tile_is_refused() -> None:
    halves, thirds = (np.arange(6), np.arange(6, 12)), (np.arange(4), np.arange(4, 8), np.arange(8, 11))
    overlapping = (np.arange(7), np.arange(5, 12))
    for rows in (thirds, overlapping):
        with pytest.raises(ValueError, match="do not tile"):
            whole(ATTENTION, value=MatrixLayout("value", 12, 12, rows, halves))
    with pytest.raises(ValueError, match="both groups and zeros"):
        whole(ATTENTION, value=MatrixLayout("value", 12, 12, halves, halves, np.ones((12, 12), dtype=bool)))
    with pytest.raises(ValueError, match="one entry for each of query, key, value, output"):
        MatrixwiseLayout(ATTENTION, whole(FEED_FORWARD).per_matrix)

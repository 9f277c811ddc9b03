"""Layouts: groups partition what they keep, permutations are bijections, and prices agree with masks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgb_core.layout import (
    Group,
    SublayerLayout,
    SublayerShape,
    dropped_layout,
    listing,
    rectangle_layout,
    unit_rows,
    untouched_layout,
)

ATTENTION = SublayerShape("attention", hidden=12, units=3, width=4)
FEED_FORWARD = SublayerShape("feed_forward", hidden=12, units=20, width=1)


@st.composite
def layouts(draw: st.DrawFn) -> SublayerLayout:
    """Any valid layout: each group gets at least one unit, column and row; some may be in no group."""
    shape = draw(
        st.builds(SublayerShape, st.just("attention"), st.integers(4, 16), st.integers(2, 6), st.integers(1, 5))
        | st.builds(SublayerShape, st.just("feed_forward"), st.integers(4, 16), st.integers(2, 30), st.just(1))
    )
    count = draw(st.integers(0, min(4, shape.units, shape.hidden)))

    def parts(size: int) -> list[np.ndarray]:
        order = np.array(draw(st.permutations(range(size))), dtype=np.int64)
        cuts = sorted(draw(st.lists(st.integers(1, size), min_size=count, max_size=count, unique=True)))
        return [np.sort(part) for part in np.split(order, cuts)[:count]]

    triples = zip(parts(shape.units), parts(shape.hidden), parts(shape.hidden), strict=True)
    return SublayerLayout(shape, tuple(Group(*triple) for triple in triples))


@given(layouts())
def test_orders_are_bijections_that_make_the_mask_block_diagonal(layout: SublayerLayout) -> None:
    for matrix in layout.matrices():
        rows, columns = matrix.row_order(), matrix.column_order()
        assert sorted(rows) == list(range(matrix.rows))
        assert sorted(columns) == list(range(matrix.columns))

        expected = np.zeros((matrix.rows, matrix.columns), dtype=bool)
        top = left = 0
        for row_group, column_group in zip(matrix.row_groups, matrix.column_groups, strict=True):
            expected[top : top + len(row_group), left : left + len(column_group)] = True
            top, left = top + len(row_group), left + len(column_group)
        np.testing.assert_array_equal(matrix.mask()[np.ix_(rows, columns)], expected)


@given(layouts())
def test_the_price_is_the_number_of_kept_weights(layout: SublayerLayout) -> None:
    masks = [matrix.mask() for matrix in layout.matrices()]
    assert layout.cost == sum(int(mask.sum()) for mask in masks)
    assert layout.cost == sum(matrix.kept for matrix in layout.matrices())
    assert layout.shape.weights == sum(mask.size for mask in masks)
    assert layout.density == pytest.approx(layout.cost / layout.shape.weights)
    for matrix, mask in zip(layout.matrices(), masks, strict=True):
        assert matrix.density == pytest.approx(mask.mean())


@given(layouts())
def test_the_permutations_are_tied(layout: SublayerLayout) -> None:
    *entries, exit_ = layout.matrices()
    for entry in entries:
        np.testing.assert_array_equal(entry.row_order(), exit_.column_order())
        np.testing.assert_array_equal(entry.column_order(), entries[0].column_order())
    assert layout.kept_units * layout.shape.width == sum(len(rows) for rows in exit_.column_groups)


@given(layouts())
def test_units_stay_whole(layout: SublayerLayout) -> None:
    for group in layout.groups:
        rows = layout.unit_rows(group)
        assert len(rows) == len(group.units) * layout.shape.width
        np.testing.assert_array_equal(np.unique(rows // layout.shape.width), np.sort(group.units))


@pytest.mark.parametrize("shape", [ATTENTION, FEED_FORWARD])
def test_untouched_keeps_everything_in_its_place(shape: SublayerShape) -> None:
    layout = untouched_layout(shape)
    assert layout.untouched
    assert not layout.dropped
    assert (layout.density, layout.kept_units) == (1.0, shape.units)
    for matrix in layout.matrices():
        assert matrix.mask().all()
        np.testing.assert_array_equal(matrix.row_order(), np.arange(matrix.rows))


@pytest.mark.parametrize("shape", [ATTENTION, FEED_FORWARD])
def test_dropped_keeps_nothing(shape: SublayerShape) -> None:
    layout = dropped_layout(shape)
    assert layout.dropped
    assert not layout.untouched
    assert (layout.cost, layout.density, layout.kept_units) == (0, 0.0, 0)
    assert [matrix.name for matrix in layout.matrices()] == list(shape.matrices)
    for matrix in layout.matrices():
        assert not matrix.mask().any()
        np.testing.assert_array_equal(matrix.column_order(), np.arange(matrix.columns))


def test_a_rectangle_keeps_whole_heads() -> None:
    layout = rectangle_layout(ATTENTION, np.array([0, 2]))
    query, *_, output = layout.matrices()
    kept = [0, 1, 2, 3, 8, 9, 10, 11]
    assert np.flatnonzero(query.mask().all(axis=1)).tolist() == kept
    assert np.flatnonzero(output.mask().all(axis=0)).tolist() == kept
    assert layout.cost == 4 * 12 * 8
    assert not layout.untouched


def test_sizes_of_known_encoders() -> None:
    def encoder(layers: int, hidden: int, heads: int, inner: int) -> int:
        attention = SublayerShape("attention", hidden, heads, hidden // heads)
        feed_forward = SublayerShape("feed_forward", hidden, inner, 1)
        return layers * (attention.weights + feed_forward.weights)

    assert encoder(12, 768, 12, 3072) == 84_934_656  # BERT-base
    assert encoder(6, 384, 12, 1536) == 10_616_832  # MiniLM-L6


def test_matrix_shapes_and_names() -> None:
    assert ATTENTION.matrices == ("query", "key", "value", "output")
    assert FEED_FORWARD.matrices == ("intermediate", "output")
    assert [(m.rows, m.columns) for m in untouched_layout(FEED_FORWARD).matrices()] == [(20, 12), (12, 20)]


def test_unit_rows_and_listing() -> None:
    assert unit_rows(np.array([2, 0]), 3).tolist() == [6, 7, 8, 0, 1, 2]
    assert listing([np.array([4, 1]), np.array([2])], 6).tolist() == [4, 1, 2, 0, 3, 5]
    assert listing([], 3).tolist() == [0, 1, 2]

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgb_core.figures.permuting import MOVES, animation, drawn, halfway, step_table, steps
from pgb_core.following import follow
from tests.figures.test_matrix import MEGABYTE, make_view


@given(st.integers(1, 60), st.floats(0, 1), st.integers(0, 9))
def test_every_order_on_the_way_is_a_permutation(length: int, share: float, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(length)
    np.testing.assert_array_equal(np.sort(halfway(order, share)), np.arange(length))
    np.testing.assert_array_equal(halfway(order, 0.0), np.arange(length))
    np.testing.assert_array_equal(halfway(order, 1.0), order)


def test_steps_go_from_the_original_order_over_the_columns_to_the_cut() -> None:
    view = make_view(40, 32)
    moves = steps(view)
    assert len(moves) == 2 * MOVES + 2
    np.testing.assert_array_equal(moves[0].rows, np.arange(40))
    np.testing.assert_array_equal(moves[MOVES].rows, np.arange(40))
    np.testing.assert_array_equal(moves[MOVES].columns, view.layout.column_order())
    np.testing.assert_array_equal(moves[-2].rows, view.layout.row_order())
    assert [move.cut for move in moves] == [False] * (2 * MOVES + 1) + [True]


def test_the_share_inside_the_outlines_is_that_of_the_places_of_the_groups() -> None:
    view = make_view(40, 32)
    table = step_table(steps(view))
    assert [row["step"] for row in table] == list(range(2 * MOVES + 2))
    in_place = np.zeros((40, 32), dtype=bool)
    in_place[np.ix_(view.layout.row_order(), view.layout.column_order())] = view.layout.mask()[
        np.ix_(view.layout.row_order(), view.layout.column_order())
    ]
    kept = view.importance[in_place].sum() / view.importance.sum()
    assert table[-2]["inside"] == pytest.approx(kept, rel=1e-5)
    permuted_mask = view.layout.mask()[np.ix_(view.layout.row_order(), view.layout.column_order())]
    first = view.importance[permuted_mask].sum() / view.importance.sum()  # the same places in original order
    assert table[0]["inside"] == pytest.approx(first, rel=1e-5)


def test_frames_show_the_weights_in_their_order_and_the_last_one_only_the_groups() -> None:
    view = make_view(40, 32)
    moves = steps(view)
    figure = animation(view, moves, follow(view, 17, 5))
    original = figure.frames[0].data[0].z
    assert original.min() > 0  # 0 is blank
    assert len(np.unique(original)) > 30
    for move, frame in zip(moves[:-1], figure.frames[:-1], strict=True):
        np.testing.assert_array_equal(frame.data[0].z, original[np.ix_(move.rows, move.columns)])
        ring = frame.data[1]
        assert (move.rows[ring.y[0]], move.columns[ring.x[0]]) == (17, 5)
        assert f"{move.inside:.0%}" in frame.layout.title.text
    kept = view.layout.mask()[np.ix_(moves[-1].rows, moves[-1].columns)]
    np.testing.assert_array_equal(figure.frames[-1].data[0].z > 0, kept)


@pytest.mark.parametrize(("rows", "columns"), [(3072, 768), (768, 3072), (768, 768)])
def test_the_animation_of_a_large_matrix_stays_small_and_says_what_it_leaves_out(rows: int, columns: int) -> None:
    view = make_view(rows, columns)
    weight = follow(view, rows - 2, columns - 2)
    figure = animation(view, steps(view), weight)
    assert len(figure.to_json()) <= MEGABYTE
    assert all(len(frame.data[1].x) == 1 for frame in figure.frames)  # the followed weight is always drawn
    assert f"every {rows // 128}th row" in drawn(view)
    assert drawn(make_view(40, 32)) == "Every row and column is drawn."

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgb_core.following import explain, follow
from pgb_core.layout import MatrixLayout
from pgb_core.matrices import MatrixView
from tests.figures.test_matrix import make_view


@given(st.integers(0, 39), st.integers(0, 31))
def test_a_followed_weight_agrees_with_the_whole_matrix(row: int, column: int) -> None:
    view = make_view(40, 32)
    weight = follow(view, row, column)
    mask = view.layout.mask()
    assert weight.kept == mask[row, column]
    assert (weight.refit is not None) == weight.kept
    if weight.kept:
        assert weight.refit == view.pruned[row, column]
        assert weight.group is not None
        assert row in view.layout.row_groups[weight.group - 1]
        assert column in view.layout.column_groups[weight.group - 1]
    else:
        assert weight.group is None
    assert view.dense is not None
    assert weight.dense == view.dense[row, column]
    assert view.layout.row_order()[weight.permuted_row] == row
    assert view.layout.column_order()[weight.permuted_column] == column
    assert weight.outranked == pytest.approx((view.importance < view.importance[row, column]).mean())


@pytest.mark.parametrize(("row", "column"), [(-1, 0), (0, -1), (40, 0), (0, 32)])
def test_no_weight_outside_of_the_matrix(row: int, column: int) -> None:
    with pytest.raises(IndexError, match="outside of a 40 x 32 matrix"):
        follow(make_view(40, 32), row, column)


def test_each_reason_has_its_sentence() -> None:
    support = np.ones((4, 4), dtype=bool)
    support[0, 0] = False
    groups = (np.array([0]), np.array([1]))
    ones = np.ones((4, 4), np.float32)
    view = MatrixView(MatrixLayout("query", 4, 4, groups, groups, support), ones, ones, (0.1, 0.1), None)
    said = {place: explain(follow(view, *place)) for place in [(0, 0), (1, 1), (0, 1), (0, 3), (3, 0), (3, 3)]}
    assert said == {
        (0, 0): "Its row and its column are both in group 1, but this weight itself was set to zero.",
        (1, 1): "Its row and its column are both in group 2, so it was kept.",
        (0, 1): "Its row is in group 1 and its column in group 2: they meet in no block, so it was removed.",
        (0, 3): "Its row is in group 1, but its column in no group, so it was removed.",
        (3, 0): "Its column is in group 1, but its row in no group, so it was removed.",
        (3, 3): "Neither its row nor its column is in a group, so it was removed.",
    }
    assert follow(view, 1, 1).dense is None

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgb_core.figures.pooling import pool


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 12), st.integers(1, 12), st.integers(0, 9))
def test_every_cell_is_the_extreme_or_the_mean_of_its_entries(
    rows: int, columns: int, max_rows: int, max_columns: int, seed: int
) -> None:
    values = np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)
    extreme = pool(values, "extreme", max_rows, max_columns)
    mean = pool(values, "mean", max_rows, max_columns)
    assert extreme.cells.shape[0] <= max_rows
    assert extreme.cells.shape[1] <= max_columns
    for i, j in np.ndindex(*extreme.cells.shape):
        tile = values[
            i * extreme.row_step : (i + 1) * extreme.row_step, j * extreme.column_step : (j + 1) * extreme.column_step
        ]
        assert extreme.cells[i, j] == tile.flat[np.abs(tile).argmax()]
        assert mean.cells[i, j] == pytest.approx(tile.mean(), abs=1e-5)


def test_small_matrices_stay_as_they_are() -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    pooled = pool(values, "extreme")
    assert pooled.exact
    np.testing.assert_array_equal(pooled.cells, values)


def test_removed_entries_do_not_count_and_cells_without_any_other_stay_blank() -> None:
    nan = np.nan
    values = np.array([[nan, -2.0, nan, nan], [1.0, nan, nan, nan]], dtype=np.float32)
    np.testing.assert_array_equal(pool(values, "extreme", 1, 2).cells, [[-2.0, nan]])
    np.testing.assert_array_equal(pool(values, "mean", 1, 2).cells, [[-0.5, nan]])

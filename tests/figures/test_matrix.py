import json
from typing import Any, get_args

import numpy as np
import pytest

from pgb_core.figures import matrix
from pgb_core.figures.matrix import Color, Stage
from pgb_core.following import follow
from pgb_core.layout import MatrixLayout
from pgb_core.matrices import MatrixView

MEGABYTE = 1_000_000
STAGES: tuple[Stage, ...] = get_args(Stage)
COLORS: tuple[Color, ...] = get_args(Color)


def make_view(rows: int, columns: int, groups: int = 4, *, dense: bool = True, seed: int = 0) -> MatrixView:
    """A view whose groups take half of the shuffled rows and three quarters of the shuffled columns."""
    rng = np.random.default_rng(seed)
    kept_rows = np.array_split(rng.permutation(rows)[: rows // 2], groups)
    kept_columns = np.array_split(rng.permutation(columns)[: 3 * columns // 4], groups)
    layout = MatrixLayout("query", rows, columns, tuple(kept_rows), tuple(kept_columns))
    weights = rng.standard_normal((rows, columns)).astype(np.float32)
    importance = rng.random((rows, columns), dtype=np.float32)
    pruned = np.where(layout.mask(), 2 * weights, np.float32(0))
    return MatrixView(layout, pruned, importance, (0.2,) * groups, weights if dense else None)


@pytest.mark.parametrize(("rows", "columns"), [(3072, 768), (768, 3072), (768, 768), (1536, 384)])
@pytest.mark.parametrize("color", COLORS)
def test_payloads_stay_within_the_budget_of_a_chart_and_of_a_page(rows: int, columns: int, color: Color) -> None:
    view = make_view(rows, columns)
    overviews = [matrix.overview(view, stage, color) for stage in STAGES]
    exact = matrix.window(view, "permuted", color, 0, 0)
    sizes = [len(figure.to_json()) for figure in (*overviews, exact) if figure is not None]
    assert len(sizes) == 4
    assert max(sizes) <= MEGABYTE
    assert sum(sizes) <= 5 * MEGABYTE


def test_permuted_pruned_matrix_is_block_diagonal_and_holds_the_kept_weights() -> None:
    view = make_view(40, 32)
    shown = matrix.panel(view, "pruned", "weight")
    assert shown is not None
    expected = np.full((40, 32), np.nan, dtype=np.float32)
    for g, (rows, columns) in enumerate(zip(view.layout.row_groups, view.layout.column_groups, strict=True)):
        top, left = matrix.group_origin(view, g + 1)
        expected[top : top + len(rows), left : left + len(columns)] = view.pruned[np.ix_(rows, columns)]
    np.testing.assert_array_equal(shown.values, expected)


def test_permuted_matrix_holds_the_same_weights_as_the_original() -> None:
    view = make_view(40, 32)
    shown = matrix.panel(view, "permuted", "weight")
    assert shown is not None
    assert view.dense is not None
    back = np.empty_like(shown.values)
    back[np.ix_(shown.row_order, shown.column_order)] = shown.values
    np.testing.assert_array_equal(back, view.dense)


def test_all_stages_share_one_symmetric_color_range() -> None:
    view = make_view(64, 48)
    figures = [matrix.overview(view, stage, "weight") for stage in STAGES]
    figures.append(matrix.window(view, "pruned", "weight", 0, 0))
    ranges = {(figure.data[0].zmin, figure.data[0].zmax) for figure in figures if figure is not None}
    assert len(ranges) == 1
    low, high = ranges.pop()
    assert low == -high < 0


@pytest.mark.parametrize("stage", ["permuted", "pruned"])
def test_window_names_the_original_indices_of_each_weight(stage: Stage) -> None:
    view = make_view(600, 300)
    figure = matrix.window(view, stage, "weight", 100, 30)
    assert figure is not None
    heatmap = figure.data[0]
    source = view.dense if stage == "permuted" else view.pruned
    assert source is not None
    assert heatmap.z.shape == (256, 256)
    known = ~np.isnan(heatmap.z)
    assert (heatmap.y0, heatmap.x0) == (100, 30)
    rows, columns = view.layout.row_order()[100:356], view.layout.column_order()[30:286]
    np.testing.assert_array_equal(heatmap.z[known], source[np.ix_(rows, columns)][known])
    for axis, said, first, order in (
        (figure.layout.yaxis, heatmap.yhoverformat, 100, rows),
        (figure.layout.xaxis, heatmap.xhoverformat, 30, columns),
    ):
        names = {f"{place:{said}}": f"{place} (original {index})" for place, index in enumerate(order, start=first)}
        assert axis.labelalias == names
        assert not {str(place) for place in range(first, first + 256)} & set(names)  # labels of the axis stay


def test_window_as_a_table_says_the_same() -> None:
    view = make_view(300, 40)
    table = matrix.window_table(view, "permuted", "weight", 20, 4)
    assert view.dense is not None
    assert list(table) == ["original row", *(str(column) for column in view.layout.column_order()[4:])]
    np.testing.assert_array_equal(table["original row"], view.layout.row_order()[20:276])
    for column in view.layout.column_order()[4:]:
        np.testing.assert_array_equal(table[str(column)], view.dense[table["original row"], column])
    assert matrix.window_table(make_view(8, 8, dense=False), "original", "weight", 0, 0) == {}


def test_window_stops_at_the_border() -> None:
    figure = matrix.window(make_view(40, 300), "original", "importance", 0, 200)
    assert figure is not None
    assert figure.data[0].z.shape == (40, 100)


def test_row_zero_is_on_top_and_groups_are_outlined_and_numbered() -> None:
    view = make_view(40, 32, groups=3)
    figure = matrix.overview(view, "pruned", "weight")
    assert figure is not None
    low, high = figure.layout.yaxis.range
    assert low > high
    outline, markers = figure.data[1], figure.data[2]
    assert [x for x in outline.x if x is None] == [None] * 3
    assert [entry[0] for entry in markers.customdata] == [1, 2, 3]
    for g, (x, y) in enumerate(zip(markers.x, markers.y, strict=True)):
        top, left = matrix.group_origin(view, g + 1)
        assert top <= y < top + len(view.layout.row_groups[g])
        assert left <= x < left + len(view.layout.column_groups[g])


def test_zeros_stay_blank_in_every_place_and_count_as_removed() -> None:
    support = np.random.default_rng(0).random((40, 32)) < 0.3
    layout = MatrixLayout("query", 40, 32, (np.arange(40),), (np.arange(32),), support)
    weights = np.random.default_rng(1).standard_normal((40, 32)).astype(np.float32)
    view = MatrixView(layout, np.where(support, weights, np.float32(0)), np.abs(weights), (0.6,), weights)
    for figure in (matrix.overview(view, "pruned", "weight"), matrix.window(view, "pruned", "weight", 0, 0)):
        assert figure is not None
        np.testing.assert_array_equal(np.isnan(figure.data[0].z), ~support)
    permuted = matrix.panel(view, "permuted", "weight")
    assert permuted is not None
    np.testing.assert_array_equal(permuted.values, weights)  # nothing is moved
    assert matrix.group_table(view) == [
        {
            "group": 1,
            "rows": 40,
            "columns": 32,
            "weights": support.sum(),
            "density": pytest.approx(support.mean()),
            "kept_importance": 0.6,
            "concentration": pytest.approx(0.6 / support.mean()),
            "mean_before": pytest.approx(np.abs(weights[support]).mean()),
            "mean_after": pytest.approx(np.abs(weights[support]).mean()),
            "change": 0.0,
        }
    ]


def test_without_dense_weights_only_what_needs_them_is_missing() -> None:
    view = make_view(16, 16, dense=False)
    assert matrix.overview(view, "permuted", "weight") is None
    assert matrix.window(view, "original", "weight", 0, 0) is None
    assert matrix.overview(view, "pruned", "weight") is not None
    assert matrix.overview(view, "original", "importance") is not None


def test_a_dropped_matrix_can_be_drawn() -> None:
    view = MatrixView(
        MatrixLayout("query", 8, 8, (), ()), np.zeros((8, 8), np.float32), np.ones((8, 8), np.float32), (), None
    )
    figure = matrix.overview(view, "pruned", "weight")
    assert figure is not None
    assert np.isnan(figure.data[0].z).all()
    assert matrix.group_table(view) == []


def test_group_table_counts_every_kept_weight_once() -> None:
    view = make_view(40, 32)
    table = matrix.group_table(view)
    assert [row["group"] for row in table] == [1, 2, 3, 4]
    assert sum(row["weights"] for row in table) == view.layout.kept == view.layout.mask().sum()
    assert sum(row["density"] for row in table) == pytest.approx(view.layout.density)
    assert [row["kept_importance"] for row in table] == [0.2] * 4


def test_group_table_compares_weights_before_and_after_the_refit() -> None:
    view = make_view(40, 32)
    assert view.dense is not None
    for row, rows, columns in zip(
        matrix.group_table(view), view.layout.row_groups, view.layout.column_groups, strict=True
    ):
        assert row["mean_before"] == pytest.approx(np.abs(view.dense[np.ix_(rows, columns)]).mean())
        assert row["mean_after"] == pytest.approx(2 * row["mean_before"])  # the view's refit doubles every weight
        assert row["change"] == pytest.approx(1.0)
    gone = matrix.group_table(make_view(40, 32, dense=False))[0]
    assert (gone["mean_before"], gone["change"]) == (None, None)
    assert gone["mean_after"] > 0


@pytest.mark.parametrize("stage", STAGES)
def test_the_followed_weight_is_ringed_where_it_is_drawn(stage: Stage) -> None:
    view = make_view(40, 32)
    weight = follow(view, 17, 5)
    shown = matrix.panel(view, stage, "importance")
    assert shown is not None
    for figure in (
        matrix.overview(view, stage, "importance", weight),
        matrix.window(view, stage, "importance", 0, 0, weight),
    ):
        assert figure is not None
        ring = figure.data[-1]
        assert "the followed weight" in ring.hovertemplate
        assert (shown.row_order[ring.y[0]], shown.column_order[ring.x[0]]) == (17, 5)


def test_overview_as_a_table_holds_the_cells() -> None:
    view = make_view(1536, 384)
    figure = matrix.overview(view, "pruned", "weight")
    assert figure is not None
    from_row, *columns = matrix.overview_table(view, "pruned", "weight").items()
    assert from_row[0] == "from row"
    np.testing.assert_array_equal(from_row[1], np.arange(192) * 8)
    assert [name for name, _ in columns] == [str(2 * place) for place in range(192)]
    np.testing.assert_array_equal(np.stack([values for _, values in columns], axis=1), figure.data[0].z)
    assert matrix.overview_table(make_view(8, 8, dense=False), "original", "weight") == {}


def test_arrays_are_sent_in_binary() -> None:
    figure = matrix.window(make_view(64, 64), "permuted", "weight", 0, 0)
    assert figure is not None
    heatmap: dict[str, Any] = json.loads(figure.to_json())["data"][0]
    assert heatmap["z"]["dtype"] == "f4"

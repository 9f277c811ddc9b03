"""The pictures of a lesson show its numbers, in the order they say."""

from __future__ import annotations

import numpy as np
import pytest

from pgb_core.figures import lesson as figures
from pgb_core.lesson import SIZE, Lesson, learn, preset
from pgb_core.narration import STEPS

NUMBERS = range(1, len(STEPS) + 1)


@pytest.fixture(scope="module")
def found() -> Lesson:
    return learn(preset("random", 1), groups=2, density=0.25, correlation=0.6)


@pytest.mark.parametrize("step", NUMBERS)
def test_pictures_show_the_values_of_the_rows_and_columns_that_they_name(found: Lesson, step: int) -> None:
    dense = {"weight": found.matrix, "importance": found.importance}
    for picture in figures.pictures(found, step):
        shown = ~np.isnan(picture.values)
        assert sorted(picture.rows) == sorted(picture.columns) == list(range(SIZE))
        source = found.pgb.refitted if picture.title == "After the refit" else dense[picture.color]
        expected = source[np.ix_(picture.rows, picture.columns)]
        np.testing.assert_array_equal(picture.values[shown], expected[shown])
        assert shown.sum() in (SIZE * SIZE, found.pgb.layout.kept)


@pytest.mark.parametrize("step", NUMBERS)
def test_every_cell_is_annotated_and_all_weights_share_one_range(found: Lesson, step: int) -> None:
    limit = figures.weight_limit(found)
    for picture in figures.pictures(found, step):
        figure = figures.heatmap(found, picture)
        heat = figure.data[0]
        written = np.array(heat.text)
        np.testing.assert_array_equal(written == "", np.isnan(picture.values))
        assert max(map(len, written.ravel())) <= 4
        assert (heat.zmin, heat.zmax) == ((-limit, limit) if picture.color == "weight" else (0, found.importance.max()))
        assert list(figure.layout.xaxis.ticktext) == [str(c + 1) for c in picture.columns]
        low, high = figure.layout.yaxis.range
        assert low > high  # row 1 on top
        assert len(figure.to_json()) < 20_000
    assert np.abs(found.matrix).max() <= limit


def test_outlines_hold_the_groups_and_nothing_else(found: Lesson) -> None:
    _, cut = figures.pictures(found, 4)
    figure = figures.heatmap(found, cut)
    x, y = figure.data[1].x, figure.data[1].y
    inside = np.zeros((SIZE, SIZE), dtype=bool)
    for g in range(found.groups):
        corners = slice(6 * g, 6 * g + 4)
        left, right = min(x[corners]) + 0.5, max(x[corners]) + 0.5
        top, bottom = min(y[corners]) + 0.5, max(y[corners]) + 0.5
        inside[int(top) : int(bottom), int(left) : int(right)] = True
    np.testing.assert_array_equal(inside, ~np.isnan(cut.values))


def test_the_table_of_a_picture_says_the_same(found: Lesson) -> None:
    _, cut = figures.pictures(found, 4)
    for place, row in enumerate(figures.picture_table(cut)):
        original = int(cut.rows[place])
        assert row.pop("row") == original + 1
        assert list(row) == [str(column + 1) for column in cut.columns]
        kept = {int(name) - 1: value for name, value in row.items() if value is not None}
        assert kept == {int(c): found.matrix[original, c] for c in np.flatnonzero(found.pgb.layout.mask()[original])}


def test_the_table_of_groups_accounts_for_all_that_is_kept(found: Lesson) -> None:
    table = figures.group_table(found)
    assert [row["group"] for row in table] == [1, 2]
    assert sum(row["density"] for row in table) == pytest.approx(found.density)
    assert sum(row["kept_importance"] for row in table) == pytest.approx(found.pgb.kept_importance)
    assert len(", ".join(row["columns"] for row in table).split(", ")) == SIZE


def test_shapes_and_errors_of_every_method_are_drawn(found: Lesson) -> None:
    shapes = figures.shapes_chart(found)
    heats = [trace for trace in shapes.data if trace.type == "heatmap"]
    for heat, outcome in zip(heats, found.outcomes.values(), strict=True):
        rows, columns = heat.customdata[..., 0] - 1, heat.customdata[..., 1] - 1
        np.testing.assert_array_equal(~np.isnan(heat.z), outcome.layout.mask()[rows, columns])
    comparison = figures.comparison_chart(found)
    for trace, row, outcome in zip(
        comparison.data, figures.comparison_table(found), found.outcomes.values(), strict=False
    ):
        assert list(trace.x) == pytest.approx([100 * row["before"], 100 * row["after"]])
        assert (row["before"], row["after"]) == (outcome.error_before, outcome.error_after)
    for figure in (shapes, comparison):
        assert len(figure.to_json()) < 60_000


def test_a_matrix_of_zeros_can_be_drawn() -> None:
    found = learn(np.zeros((SIZE, SIZE)), groups=4, density=0.25)
    for step in NUMBERS:
        for picture in figures.pictures(found, step):
            assert figures.heatmap(found, picture).data[0].zmax > 0
    assert figures.comparison_chart(found).layout.xaxis.range[1] > 0


def test_small_negative_numbers_have_no_sign() -> None:
    matrix = np.full((SIZE, SIZE), -0.04)
    found = learn(matrix, groups=4, density=0.25)
    dense, _ = figures.pictures(found, 1)
    assert set(np.ravel(figures.heatmap(found, dense).data[0].text)) == {"0"}

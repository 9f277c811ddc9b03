import numpy as np
import pytest

from pgb_core import matrices, store
from pgb_core.figures.thumbnails import COLUMNS, GAP, SIDE, Thumbnail, kept_cells, thumbnail_table, thumbnails, wall
from pgb_core.layout import MatrixLayout
from pgb_core.settings import get_settings
from tests.figures.test_matrix import MEGABYTE, make_view
from tests.sample_run import make_sample_run


def deep(layers: int) -> tuple[Thumbnail, ...]:
    layout = make_view(96, 96).layout
    return tuple(Thumbnail((layer, kind, name), layout, 0.75) for layer in range(layers) for kind, name in COLUMNS)


def test_cells_are_the_kept_weights_of_the_permuted_matrix() -> None:
    layout = make_view(10 * SIDE, 4 * SIDE, groups=3).layout
    permuted = layout.mask()[np.ix_(layout.row_order(), layout.column_order())]
    np.testing.assert_array_equal(kept_cells(layout), permuted[5::10, 2::4])


def test_zeros_in_single_places_show_as_dots() -> None:
    support = np.random.default_rng(0).random((SIDE, SIDE)) < 0.3
    layout = MatrixLayout("query", SIDE, SIDE, (np.arange(SIDE),), (np.arange(SIDE),), support)
    np.testing.assert_array_equal(kept_cells(layout), support)


def test_a_dropped_matrix_is_blank() -> None:
    assert kept_cells(MatrixLayout("query", 8, 8, (), ())).sum() == 0


@pytest.mark.parametrize("layers", [12, 24])
def test_the_wall_of_a_deep_network_is_small_and_every_matrix_can_be_clicked(layers: int) -> None:
    found = deep(layers)
    figure = wall(found, selected=5)
    assert len(figure.to_json()) <= MEGABYTE
    markers = figure.data[-1]
    assert [place for (place,) in markers.customdata] == list(range(6 * layers))
    step = SIDE + GAP
    assert [(int(y) // step, int(x) // step) for x, y in zip(markers.x, markers.y, strict=True)] == [
        (layer, column) for layer in range(layers) for column in range(6)
    ]
    cells = figure.data[0].z
    assert cells.max() == 76  # 1 + the importance kept in percent
    np.testing.assert_array_equal(cells[:SIDE, :SIDE] > 0, kept_cells(found[0].layout))
    chosen = figure.data[2]
    assert min(chosen.x[:5]) == 5 * step - 0.5


def test_table_and_pictures_are_those_of_the_run() -> None:
    run = store.read_run(make_sample_run(get_settings().runs_dir, seed=1))
    assert run.result is not None
    found = thumbnails(matrices.read_layouts(run), matrices.read_kept_importance(run))
    rows = thumbnail_table(found)
    told = [
        (entry["layer"] + 1, matrix["name"], len(matrix["group_rows"]), matrix["density"])
        for entry in run.result["sublayers"]
        for matrix in entry["matrices"]
    ]
    assert [(row["layer"], row["matrix"], row["groups"]) for row in rows] == [entry[:3] for entry in told]
    assert [row["density"] for row in rows] == pytest.approx([entry[3] for entry in told])
    view = matrices.read_matrix(run, *found[3].key)
    assert found[3].kept_importance == sum(view.kept_importance)

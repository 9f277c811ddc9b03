from pathlib import Path

import pytest

from pgb_core import matrices, store
from pgb_core.figures import network
from tests.sample_run import MINILM, make_sample_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> store.Run:
    return store.read_run(make_sample_run(tmp_path_factory.mktemp("runs"), shape=MINILM, sparsity=0.75, seed=3))


def test_sublayers_agree_with_the_stored_layouts(run: store.Run) -> None:
    assert run.result is not None
    found = network.sublayers(run.result)
    layouts = matrices.read_layouts(run)
    assert len(found) == 12
    assert {s.dropped for s in found} == {True, False}
    for s in found:
        matrix = layouts[s.layer, s.kind, "query" if s.kind == "attention" else "intermediate"]
        width = 32 if s.kind == "attention" else 1
        assert s.units == matrix.rows // width
        assert s.group_units == tuple(len(rows) // width for rows in matrix.row_groups)


def test_picture_draws_each_group_as_long_as_its_share_and_fits_the_budget(run: store.Run) -> None:
    assert run.result is not None
    sublayers = network.sublayers(run.result)
    figure = network.picture(sublayers, selected=2)
    groups = figure.data[1]
    for place, s in enumerate(sublayers):
        drawn = [length for y, length in zip(groups.y, groups.x, strict=True) if y == place]
        assert drawn == pytest.approx([100 * units / s.units for units in s.group_units])
    assert len(figure.layout.annotations) == sum(s.dropped for s in sublayers)
    assert len(figure.to_json()) <= 1_000_000
    noted = network.picture(sublayers, notes=[f"note {n}" for n in range(len(sublayers))])
    assert [text.rsplit("<br>", 1)[1] for text in noted.data[0].hovertext] == [f"note {n}" for n in range(12)]
    assert [row["kept"] for row in network.network_table(sublayers)] == [s.summary for s in sublayers]


def test_matrices_that_stand_alone_are_one_bar_with_their_own_words() -> None:
    matrices_ = [{"rows": 32, "columns": 32, "group_rows": [11, 11, 10]}]
    entry = {
        "layer": 0,
        "kind": "attention",
        "units": {"dense": 4, "kept": 4},
        "matrices": matrices_,
        "density": 0.4,
        "kept_importance": 0.5,
        "tied": False,
        "label": "groups: query 3, key 1, value 1, output 8",
    }
    whole = {**entry, "tied": True, "density": 1.0, "matrices": [{"rows": 32, "columns": 32, "group_rows": [32]}]}
    found = network.sublayers({"sublayers": [entry, whole]})
    assert [s.group_units for s in found] == [(4,), (4,)]
    assert [s.summary for s in found] == ["groups: query 3, key 1, value 1, output 8", "untouched"]


def test_sample_runs_meet_their_target(tmp_path: Path) -> None:
    for seed in range(3):
        result = store.read_run(make_sample_run(tmp_path, shape=MINILM, sparsity=0.5, seed=seed)).result
        assert result is not None
        assert result["sparsity"]["achieved"] == pytest.approx(0.5, abs=0.12)

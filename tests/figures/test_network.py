from pathlib import Path
from typing import Any

import pytest

from pgb_core import store
from pgb_core.figures import network
from tests.sample_run import MINILM, make_sample_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> store.Run:
    return store.read_run(make_sample_run(tmp_path_factory.mktemp("runs"), shape=MINILM, sparsity=0.75, seed=3))


def test_sublayers_agree_with_the_stored_layouts(run: store.Run) -> None:
    assert run.result is not None
    found = network.sublayers(run.result, store.read_options(run))
    layouts = store.read_layouts(run)
    assert len(found) == 12
    assert {s.dropped for s in found} == {True, False}
    for s in found:
        matrix = layouts[s.layer, s.kind, "query" if s.kind == "attention" else "intermediate"]
        width = 32 if s.kind == "attention" else 1
        assert s.units == matrix.rows // width
        assert s.group_units == tuple(len(rows) // width for rows in matrix.row_groups)


def test_picture_draws_each_group_as_long_as_its_share_and_fits_the_budget(run: store.Run) -> None:
    assert run.result is not None
    sublayers = network.sublayers(run.result, store.read_options(run))
    figure = network.picture(sublayers, selected=2)
    groups = figure.data[1]
    for place, s in enumerate(sublayers):
        drawn = [length for y, length in zip(groups.y, groups.x, strict=True) if y == place]
        assert drawn == pytest.approx([100 * units / s.units for units in s.group_units])
    assert len(figure.layout.annotations) == sum(s.dropped for s in sublayers)
    assert len(figure.to_json()) <= 1_000_000
    assert [row["kept"] for row in network.network_table(sublayers)] == [s.summary for s in sublayers]


def option(label: str, cost: int, loss: float, groups: int = 2) -> dict[str, Any]:
    return {"label": label, "groups": groups, "units": 4, "cost": cost, "density": cost / 100, "loss": loss}


TABLE = [option("dropped", 0, 1.0, 0), option("4 groups", 25, 0.4), option("untouched", 100, 0.0, 1)]


def test_option_chart_rings_the_chosen_option_and_shows_all() -> None:
    figure = network.option_chart({"chosen": 1, "options": TABLE})
    ring = figure.data[-1]
    assert (ring.x, ring.y) == ((25.0,), (0.4,))
    assert sum(len(trace.x) for trace in figure.data[:-1]) == 3


def test_why_something_was_dropped_names_the_best_alternative_and_its_price() -> None:
    text = network.explain_choice({"chosen": 0, "options": TABLE})
    assert "4 groups" in text
    assert "0.6" in text
    assert "25 more weights" in text


def test_why_everything_was_kept_names_the_cheapest_saving() -> None:
    text = network.explain_choice({"chosen": 2, "options": TABLE})
    assert "4 groups" in text
    assert "75 weights" in text


def test_an_only_option_is_explained() -> None:
    assert "no other option" in network.explain_choice({"chosen": 0, "options": TABLE[:1]})


def test_option_table_marks_exactly_the_chosen_one() -> None:
    rows = network.option_table({"chosen": 1, "options": TABLE})
    assert [row["label"] for row in rows if row["chosen"]] == ["4 groups"]
    assert [row["cost"] for row in rows] == [100, 25, 0]


def test_sample_runs_meet_their_target(tmp_path: Path) -> None:
    for seed in range(3):
        result = store.read_run(make_sample_run(tmp_path, shape=MINILM, sparsity=0.5, seed=seed)).result
        assert result is not None
        assert result["sparsity"]["achieved"] == pytest.approx(0.5, abs=0.12)

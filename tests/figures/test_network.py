from itertools import product
from pathlib import Path
from typing import Any

import pytest

from pgb_core import matrices, store
from pgb_core.budget import choose
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
    figure = network.option_chart({"chosen": 0, "options": [{**option("50.0% zeros", 50, 0.2, 1), "tied": False}]})
    assert figure.data[0].name == "zeros"


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
    assert "raise the loss by 0.4 and save 75 weights" in text


def test_keeping_less_at_a_lower_measured_loss_is_not_called_a_rise() -> None:
    """Losses are measured: a smaller option can come out ahead, and the target still not need its saving."""
    text = network.explain_choice({"chosen": 1, "options": [option("smaller", 20, 0.3), option("larger", 25, 0.4)]})
    assert "lower the loss by 0.1" in text


@pytest.mark.parametrize("sparsity", [0.0, 0.2, 0.5, 0.95])
def test_what_is_said_of_a_choice_is_true_of_the_budget(sparsity: float) -> None:
    """No sentence about other sublayers' prices: with room below the target, or with no target, there is none."""
    tables = [[option(o["label"], o["cost"], scale * o["loss"]) for o in TABLE] for scale in (1.0, 5.0, 1.0)]
    costs, losses = [[o["cost"] for o in t] for t in tables], [[o["loss"] for o in t] for t in tables]
    budget = round(300 * (1 - sparsity))
    picks = choose(costs, losses, budget, slack=budget)
    total = sum(t[p]["loss"] for t, p in zip(tables, picks, strict=True))
    for choice in product(*tables):
        if sum(o["cost"] for o in choice) <= budget:
            assert sum(o["loss"] for o in choice) >= total - 1e-9
    for table, pick in zip(tables, picks, strict=True):
        text = network.explain_choice({"chosen": pick, "options": table})
        assert "no combination that meets the target has a lower total loss" in text
        assert "other sublayers" not in text


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

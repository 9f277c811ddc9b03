"""The curve, its twin, and the sentences of the What if page."""

from __future__ import annotations

import json

import pytest

from benchmarks.synthetic_record import make_record
from pgb_core import replan, scored
from pgb_core.constraints import Constraints
from pgb_core.experience import Band, Experience
from pgb_core.figures import network
from pgb_core.figures.what_if import curve_table, explain_band, explain_return, loss_curve
from pgb_core.replan import LATENCY, Return
from pgb_core.scored import Record
from tests.sample_latency import sample_table

SIZES = {"layers": 2, "hidden": 32, "heads": 4, "neurons": 64}
EXPERIENCE = Experience(slope=0.5, spread=0.002, squares=0.01, runs=6, largest=0.09)


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    runs_dir = tmp_path_factory.mktemp("runs")
    make_record(runs_dir, SIZES, seed=2)
    return scored.read(next(iter(scored.find(runs_dir).values())))


@pytest.mark.parametrize("goal", ["weights", "flops", LATENCY])
def test_the_curve_shows_every_plan_that_loses_something_and_where_one_is(record: Record, goal: str) -> None:
    market = replan.market_of(record, "pgb", goal, sample_table(SIZES))
    path = replan.curve(market, Constraints())
    here = path[len(path) // 2]
    figure = loss_curve(path, here, goal, "pgb")
    line, mark = figure.data
    assert len(line.x) == sum(plan.loss > 0 for plan in path)
    assert (mark.x[0], mark.y[0]) == (here.target * (1 if goal == LATENCY else 100), here.loss)
    assert figure.layout.yaxis.type == "log"
    assert len(figure.to_json()) < 100_000
    assert len(loss_curve(path, min(path, key=lambda plan: plan.loss), goal, "pgb").data) in (1, 2)


def test_the_twin_has_a_row_for_every_target(record: Record) -> None:
    market = replan.market_of(record, "structured", "weights")
    path = replan.curve(market, Constraints())
    rows = curve_table(record, path, EXPERIENCE)
    assert [row["target"] for row in rows] == [plan.target for plan in path]
    assert all(row["grouped"] == 0 for row in rows)
    assert max(row["dropped"] for row in rows) > 0
    assert [row["drop"] for row in rows if row["loss"] == 0.02] == []
    known = [row for row in rows if row["loss"] <= EXPERIENCE.largest]
    assert all(row["low"] < row["drop"] == 0.5 * row["loss"] < row["high"] for row in known)
    assert all(row["drop"] is None for row in curve_table(record, path, None))


def test_a_planned_sublayer_is_drawn_by_its_groups(record: Record) -> None:
    sub = record.sublayers[1]
    option = next(o for o in sub.options if o["groups"] == 3)
    found = network.planned(sub.layer, sub.shape, option)
    assert found.group_units == tuple(option["group_units"])
    older = network.planned(sub.layer, sub.shape, {k: v for k, v in option.items() if k != "group_units"})
    assert sum(older.group_units) == option["units"]
    assert max(older.group_units) - min(older.group_units) <= 1
    assert "importance" not in json.loads(network.picture([found], 0).to_json())["data"][0]["hovertext"][0]


@pytest.mark.parametrize(
    ("found", "goal", "says"),
    [
        (None, "weights", "no other option here that meets your limits"),
        (
            Return(0.62, "3 heads", 2e-9),
            "weights",
            "**3 heads** when the price falls to **0.0002 nats per 100,000 weights**",
        ),
        (Return(0.62, "3 heads", 2e-9), "weights", "from 90%, that is at **62%**"),
        (Return(None, "3 heads", 2e-9), "flops", "At no lower sparsity does the plan keep any of it"),
        (Return(None, "3 heads", -1e-9), "flops", "even 3 heads saves nothing"),
        (Return(41.25, "3 heads", 2e-6), LATENCY, "0.002 nats per ms"),
        (Return(None, "3 heads", 2e-6), LATENCY, "At no slower target"),
    ],
)
def test_when_a_sublayer_comes_back_in_words(found: Return | None, goal: str, says: str) -> None:
    assert says in explain_return(found, goal, 0.9, 3e-9)


@pytest.mark.parametrize(
    ("band", "experience", "says"),
    [
        (None, None, "2 finished runs of this checkpoint and task yet"),
        (None, EXPERIENCE, "went up to a predicted loss of 0.09 nats"),
        (
            Band(0.01, -0.002, 0.022),
            EXPERIENCE,
            "change by **-1.0 points**; 80% of new runs would fall between -2.2 points",
        ),
        (Band(0.01, -0.002, 0.022), EXPERIENCE, "and +0.2 points. From 6 finished runs"),
    ],
)
def test_what_past_runs_say_in_words(band: Band | None, experience: Experience | None, says: str) -> None:
    assert says in explain_band(band, experience, 2)

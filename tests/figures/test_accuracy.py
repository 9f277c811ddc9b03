"""The figure of score against sparsity."""

from __future__ import annotations

from typing import Any

from pgb_core.figures.accuracy import DEEPEST, Curve, Panel, accuracy_chart
from pgb_core.figures.style import METHODS as LOOKS
from pgb_core.spec import METHODS


def panels() -> list[Panel]:
    pgb = Curve("pgb", False, [0.5, 0.94], [0.9, 0.85], [0.01, 0.02])
    recovered = Curve("pgb", True, [0.94], [0.91], [0.01])
    fallen = Curve("kwon", False, [0.3, 0.5], [0.89, 0.2], [0.01, 0.02])
    return [Panel("news", 0.92, [pgb, recovered]), Panel("tweets", 0.7, [pgb, fallen])]


def traces(figure: Any, axis: str) -> dict[str, Any]:
    return {trace.name: trace for trace in figure.data if trace.xaxis == axis}


def test_each_task_has_a_panel_with_its_curves_in_percent() -> None:
    figure = accuracy_chart(panels())
    news, tweets = traces(figure, "x"), traces(figure, "x2")
    assert list(news) == ["pgb", "pgb, recovered"]
    assert list(tweets) == ["pgb", "kwon"]
    assert news["pgb"].y == (90, 85)
    assert news["pgb"].error_y.array == (1, 2)
    assert news["pgb, recovered"].line.dash == "dot"
    assert [note.text for note in figure.layout.annotations] == ["news", "tweets"]
    assert [(line.y0, line.yref) for line in figure.layout.shapes] == [(92, "y"), (70, "y2")]


def test_methods_stand_side_by_side_at_their_sparsity() -> None:
    figure = accuracy_chart(panels())
    assert figure.layout.xaxis.ticktext == ("30%", "50%", "94%")
    places = [(round(x), name) for name, trace in traces(figure, "x2").items() for x in trace.x]
    assert sorted(places) == [(0, "kwon"), (1, "kwon"), (1, "pgb"), (2, "pgb")]
    pgb, kwon = traces(figure, "x2").values()
    assert 0.1 < kwon.x[1] - pgb.x[0] < 0.5
    assert all(low <= x <= high for trace in figure.data for x in trace.x for low, high in [figure.layout.xaxis.range])


def test_a_collapse_does_not_flatten_the_other_curves() -> None:
    figure = accuracy_chart(panels())
    low, high = figure.layout.yaxis2.range
    assert 70 - 100 * DEEPEST - 2 < low < 70 - 100 * DEEPEST
    assert high > 91  # the upper end of the highest error bar
    low, high = figure.layout.yaxis.range
    assert low < 83
    assert high > 92


def test_the_legend_names_each_curve_once() -> None:
    figure = accuracy_chart(panels())
    shown = [trace.name for trace in figure.data if trace.showlegend]
    assert sorted(shown) == ["kwon", "pgb", "pgb, recovered"]


def test_every_method_has_looks_of_its_own() -> None:
    assert set(LOOKS) == set(METHODS)
    for looks in zip(*LOOKS.values(), strict=True):
        assert len(set(looks)) == len(METHODS)

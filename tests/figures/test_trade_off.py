from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgb_core.figures import trade_off
from pgb_core.figures.trade_off import Point
from pgb_core.published import published


def result(*, latency: bool = True, recovered: float | None = None) -> dict[str, Any]:
    return {
        "method": "pgb",
        "sparsity": {"target": 0.5, "achieved": 0.501},
        "parameters": {
            "dense": 20_000_000,
            "pruned": 15_000_000,
            "encoder_dense": 10_000_000,
            "encoder_pruned": 5_000_000,
        },
        "flops": {"dense": 2e9, "pruned": 1e9, "batch": 1, "length": 128},
        "bytes": {"dense": 80_000_000, "pruned": 60_000_000},
        "score": {
            "metric": "accuracy",
            "dense": 0.97,
            "compensated": 0.95,
            "recovered": recovered,
            "standard_error": {"dense": 0.01, "compensated": 0.02, "recovered": 0.015},
        },
        "latency": {
            "dense": {"median_ms": 100.0},
            "pruned": {"median_ms": 60.0},
            "device": "cpu",
            "threads": 2,
            "batch": 8,
            "length": 128,
            "dtype": "float32",
        }
        if latency
        else None,
    }


points = st.builds(
    lambda cost, score: Point("r", "pgb", 0.5, False, cost, score, 0.0),
    st.integers(0, 8).map(float),
    st.integers(0, 8).map(lambda n: n / 8),
)


@given(st.lists(points, max_size=12))
def test_the_front_is_what_nothing_else_beats(candidates: list[Point]) -> None:
    def beaten(p: Point) -> bool:
        return any(
            q.cost <= p.cost and q.score >= p.score and (q.cost < p.cost or q.score > p.score) for q in candidates
        )

    front = trade_off.pareto_front(candidates)
    assert {(p.cost, p.score) for p in front} == {(p.cost, p.score) for p in candidates if not beaten(p)}


@pytest.mark.parametrize(
    ("cost", "pruned", "dense"),
    [
        ("latency", 60.0, 100.0),
        ("flops", 1.0, 2.0),
        ("parameters", 15.0, 20.0),
        ("bytes", 60.0, 80.0),
        ("density", 50.0, 100.0),
    ],
)
def test_points_carry_each_cost_in_the_unit_of_its_axis(cost: str, pruned: float, dense: float) -> None:
    point, origin = trade_off.point("id", result(), cost), trade_off.dense_point(result(), cost)
    assert point is not None
    assert origin is not None
    assert (point.cost, point.score, point.error) == (pytest.approx(pruned), 0.95, 0.02)
    assert (origin.cost, origin.score, origin.error, origin.run) == (pytest.approx(dense), 0.97, 0.01, None)


def test_the_score_after_recovery_counts_when_there_was_recovery() -> None:
    point = trade_off.point("id", result(recovered=0.96), "flops")
    assert point is not None
    assert (point.score, point.error, point.recovered) == (0.96, 0.015, True)


def test_without_a_measured_latency_there_is_no_point() -> None:
    assert trade_off.point("id", result(latency=False), "latency") is None
    assert trade_off.dense_point(result(latency=False), "latency") is None
    assert trade_off.measured_how(result(latency=False)) is None
    assert trade_off.point("id", result(latency=False), "bytes") is not None


def test_chart_links_each_point_to_its_run_and_table_agrees() -> None:
    shown = [p for p in (trade_off.dense_point(result(), "flops"), trade_off.point("a", result(), "flops")) if p]
    figure = trade_off.trade_off_chart(shown, "flops", "accuracy")
    assert [trace.name for trace in figure.data] == ["Pareto front", "dense", "pgb"]
    assert figure.data[2].customdata[0][0] == "a"
    assert list(figure.data[2].error_y.array) == pytest.approx([2.0])
    assert [(row["run"], row["front"]) for row in trade_off.trade_off_table(shown)] == [("", True), ("a", True)]
    assert len(figure.to_json()) <= 1_000_000


def test_a_method_has_one_legend_entry_and_open_symbols_after_recovery() -> None:
    shown = [
        Point(None, "dense", 0.0, False, 2.0, 0.97, 0.01),
        Point("a", "kwon", 0.5, False, 1.0, 0.9, 0.01),
        Point("b", "pgb", 0.5, False, 1.0, 0.95, 0.01),
        Point("c", "pgb", 0.5, True, 1.0, 0.96, 0.01),
        Point("d", "kprune", 0.5, True, 1.0, 0.96, 0.01),
        Point("e", "of later", 0.5, False, 1.0, 0.96, 0.01),
    ]
    _, *traces = trade_off.trade_off_chart(shown, "flops", "accuracy").data
    assert [(trace.name, trace.showlegend) for trace in traces] == [
        ("dense", True),
        ("pgb", True),
        ("pgb + recovery", False),
        ("kwon", True),
        ("kprune + recovery", True),
        ("of later", True),
    ]
    assert traces[1].marker.color == traces[2].marker.color
    assert [trace.marker.symbol for trace in traces[1:3]] == ["circle", "circle-open"]


def points_at(*targets: float, method: str = "pgb", recovered: bool = False) -> list[Point]:
    return [Point(f"{method}{n}", method, t, recovered, 1 - t, 0.9 - t / 10, 0.01, t) for n, t in enumerate(targets)]


def test_a_line_joins_the_means_of_a_method_at_its_targets() -> None:
    twice = [*points_at(0.3, 0.6), Point("again", "pgb", 0.6, False, 0.5, 0.8, 0.01, 0.6)]
    shown = [*twice, *points_at(0.3, 0.6, recovered=True), *points_at(0.5, method="kwon")]
    figure = trade_off.trade_off_chart(shown, "flops", "accuracy")
    lines = {trace.name: trace for trace in figure.data if str(trace.name).endswith(", line")}
    assert lines.keys() == {"pgb, line", "pgb + recovery, line"}  # a single point has no line
    assert list(lines["pgb, line"].x) == pytest.approx([0.7, 0.45])
    assert list(lines["pgb, line"].y) == pytest.approx([87.0, 82.0])
    assert (lines["pgb, line"].line.dash, lines["pgb + recovery, line"].line.dash) == ("solid", "dot")


def test_published_figures_are_marked_only_on_the_axis_they_are_for() -> None:
    cited = published("sst2", "accuracy")
    against = trade_off.References(0.5, cited)
    shown = [Point(None, "dense", 0, False, 100.0, 0.93, 0.01), *points_at(0.3, 0.6)]
    by_density = trade_off.trade_off_chart(shown, "density", "accuracy", against).data[-1]
    assert by_density.name == "published"
    assert list(by_density.x) == pytest.approx([100 * p.density for p in cited])
    assert all(custom[0] == "" and custom[3] for custom in by_density.customdata)  # no run to open, but a source
    symbols = {trace.marker.symbol for trace in trade_off.trade_off_chart(shown, "density", "accuracy").data}
    assert by_density.marker.symbol not in symbols
    for cost in ("flops", "latency"):
        names = [trace.name for trace in trade_off.trade_off_chart(shown, cost, "accuracy", against).data]
        assert "published" not in names
    rows = trade_off.reference_table(against)
    assert [row["score"] for row in rows] == [p.score for p in cited]
    assert all(row["source"] and row["setting"] for row in rows)


@pytest.mark.parametrize(("majority", "text", "lines"), [(0.865, "86.5%", 2), (0.2, "20.0% (below)", 1), (None, "", 1)])
def test_dense_and_the_commonest_label_are_references(majority: float | None, text: str, lines: int) -> None:
    shown = [Point(None, "dense", 0, False, 1.0, 0.93, 0.01), *points_at(0.3, 0.6)]
    figure = trade_off.trade_off_chart(shown, "flops", "accuracy", trade_off.References(majority))
    assert len(figure.layout.shapes) == lines
    assert [a.text for a in figure.layout.annotations] == (
        [f"always the commonest label: {text}"] if majority is not None else []
    )
    assert figure.layout.yaxis.range[0] > 80  # what is far below does not squeeze the points

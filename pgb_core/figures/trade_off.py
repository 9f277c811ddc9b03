"""Score against what a model costs, for many runs, with the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from pgb_core.figures.scores import final_step
from pgb_core.figures.style import DENSE, METHODS, OTHER, OUTLINE, frame

COSTS: dict[str, tuple[str, float]] = {
    "latency": ("latency, ms per batch", 1.0),
    "flops": ("GFLOPs per sequence", 1e-9),
    "parameters": ("parameters, millions", 1e-6),
    "bytes": ("size on disk, MB", 1e-6),
}
"""What a model may cost: axis title and factor from the unit of result.json to that of the axis."""


@dataclass(frozen=True)
class Point:
    """One model: its cost in the unit of the axis, score and standard error as fractions; `run` is None for dense."""

    run: str | None
    method: str
    sparsity: float
    recovered: bool
    cost: float
    score: float
    error: float


def point(run: str, result: Mapping[str, Any], cost: str) -> Point | None:
    """The pruned model of a run; None when this cost was not measured."""
    score = result["score"]
    step = final_step(score)
    value = _cost(result, cost, "pruned")
    if value is None:
        return None
    sparsity = result["sparsity"]["achieved"]
    error = score["standard_error"].get(step) or 0.0
    return Point(run, result["method"], sparsity, step == "recovered", value, score[step], error)


def dense_point(result: Mapping[str, Any], cost: str) -> Point | None:
    """The unpruned model that a run started from."""
    score = result["score"]
    value = _cost(result, cost, "dense")
    if value is None:
        return None
    return Point(None, "dense", 0.0, False, value, score["dense"], score["standard_error"].get("dense") or 0.0)


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """The points that no other one beats in both cost and score, by rising cost."""
    front: list[Point] = []
    for candidate in sorted(points, key=lambda p: (p.cost, -p.score)):
        if not front or candidate.score > front[-1].score:
            front.append(candidate)
    return front


def trade_off_chart(points: Sequence[Point], cost: str, metric: str) -> go.Figure:
    """Score against cost with standard errors; each point carries its run's id as customdata.

    Every method has its own color and symbol; after recovery the symbol is open.
    """
    figure = go.Figure()
    front = pareto_front(points)
    figure.add_trace(
        go.Scatter(
            x=[p.cost for p in front],
            y=[100 * p.score for p in front],
            mode="lines",
            line={"color": OUTLINE, "width": 2, "shape": "hv"},
            name="Pareto front",
            hoverinfo="skip",
        )
    )
    families = _families(points)
    for name, members in families.items():
        method, recovered = members[0].method, members[0].recovered
        color, symbol = (DENSE, "star") if method == "dense" else METHODS.get(method, OTHER)
        figure.add_trace(
            go.Scatter(
                x=[p.cost for p in members],
                y=[100 * p.score for p in members],
                error_y={"type": "data", "array": [100 * p.error for p in members], "thickness": 1.2, "width": 4},
                mode="markers",
                name=name,
                legendgroup=method,
                showlegend=not recovered or method not in families,  # one entry per method: a legend has little room
                customdata=[[p.run or "", 100 * p.sparsity] for p in members],
                marker={
                    "size": 15 if method == "dense" else 12,
                    "symbol": f"{symbol}-open" if recovered else symbol,
                    "color": color,
                    "line": {"width": 2.5} if recovered else {"color": "white", "width": 1},
                },
                hovertemplate=f"<b>{name}</b><br>%{{customdata[1]:.1f}}% removed<br>{metric} %{{y:.2f}}% "
                f"(standard error %{{error_y.array:.2f}})<br>{COSTS[cost][0]}: %{{x:.4~g}}<extra></extra>",
                unselected={"marker": {"opacity": 1}},
            )
        )
    frame(figure, height=500, x=COSTS[cost][0], y=f"{metric}, %", legend=True)
    figure.update_layout(margin={"t": 60}, legend={"entrywidth": 110, "entrywidthmode": "pixels"})
    figure.update_xaxes(rangemode="tozero")
    return figure


def trade_off_table(points: Sequence[Point]) -> list[dict[str, Any]]:
    """The chart's numbers by falling score, and whether a point lies on the Pareto front."""
    front = pareto_front(points)
    return [
        {
            "model": "dense" if p.run is None else p.method + (", recovered" if p.recovered else ""),
            "sparsity": p.sparsity,
            "score": p.score,
            "standard_error": p.error,
            "cost": p.cost,
            "front": p in front,
            "run": p.run or "",
        }
        for p in sorted(points, key=lambda p: -p.score)
    ]


def _families(points: Sequence[Point]) -> dict[str, list[Point]]:
    order = ["dense", *METHODS]
    families: dict[str, list[Point]] = {}
    for p in sorted(points, key=lambda p: order.index(p.method) if p.method in order else len(order)):
        families.setdefault(p.method + (" + recovery" if p.recovered else ""), []).append(p)
    return families


def _cost(result: Mapping[str, Any], cost: str, model: str) -> float | None:
    if cost == "latency":
        return None if result["latency"] is None else float(result["latency"][model]["median_ms"])
    return float(result[cost][model]) * COSTS[cost][1]


def measured_how(result: Mapping[str, Any]) -> str | None:
    """How latency was measured, in words; only runs with the same words can be compared. None when it was not."""
    latency = result["latency"]
    if latency is None:
        return None
    threads = "1 thread" if latency["threads"] == 1 else f"{latency['threads']} threads"
    return f"{latency['device']}, {threads}, batch {latency['batch']}, {latency['length']} tokens, {latency['dtype']}"

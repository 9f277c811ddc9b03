"""Score against what a model costs, for many runs, with the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from pgb_core.figures.scores import final_step
from pgb_core.figures.style import DENSE, METHODS, OTHER, OUTLINE, frame
from pgb_core.published import Published

COSTS: dict[str, tuple[str, float]] = {
    "density": ("encoder weights kept, %", 100.0),
    "latency": ("latency, ms per batch", 1.0),
    "flops": ("GFLOPs per sequence", 1e-9),
    "parameters": ("parameters, millions", 1e-6),
    "bytes": ("size on disk, MB", 1e-6),
}
"""What a model may cost: axis title and factor from the unit of result.json to that of the axis."""


@dataclass(frozen=True)
class Point:
    """One model: its cost in the unit of the axis, score and standard error as fractions; `run` is None for dense.

    `target` is the share that was to be removed, `sparsity` the share of encoder weights that was.
    """

    run: str | None
    method: str
    sparsity: float
    recovered: bool
    cost: float
    score: float
    error: float
    target: float = 0.0

    @property
    def name(self) -> str:
        """Method, and whether it was recovered."""
        return self.method + (" + recovery" if self.recovered else "")


def point(run: str, result: Mapping[str, Any], cost: str) -> Point | None:
    """The pruned model of a run; None when this cost was not measured."""
    score = result["score"]
    step = final_step(score)
    value = _cost(result, cost, "pruned")
    if value is None:
        return None
    sparsity, error = result["sparsity"], score["standard_error"].get(step) or 0.0
    recovered = step == "recovered"
    return Point(run, result["method"], sparsity["achieved"], recovered, value, score[step], error, sparsity["target"])


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


@dataclass(frozen=True)
class References:
    """What the points are seen against: the score of always giving the commonest label, and `published` figures.

    Published figures say what density they are for, so they have a place on the axis of densities alone.
    """

    majority: float | None = None
    published: Sequence[Published] = ()


def trade_off_chart(
    points: Sequence[Point], cost: str, metric: str, references: References = References()
) -> go.Figure:
    """Score against cost with standard errors; each point carries its run's id as customdata.

    Every method has its own color, symbol and line, through the mean of its points at each target; after recovery
    the symbol is open and the line dotted.
    """
    figure = go.Figure()
    front = pareto_front(points)
    figure.add_trace(
        go.Scatter(
            x=[p.cost for p in front],
            y=[100 * p.score for p in front],
            mode="lines",
            line={"color": OUTLINE, "width": 5, "shape": "hv"},
            opacity=0.35,
            name="Pareto front",
            hoverinfo="skip",
        )
    )
    families = _families(points)
    lines = [_line(members) for members in families.values() if len({p.target for p in members}) > 1]
    figure.add_traces(lines)
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
    cited = references.published if cost == "density" else ()
    if cited:
        figure.add_trace(_cited(cited, metric))
    frame(figure, height=500, x=COSTS[cost][0], y=f"{metric}, %", legend=True)
    figure.update_layout(margin={"t": 60}, legend={"entrywidth": 110, "entrywidthmode": "pixels"})
    figure.update_xaxes(rangemode="tozero")
    low, high = _limits(points, cited)
    figure.update_yaxes(range=[low, high])
    _levels(figure, points, references.majority, low)
    return figure


def _line(members: Sequence[Point]) -> go.Scatter:
    """Through the mean of the points at each target: a line that goes to and fro between seeds says nothing."""
    color, _ = METHODS.get(members[0].method, OTHER)
    means = []
    for target in sorted({p.target for p in members}):
        group = [p for p in members if p.target == target]
        means.append((sum(p.cost for p in group) / len(group), 100 * sum(p.score for p in group) / len(group)))
    return go.Scatter(
        x=[x for x, _ in means],
        y=[y for _, y in means],
        mode="lines",
        line={"color": color, "width": 1.5, "dash": "dot" if members[0].recovered else "solid"},
        legendgroup=members[0].method,
        name=f"{members[0].name}, line",
        showlegend=False,
        hoverinfo="skip",
    )


def _cited(figures: Sequence[Published], metric: str) -> go.Scatter:
    """Published figures, in a shape and ground that no point of ours has."""
    return go.Scatter(
        x=[100 * p.density for p in figures],
        y=[100 * p.score for p in figures],
        mode="markers+text",
        name="published",
        text=[p.method.removesuffix(" (PGB's baseline)") for p in figures],
        textposition="bottom center",
        textfont={"size": 10, "color": DENSE},
        customdata=[["", p.method, p.setting, p.source] for p in figures],
        marker={"size": 11, "symbol": "asterisk-open", "color": DENSE, "line": {"width": 1.5, "color": DENSE}},
        hovertemplate=f"<b>%{{customdata[1]}}</b>, published, not measured here<br>{metric} %{{y:.2f}}% with "
        "%{x:.4~g}% of the encoder's weights<br>%{customdata[2]}<br>Source: %{customdata[3]}<extra></extra>",
        unselected={"marker": {"opacity": 1}},
    )


def _limits(points: Sequence[Point], cited: Sequence[Published]) -> tuple[float, float]:
    """Lowest and highest percentage of the axis, with room for the symbols."""
    ends = [end for p in points for end in (p.score - p.error, p.score + p.error)] + [p.score for p in cited]
    room = max(0.07 * (max(ends) - min(ends)), 0.005)
    return 100 * (min(ends) - room), 100 * (max(ends) + room)


def _levels(figure: go.Figure, points: Sequence[Point], majority: float | None, low: float) -> None:
    """Lines at the scores of the dense model and of the commonest label; one far below the points is told in words."""
    dense = next((p for p in points if p.run is None), None)
    if dense is not None:
        figure.add_hline(100 * dense.score, line={"color": DENSE, "width": 1, "dash": "dash"})
    if majority is None:
        return
    text = f"always the commonest label: {majority:.1%}"
    label: dict[str, Any] = {"showarrow": False, "font": {"size": 11, "color": DENSE}, "xref": "paper", "x": 1}
    label |= {"xanchor": "right", "yanchor": "bottom"}
    if 100 * majority > low:
        figure.add_hline(100 * majority, line={"color": DENSE, "width": 1, "dash": "dot"})
        figure.add_annotation(text=text, y=100 * majority, **label)
    else:
        figure.add_annotation(text=f"{text} (below)", yref="paper", y=0, **label)


def reference_table(references: References) -> list[dict[str, Any]]:
    """The published figures with their settings and sources, by rising density."""
    return [
        {
            "method": p.method,
            "density": p.density,
            "score": p.score,
            "setting": p.setting,
            "source": p.source,
        }
        for p in references.published
    ]


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
        families.setdefault(p.name, []).append(p)
    return families


def _cost(result: Mapping[str, Any], cost: str, model: str) -> float | None:
    if cost == "latency":
        return None if result["latency"] is None else float(result["latency"][model]["median_ms"])
    if cost == "density":
        parameters = result["parameters"]
        return COSTS[cost][1] * float(parameters[f"encoder_{model}"] / parameters["encoder_dense"])
    return float(result[cost][model]) * COSTS[cost][1]


def measured_how(result: Mapping[str, Any]) -> str | None:
    """How latency was measured, in words; only runs with the same words can be compared. None when it was not."""
    latency = result["latency"]
    if latency is None:
        return None
    threads = "1 thread" if latency["threads"] == 1 else f"{latency['threads']} threads"
    return f"{latency['device']}, {threads}, batch {latency['batch']}, {latency['length']} tokens, {latency['dtype']}"

"""Score against sparsity, method by method: one panel per task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from pgb_core.figures.style import DENSE, METHODS, OTHER, frame

DEEPEST = 0.12
"""Fall from the dense score that is still drawn: what collapses leaves the panel and does not flatten the others."""
SPREAD = 0.6
"""Of the space between two sparsities, over which methods stand side by side, so that no error bar hides another."""


@dataclass(frozen=True)
class Curve:
    """One method on one task: per sparsity the score and the standard error to draw, as fractions."""

    method: str
    recovered: bool
    sparsities: Sequence[float]
    scores: Sequence[float]
    errors: Sequence[float]

    @property
    def name(self) -> str:
        return self.method + (", recovered" if self.recovered else "")


@dataclass(frozen=True)
class Panel:
    """One task: the dense score and the curves."""

    task: str
    dense: float
    curves: Sequence[Curve]


def accuracy_chart(panels: Sequence[Panel], *, height: int = 520) -> go.Figure:
    """A panel per task, the sparsities at equal distances, the methods side by side; the dashed line is dense.

    Recovered curves are dotted with open markers. A click in the legend takes a method out of all panels.
    """
    figure = make_subplots(1, len(panels), subplot_titles=[panel.task for panel in panels], horizontal_spacing=0.08)
    sparsities = sorted({s for panel in panels for curve in panel.curves for s in curve.sparsities})
    methods = list(dict.fromkeys(curve.method for panel in panels for curve in panel.curves))
    legend: set[str] = set()
    for column, panel in enumerate(panels, start=1):
        for curve in panel.curves:
            aside = SPREAD * ((methods.index(curve.method) + 0.5) / len(methods) - 0.5)
            trace = _trace(curve, [sparsities.index(s) + aside for s in curve.sparsities])
            figure.add_trace(trace.update(showlegend=curve.name not in legend), row=1, col=column)
            legend.add(curve.name)
        line = {"color": DENSE, "width": 1.5, "dash": "dash"}
        figure.add_hline(100 * panel.dense, row=1, col=column, exclude_empty_subplots=False, line=line)
        figure.update_yaxes(range=_limits(panel), row=1, col=column)
    frame(figure, height=height, x="encoder weights removed", y="", legend=True)
    figure.update_layout(margin={"t": 110}, legend={"y": 1.1})
    figure.update_yaxes(title="score, %", col=1)
    figure.update_xaxes(
        tickvals=list(range(len(sparsities))),
        ticktext=[f"{sparsity:.0%}" for sparsity in sparsities],
        range=[-0.5, len(sparsities) - 0.5],
        showgrid=False,
    )
    return figure


def _trace(curve: Curve, positions: Sequence[float]) -> go.Scatter:
    color, symbol = METHODS.get(curve.method, OTHER)
    return go.Scatter(
        x=positions,
        y=[100 * score for score in curve.scores],
        error_y={"type": "data", "array": [100 * error for error in curve.errors], "thickness": 1.2, "width": 2},
        customdata=[100 * sparsity for sparsity in curve.sparsities],
        mode="lines+markers",
        name=curve.name,
        legendgroup=curve.name,
        line={"color": color, "width": 1.5, "dash": "dot" if curve.recovered else "solid"},
        marker={
            "size": 8,
            "symbol": symbol + ("-open" if curve.recovered else ""),
            "color": color,
            "line": {"color": color, "width": 1},
        },
        hovertemplate=f"<b>{curve.name}</b><br>%{{customdata:.0f}}% removed: %{{y:.2f}}%"
        " (standard error %{error_y.array:.2f})<extra></extra>",
    )


def _limits(panel: Panel) -> list[float]:
    """Lowest and highest percentage of the panel's axis."""
    ends = [(s - e, s + e) for curve in panel.curves for s, e in zip(curve.scores, curve.errors, strict=True)]
    low = max(min([panel.dense, *(low for low, _ in ends)]), panel.dense - DEEPEST)
    high = max([panel.dense, *(high for _, high in ends)])
    room = max(0.05 * (high - low), 0.002)
    return [100 * (low - room), 100 * (high + room)]

"""Two models of one checkpoint side by side: the difference of their scores, their structure, one of their matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from pgb_core.answers import Answers
from pgb_core.figures.network import Sublayer
from pgb_core.figures.pooling import pool
from pgb_core.figures.style import GRID, SIGNED, frame
from pgb_core.significance import Difference, MeanDifference

FIRST, SECOND = "#2f7ab5", "#d9662b"
"""Colors of the two models: told apart with every common color blindness, on light and dark ground."""
SIGNIFICANT = 0.05


def explain_difference(difference: Difference, first: str, second: str, samples: int) -> str:
    """What the paired test says, in words (Markdown)."""
    if not difference.gained + difference.lost:
        return f"**No difference**: {first} and {second} are right on the very same of the {samples} examples."
    points = f"{100 * difference.value:+.2f} points (standard error {100 * difference.error:.2f})"
    counts = (
        f"{difference.gained} of {samples} examples only {first} gets right, {difference.lost} only {second}; "
        f"McNemar p = {difference.p_value:.2g}"
    )
    if difference.p_value >= SIGNIFICANT:
        return f"**No difference that chance would not explain**: {points}. {counts}."
    better, worse = (first, second) if difference.value > 0 else (second, first)
    return f"**{better[0].upper()}{better[1:]} is better than {worse}**: {points}. {counts}."


def explain_means(difference: MeanDifference, first: str, second: str, samples: int, unit: str) -> str:
    """The same of points that are not just right or wrong; `unit` says what they are."""
    if not difference.better + difference.worse:
        return f"**No difference**: {first} and {second} have the same {unit} on every one of the {samples} examples."
    value = f"{difference.value:+.4f} in the mean of {unit} (standard error {difference.error:.4f})"
    counts = (
        f"{first} is better on {difference.better} of {samples} examples, {second} on {difference.worse}; paired "
        f"z-test p = {difference.p_value:.2g}"
    )
    if difference.p_value >= SIGNIFICANT:
        return f"**No difference that chance would not explain**: {value}. {counts}."
    better, worse = (first, second) if difference.value > 0 else (second, first)
    return f"**{better[0].upper()}{better[1:]} is better than {worse}**: {value}. {counts}."


def discordant(first: Answers, second: Answers, stages: tuple[str, str], right: int) -> NDArray[np.int64]:
    """Places of the examples that model `right` (0 or 1) gets right and the other wrong, the most wrongly first."""
    correct = first.right(stages[0]), second.right(stages[1])
    wrong = (second if right == 0 else first).said[stages[1 - right]]
    places = np.flatnonzero(correct[right] & ~correct[1 - right])
    order: NDArray[np.int64] = places[np.argsort(-wrong.probability[places], kind="stable")]
    return order


def example_table(
    first: Answers, second: Answers, stages: tuple[str, str], places: Sequence[int]
) -> list[dict[str, Any]]:
    """One row per example: its row in the split (from 1), the right label, what each model says and how surely."""
    names, models = first.label_names, (first.said[stages[0]], second.said[stages[1]])
    return [
        {
            "row": int(first.rows[place]) + 1,
            "label": names[first.labels[place]],
            **{f"says_{n}": names[said.predicted[place]] for n, said in enumerate(models)},
            **{f"sure_{n}": float(said.probability[place]) for n, said in enumerate(models)},
        }
        for place in places
    ]


# --- structure -----------------------------------------------------------------------------------------------------


def whole(network: Sequence[Sublayer]) -> tuple[Sublayer, ...]:
    """The dense network that `network` was made of."""
    return tuple(replace(s, group_units=(s.units,), density=1.0, kept_importance=1.0, untied="") for s in network)


def structure_chart(first: Sequence[Sublayer], second: Sequence[Sublayer], names: tuple[str, str]) -> go.Figure:
    """The share of weights that each model keeps of every sublayer, input on top."""
    figure = go.Figure()
    titles = [s.title for s in first]
    for network, name, color in ((first, names[0], FIRST), (second, names[1], SECOND)):
        figure.add_trace(
            go.Bar(
                y=list(range(len(network))),
                x=[100 * s.density for s in network],
                orientation="h",
                name=name,
                marker={"color": color},
                customdata=[[s.title, s.summary] for s in network],
                text=["dropped" if s.dropped else "" for s in network],
                textposition="outside",
                cliponaxis=False,
                hovertemplate=f"<b>{name}</b><br>%{{customdata[0]}}: %{{customdata[1]}}<br>%{{x:.1f}}% of the weights"
                "<extra></extra>",
            )
        )
    frame(figure, height=110 + 34 * len(titles), x="weights kept, %", y="", legend=True)
    figure.update_layout(barmode="group", bargap=0.3, margin={"t": 40})
    figure.update_xaxes(range=[0, 105])
    figure.update_yaxes(
        tickvals=list(range(len(titles))), ticktext=titles, range=[len(titles) - 0.5, -0.5], showgrid=False
    )
    return figure


def structure_table(first: Sequence[Sublayer], second: Sequence[Sublayer]) -> list[dict[str, Any]]:
    """The chart's numbers, one row per sublayer."""
    return [
        {"sublayer": a.title, "first": a.summary, "first_density": a.density, "second": b.summary,
         "second_density": b.density, "change": b.density - a.density}
        for a, b in zip(first, second, strict=True)
    ]  # fmt: skip


# --- one matrix ----------------------------------------------------------------------------------------------------


def common_limit(matrices: Sequence[NDArray[np.float32]]) -> float:
    """Where one color scale for all `matrices` saturates: the 99.5th percentile of the magnitude of what is kept."""
    kept = np.concatenate([np.empty(0), *(np.abs(values[~np.isnan(values)]) for values in matrices)])
    return float(np.quantile(kept, 0.995)) or 1.0 if kept.size else 1.0


def matrix_chart(values: NDArray[np.float32], limit: float) -> go.Figure:
    """A matrix (rows, columns) in its original order; NaN is removed and stays blank; colors from -limit to limit."""
    pooled = pool(values, "extreme")
    rows, columns = pooled.row_step, pooled.column_step
    cell = "" if pooled.exact else f"<br>largest by magnitude of a cell of {rows} x {columns}"
    figure = go.Figure(
        go.Heatmap(
            z=pooled.cells,
            y0=(rows - 1) / 2,
            dy=rows,
            x0=(columns - 1) / 2,
            dx=columns,
            zmin=-limit,
            zmax=limit,
            colorscale=SIGNED,
            hoverongaps=False,
            colorbar={
                "orientation": "h", "thickness": 8, "y": 1.0, "yanchor": "bottom", "xpad": 0, "ypad": 6, "nticks": 5,
            },
            hovertemplate=f"row %{{y:.0f}}, column %{{x:.0f}}<br>weight %{{z:.4f}}{cell}<extra></extra>",
        )
    )  # fmt: skip
    frame(figure, height=430, x="original column (input)", y="original row (output)")
    figure.update_layout(margin={"t": 34, "r": 24})
    border = {"showline": True, "mirror": True, "linewidth": 1, "linecolor": GRID, "showgrid": False}
    figure.update_xaxes(border, range=[-0.5, values.shape[1] - 0.5], constrain="domain")
    figure.update_yaxes(border, range=[values.shape[0] - 0.5, -0.5])
    return figure


def cell_table(values: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """The cells of `matrix_chart` by column; NaN where all weights of a cell are removed."""
    return pool(values, "extreme").table()


def matrix_table(values: NDArray[np.float32]) -> dict[str, Any]:
    """What one of the matrices comes to."""
    kept = values[~np.isnan(values)]
    return {
        "weights": kept.size,
        "density": kept.size / values.size,
        "rows": int((~np.isnan(values)).any(axis=1).sum()),
        "columns": int((~np.isnan(values)).any(axis=0).sum()),
        "largest": float(np.abs(kept).max()) if kept.size else 0.0,
        "norm": float(np.linalg.norm(kept)),
    }

"""The score after each step of a run, with its standard error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from pgb_core.figures.style import DENSE, frame
from pgb_core.metrics import phrase

STEPS = {
    "dense": "Dense",
    "masked": "After cutting",
    "compensated": "After the refit",
    "recovered": "After recovery",
}
COLORS = {"dense": DENSE, "masked": "#d9662b", "compensated": "#2f7ab5", "recovered": "#0a9a73"}


def final_step(score: Mapping[str, Any]) -> str:
    """The last step that ran: `recovered` when there was recovery, else `compensated`."""
    return "recovered" if score.get("recovered") is not None else "compensated"


def score_table(score: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per step that ran: score, standard error and difference to dense, as fractions."""
    errors = score["standard_error"]
    return [
        {
            "step": title,
            "score": score[step],
            "standard_error": errors.get(step),
            "difference": score[step] - score["dense"],
        }
        for step, title in STEPS.items()
        if score.get(step) is not None
    ]


def score_chart(score: Mapping[str, Any]) -> go.Figure:
    """A point with its standard error per step, top to bottom; the dashed line is the dense model."""
    steps = [step for step in STEPS if score.get(step) is not None]
    values = [100 * score[step] for step in steps]
    errors = [100 * (score["standard_error"].get(step) or 0.0) for step in steps]
    figure = go.Figure(
        go.Scatter(
            x=values,
            y=list(range(len(steps))),
            error_x={"type": "data", "array": errors, "color": "rgba(128,140,150,0.9)", "thickness": 1.5, "width": 6},
            mode="markers",
            text=[STEPS[step] for step in steps],
            marker={"size": 13, "color": [COLORS[step] for step in steps]},
            hovertemplate="%{text}: %{x:.2f}%, standard error %{error_x.array:.2f}<extra></extra>",
            cliponaxis=False,
        )
    )
    figure.add_vline(x=values[0], line={"color": DENSE, "width": 1, "dash": "dash"})
    frame(figure, height=90 + 58 * len(steps), x=f"{phrase(score['metric'])}, %", y="")
    low, high = min(v - e for v, e in zip(values, errors, strict=True)), max(map(sum, zip(values, errors, strict=True)))
    room = max(0.08 * (high - low), 0.5)
    figure.update_xaxes(range=[low - room, high + room])
    figure.update_yaxes(
        tickvals=list(range(len(steps))),
        ticktext=[
            f"{STEPS[step]}<br><b>{value:.1f}%</b> ± {error:.1f}"
            for step, value, error in zip(steps, values, errors, strict=True)
        ],
        range=[len(steps) - 0.5, -0.5],
        showgrid=False,
    )
    return figure

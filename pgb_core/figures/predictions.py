"""What the option tables predict for each of the methods that share them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from pgb_core.figures.style import METHODS, OTHER, OUTLINE, frame

EVEN = 0.02
"""Predicted losses that differ by no more than this share are called even."""


def prediction_table(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per method that shares the run's tables, in the order of result.json.

    `ratio` is the predicted loss divided by that of the run's own method; None where that is 0. All values of a method
    that cannot reach the target are None.
    """
    predictions, own = result["predictions"], result["predictions"][result["method"]]
    return [
        {
            "method": method,
            "chosen": method == result["method"],
            "loss": prediction and prediction["loss"],
            "ratio": prediction["loss"] / own["loss"] if prediction and own["loss"] > 0 else None,
            "grouped": prediction and prediction["grouped"],
            "dropped": prediction and prediction["dropped"],
            "sparsity": prediction and prediction["sparsity"],
        }
        for method, prediction in predictions.items()
    ]


def explain_predictions(result: Mapping[str, Any]) -> str:
    """Which method is predicted best and how close the others are; or why there is nothing to compare."""
    method = result["method"]
    if not result["predictions"]:
        return (
            f"{method} chooses by rules of its own, without a table of options, so nothing is predicted here; "
            "compare measured scores on the Trade-off page."
        )
    rows = prediction_table(result)
    if len(rows) == 1:
        return f"{method} has option tables of its own, which no other method shares: there is nothing to compare."
    within = [row for row in rows if row["ratio"] is not None]
    if not within:
        return "Nothing is predicted to be lost at this target, by any of these methods."
    best = min(within, key=lambda row: (row["ratio"], not row["chosen"]))
    others = [f"{row['method']} {_against(row['ratio'] / best['ratio'])}" for row in within if row is not best]
    out = [row["method"] for row in rows if row["loss"] is None]
    text = f"{best['method']} is predicted best"
    text += f"; against it, {' and '.join(others)}." if others else "."
    if out:
        text += f" Out of reach at this target: {' and '.join(out)}."
    return text


def _against(ratio: float) -> str:
    """What a loss `ratio` times the least one, at least 1, is called."""
    if ratio <= 1 + EVEN:
        return "is even"
    return f"loses {100 * (ratio - 1):.0f}% more" if ratio < 2 else f"loses {ratio:.1f} times as much"


def prediction_chart(result: Mapping[str, Any]) -> go.Figure:
    """A bar per method: its predicted loss in percent of that of the run's own method, which is outlined."""
    rows = [row for row in prediction_table(result) if row["ratio"] is not None]
    values = [100 * row["ratio"] for row in rows]
    figure = go.Figure(
        go.Bar(
            x=values,
            y=[row["method"] for row in rows],
            orientation="h",
            text=[f"{value:.0f}%" for value in values],
            textposition="outside",
            cliponaxis=False,
            marker={
                "color": [METHODS.get(row["method"], OTHER)[0] for row in rows],
                "line": {"color": OUTLINE, "width": [3 if row["chosen"] else 0 for row in rows]},
            },
            customdata=[[row["loss"], row["grouped"], row["dropped"]] for row in rows],
            hovertemplate="<b>%{y}</b><br>predicted loss %{customdata[0]:.3g}<br>%{customdata[1]} sublayers grouped, "
            "%{customdata[2]} dropped<extra></extra>",
        )
    )
    frame(figure, height=70 + 42 * len(rows), x=f"predicted loss, % of {result['method']}'s", y="")
    figure.update_layout(bargap=0.35, margin={"r": 48})
    figure.update_xaxes(rangemode="tozero")
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return figure

"""How a recovery went: the training loss, and the score on the examples set aside at each look."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from pgb_core.figures.style import DENSE, OUTLINE, frame
from pgb_core.metrics import phrase

SET_ASIDE = "#2f7ab5"


def recovery_table(recovery: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per look: epochs so far, losses, score, and whether that state was kept."""
    return [{**look, "kept": n == recovery["kept"]} for n, look in enumerate(recovery["history"])]


def explain_recovery(recovery: Mapping[str, Any], epochs: int) -> str:
    """What was trained on what, and which state was kept; `epochs` were asked for."""
    kept, last = recovery["history"][recovery["kept"]], recovery["history"][-1]
    text = (
        f"Trained on {recovery['trained']:,} examples, learning rate {recovery['learning_rate']:g}, "
        f"batches of {recovery['batch_size']}. "
    )
    if not recovery["set_aside"]:
        return text + "Too few examples to set some aside, so the last state was kept."
    if last["epoch"] < epochs:
        text += f"Stopped after {epochs_text(last['epoch'])} of {epochs}, when nothing had become better for a while. "
    return text + (
        f"{recovery['set_aside']:,} training examples were set aside to choose the state: kept was the one after "
        f"{epochs_text(kept['epoch'])}, {phrase(recovery['metric'])} {100 * kept['dev_score']:.1f}% on them."
    )


def epochs_text(count: float) -> str:
    """A number of epochs in words."""
    return f"{count:g} epoch{'' if count == 1 else 's'}"


def recovery_chart(recovery: Mapping[str, Any]) -> go.Figure:
    """Against the epochs: the score on the examples set aside, if any, above the losses; the kept state is ringed."""
    history, kept = recovery["history"], recovery["kept"]
    scored = bool(recovery["set_aside"])
    figure = make_subplots(rows=1 + scored, cols=1, shared_xaxes=True, vertical_spacing=0.08)
    epochs = [look["epoch"] for look in history]

    def line(name: str, values: list[float | None], color: str, row: int, hover: str, dash: str = "solid") -> None:
        style = {"color": color, "width": 2, "dash": dash}
        trace = go.Scatter(x=epochs, y=values, name=name, mode="lines+markers", line=style, marker={"size": 7})
        trace.hovertemplate = f"{name} after %{{x:g}} epochs: {hover}<extra></extra>"
        figure.add_trace(trace, row=row, col=1)

    if scored:
        scores = [100 * look["dev_score"] for look in history]
        line(f"{phrase(recovery['metric'])}, set aside", scores, SET_ASIDE, 1, "%{y:.2f}%")
        ring = {"symbol": "circle-open", "size": 18, "color": OUTLINE, "line": {"width": 3}}
        figure.add_trace(
            go.Scatter(x=[epochs[kept]], y=[scores[kept]], mode="markers", name="kept", marker=ring, hoverinfo="skip"),
            row=1,
            col=1,
        )
        line("loss, set aside", [look["dev_loss"] for look in history], SET_ASIDE, 2, "%{y:.3f}", "dot")
    line("loss, training", [look["loss"] for look in history], DENSE, 1 + scored, "%{y:.3f}")
    frame(figure, height=360 if scored else 240, x="", y="loss", legend=True)
    figure.update_layout(margin={"t": 60})
    figure.update_xaxes(title="epochs", row=1 + scored, col=1)
    figure.update_yaxes(rangemode="tozero", row=1 + scored, col=1)
    if scored:
        figure.update_yaxes(title=f"{phrase(recovery['metric'])}, %", row=1, col=1)
    return figure

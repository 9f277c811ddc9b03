"""What a slider has on its way: predicted loss against the target, and what a plan means in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from pgb_core.experience import COVERAGE, FEWEST, Band, Experience
from pgb_core.figures.style import METHODS, OTHER, OUTLINE, frame
from pgb_core.replan import LATENCY, Plan, Return
from pgb_core.scored import Record

AXES = {
    "weights": "encoder weights removed, %",
    "flops": "encoder FLOPs removed, %",
    LATENCY: "latency target, ms",
}
UNITS = {"weights": (1e5, "100,000 weights"), "flops": (1e9, "GFLOP"), LATENCY: (1e3, "ms")}
"""How a price is told: per so many units of cost, in words."""


def loss_curve(path: Sequence[Plan], here: Plan, goal: str, method: str) -> go.Figure:
    """Predicted loss of the best plan at each target, on a logarithmic scale, with the present one ringed.

    Targets at which nothing is predicted lost have no place on that scale and are left out.
    """
    scale = 1.0 if goal == LATENCY else 100.0
    shown = [plan for plan in path if plan.loss > 0]
    color, symbol = METHODS.get(method, OTHER)
    figure = go.Figure(
        go.Scatter(
            x=[scale * plan.target for plan in shown],
            y=[plan.loss for plan in shown],
            mode="lines",
            line={"color": color, "width": 2},
            hovertemplate="%{x:.3g}: predicted loss %{y:.3g} nats<extra></extra>",
        )
    )
    if here.loss > 0:
        figure.add_trace(
            go.Scatter(
                x=[scale * here.target],
                y=[here.loss],
                mode="markers",
                marker={"symbol": symbol, "size": 12, "color": color, "line": {"color": OUTLINE, "width": 3}},
                cliponaxis=False,
                hovertemplate="here: predicted loss %{y:.3g} nats<extra></extra>",
            )
        )
    frame(figure, height=260, x=AXES[goal], y="predicted loss, nats")
    figure.update_layout(margin={"l": 80, "b": 67})
    figure.update_yaxes(type="log", exponentformat="power", dtick=1)
    return figure


def curve_table(record: Record, path: Sequence[Plan], experience: Experience | None) -> list[dict[str, Any]]:
    """The curve's numbers, one row per target; the drops of the score are what past runs lead one to expect."""
    rows = []
    for plan in path:
        picks = [sub.options[n] for sub, n in zip(record.sublayers, plan.options, strict=True)]
        band = experience.band(plan.loss) if experience else None
        rows.append(
            {
                "target": plan.target,
                "loss": plan.loss,
                "dropped": sum(option["groups"] == 0 for option in picks),
                "grouped": sum(option["groups"] > 1 for option in picks),
                "drop": band and band.expected,
                "low": band and band.low,
                "high": band and band.high,
            }
        )
    return rows


# --- in words ------------------------------------------------------------------------------------------------------


def explain_return(found: Return | None, goal: str, present: float, margin: float) -> str:
    """When a dropped sublayer comes back.

    Args:
        present: the target at which it is dropped.
        margin: the price of a unit of cost there, in nats.
    """
    if found is None:
        return "This method has no other option here that meets your limits."
    size, unit = UNITS[goal]
    if found.price <= 0:
        text = f"No option would lower the predicted loss here: even {found.label} saves nothing."
    else:
        text = (
            f"It comes back as **{found.label}** when the price falls to **{size * found.price:.3g} nats per {unit}**; "
            f"at the margin of this plan it is {size * margin:.3g}."
        )
    if found.target is None:
        way = "no slower target" if goal == LATENCY else "no lower sparsity"
        return f"{text} At {way} does the plan keep any of it."
    where = f"{found.target:.1f} ms" if goal == LATENCY else f"{found.target:.0%}"
    now = f"{present:.1f} ms" if goal == LATENCY else f"{present:.0%}"
    return f"{text} Moving the target from {now}, that is at **{where}**."


def explain_band(band: Band | None, experience: Experience | None, runs: int) -> str:
    """What past runs say of the score, and on how many of them it rests."""
    if experience is None:
        have = "No finished run" if runs == 0 else f"{runs} finished run{'' if runs == 1 else 's'}"
        return (
            f"{have} of this checkpoint and task yet: what a predicted loss means for the score is not known here. "
            f"{FEWEST} runs at different targets give a band."
        )
    if band is None:
        return (
            f"The {experience.runs} finished runs went up to a predicted loss of {experience.largest:.3g} nats; "
            "beyond, they say nothing of the score."
        )
    return (
        f"Score expected to change by **{points(-band.expected)}**; {COVERAGE:.0%} of new runs would fall between "
        f"{points(-band.high)} and {points(-band.low)}. From {experience.runs} finished runs of this checkpoint and "
        "task, after the refit, without recovery."
    )


def points(fraction: float) -> str:
    """A difference of scores in percentage points, with its sign."""
    return f"{100 * fraction:+.1f} points"

"""What all figures share: colors and frame."""

from __future__ import annotations

import plotly.graph_objects as go

SIGNED = ["#08407e", "#2f7ab5", "#9ccae1", "#f4f4f2", "#f9b780", "#d9662b", "#7f2704"]
"""Blue, neutral, orange: told apart with every common color blindness; zero is in the middle."""
RISING = "Cividis"
DENSITY = ["#d6ebf2", "#8ac6da", "#3d97b4", "#1f6f8b", "#0f4a60"]
METHODS = {
    "pgb": ("#2f7ab5", "circle"),
    "pgb-mixed": ("#22c3e6", "square"),
    "structured": ("#d9662b", "diamond"),
    "pgb-paper": ("#5a14a8", "pentagon"),
    "magnitude": ("#a39f86", "x"),
    "heads-neurons": ("#f5c000", "triangle-up"),
    "kwon": ("#8f1010", "triangle-down"),
    "kprune": ("#b83fe8", "cross"),
}
"""Color and marker symbol of each method: any two colors are told apart with every common color blindness."""
OTHER = ("#7b6aa8", "circle")
DENSE = "#5d6b75"
FOLLOWED = "#e0218a"
"""The one weight that is followed: seen on blue, orange, yellow and both grounds."""
OUTLINE = "#0a9a73"
"""Group outlines: visible on light and dark ground and between blue and orange."""
BADGE = "#17232b"
GRID = "rgba(128,140,150,0.25)"


def frame(figure: go.Figure, *, height: int, x: str, y: str, legend: bool = False) -> go.Figure:
    """Give `figure` the common margins, axis titles and grid; returns it.

    Margins grow to what axes and color bars need, at the price of drawing everything again: a figure of many cells had
    better ask for that room.
    """
    at_once = {"overwrite": True}  # or every single property is compared first, which takes three times as long
    figure.update_layout(
        height=height,
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        showlegend=legend,
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0, "title": ""},
        dragmode="zoom",
        hoverlabel={"align": "left"},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        **at_once,
    )
    figure.update_xaxes(title=x, automargin=True, gridcolor=GRID, zeroline=False, **at_once)
    figure.update_yaxes(title=y, automargin=True, gridcolor=GRID, zeroline=False, **at_once)
    return figure

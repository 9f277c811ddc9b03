"""A checkpoint's weights as two small pictures: how large they are, and how fast their singular values fall."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from pgb_core.figures.style import RISING, frame
from pgb_core.spectra import DECOMPOSED, ENERGY, RANKS, Spectra, decomposed

TITLES: Mapping[str, str] = {
    "query": "query",
    "key": "key",
    "value": "value",
    "attention_exit": "attention output",
    "intermediate": "intermediate",
    "output": "output",
}
_COLORS = ("#2f7ab5", "#22c3e6", "#d9662b", "#b83fe8", "#c99a00", "#a39f86")
"""Told apart on light and on dark ground, as those of `style.METHODS`."""
_MARKS = ("circle", "square", "diamond", "cross", "x", "triangle-up")
_DARKEST = 0.15
"""Of the rising scale: what is darker is not seen on dark ground."""
HEIGHT = 240


def sizes(spectra: Spectra) -> go.Figure:
    """Root mean square of each matrix's weights against the layer, one line per matrix."""
    figure = go.Figure()
    for (name, title), color, mark in zip(TITLES.items(), _COLORS, _MARKS, strict=True):
        figure.add_trace(
            go.Scatter(
                x=[number + 1 for number in range(len(spectra))],
                y=[layer[name].rms for layer in spectra],
                name=title,
                mode="lines+markers",
                line={"color": color, "width": 1.5},
                marker={"symbol": mark, "size": 6},
                hovertemplate=f"layer %{{x}}, {title}<br>root mean square %{{y:.4f}}<extra></extra>",
            )
        )
    frame(figure, height=HEIGHT + 60, x="layer", y="root mean square", legend=True)
    figure.update_xaxes(dtick=max(1, len(spectra) // 6), fixedrange=True)
    figure.update_yaxes(rangemode="tozero", fixedrange=True)
    return figure


def decay(spectra: Spectra, matrix: str) -> go.Figure:
    """Singular values of one matrix of every layer as shares of the largest, against the share of directions."""
    figure = go.Figure()
    last = max(len(spectra) - 1, 1)
    scale = sample_colorscale(RISING, [_DARKEST + (1 - _DARKEST) * n / 8 for n in range(9)])
    colors = sample_colorscale(scale, [number / last for number in range(len(spectra))])
    for number, layer in enumerate(spectra):
        figure.add_trace(
            go.Scatter(
                x=[100 * rank for rank in RANKS],
                y=[100 * value for value in layer[matrix].decay],
                name=str(number + 1),
                mode="lines",
                line={"color": colors[number], "width": 1.5},
                hovertemplate=f"layer {number + 1}<br>direction at %{{x:.0f}}% of all: %{{y:.1f}}% of the largest"
                "<extra></extra>",
            )
        )
    bar = {"title": {"text": "layer", "side": "top"}, "thickness": 8, "len": 0.9}
    bar |= {"tickvals": [1, len(spectra)]} if len(spectra) > 1 else {}
    figure.add_trace(  # no points: it only carries the color bar
        go.Scatter(
            x=[None],
            y=[None],
            mode="markers",
            marker={"color": [1], "cmin": 1, "cmax": len(spectra), "colorscale": scale, "colorbar": bar},
            hoverinfo="skip",
        )
    )
    frame(figure, height=HEIGHT, x="directions, strongest first, %", y="% of the largest")
    figure.update_xaxes(range=[0, 100], fixedrange=True)
    figure.update_yaxes(rangemode="tozero", fixedrange=True)
    return figure


def table(spectra: Spectra) -> list[dict[str, Any]]:
    """One row per layer: root mean square of every matrix, share of directions that hold most of a decomposed one."""
    return [
        {
            "layer": number + 1,
            **{title: layer[name].rms for name, title in TITLES.items()},
            **{
                f"{TITLES[name]}: directions with {ENERGY:.0%} of the squares": layer[name].directions
                for name in DECOMPOSED
                if decomposed(spectra, name)
            },
        }
        for number, layer in enumerate(spectra)
    ]


def decay_table(spectra: Spectra, matrix: str) -> list[dict[str, Any]]:
    """One row per share of directions, one column per layer: singular values as shares of the largest."""
    return [
        {"directions": rank, **{f"layer {n + 1}": layer[matrix].decay[place] for n, layer in enumerate(spectra)}}
        for place, rank in enumerate(RANKS)
    ]

"""All matrices of a network as small pictures: what is left of each, the groups one after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from pgb_core.figures.network import KIND_TITLES
from pgb_core.figures.style import DENSITY, GRID, OUTLINE, frame
from pgb_core.layout import ENTRY_NAMES, EXIT_NAME, MatrixLayout

SIDE = 24
"""Cells along a side of a picture; every matrix is stretched to a square."""
GAP = 4
Key = tuple[int, str, str]

COLUMNS = tuple((kind, name) for kind in KIND_TITLES for name in (*ENTRY_NAMES[kind], EXIT_NAME))  # type: ignore[index]
"""Kind and name of the matrices of a layer, in the order of the forward pass."""


@dataclass(frozen=True, eq=False)
class Thumbnail:
    """What one small picture shows: (layer, kind, name), the layout, and the share of the importance that it kept."""

    key: Key
    layout: MatrixLayout
    kept_importance: float


def thumbnails(layouts: Mapping[Key, MatrixLayout], kept_importance: Mapping[Key, float]) -> tuple[Thumbnail, ...]:
    """One per matrix, layer by layer in the order of the forward pass."""
    return tuple(Thumbnail(key, layout, kept_importance[key]) for key, layout in layouts.items())


def wall(found: Sequence[Thumbnail], selected: int | None = None) -> go.Figure:
    """A row per layer, a column per matrix; in color what is kept, as dark as the share of the importance it holds.

    A click anywhere selects the nearest picture, which carries its place in `found` as customdata; `selected` is
    framed.
    """
    layers = sorted({t.key[0] for t in found})
    step = SIDE + GAP
    corners = [(step * layers.index(t.key[0]), step * COLUMNS.index((t.key[1], t.key[2]))) for t in found]
    cells = np.zeros((step * len(layers) - GAP, step * len(COLUMNS) - GAP), dtype=np.uint8)
    for t, (top, left) in zip(found, corners, strict=True):
        cells[top : top + SIDE, left : left + SIDE] = kept_cells(t.layout) * round(1 + 100 * t.kept_importance)
    shades = [[0.01 + 0.99 * n / (len(DENSITY) - 1), shade] for n, shade in enumerate(DENSITY)]
    blank = "rgba(0,0,0,0)"
    bar: dict[str, Any] = {"title": {"text": "importance kept, %", "side": "top"}, "orientation": "h", "thickness": 8}
    bar |= {"y": 1.0, "yanchor": "bottom", "xpad": 0, "ypad": 4, "tickvals": [1, 26, 51, 76, 101]}
    bar |= {"ticktext": ["0", "25", "50", "75", "100"], "ticklabeloverflow": "allow"}
    figure = go.Figure(
        go.Heatmap(
            z=cells,
            zmin=0,
            zmax=101,
            colorscale=[[0, blank], [0.005, blank], [0.005, DENSITY[0]], *shades],
            hoverinfo="skip",
            colorbar=bar,
        )
    )
    figure.add_trace(_frames(corners, GRID, 1))
    if selected is not None:
        figure.add_trace(_frames([corners[selected]], OUTLINE, 3))
    figure.add_trace(
        go.Scatter(
            x=[left + (SIDE - 1) / 2 for _, left in corners],
            y=[top + (SIDE - 1) / 2 for top, _ in corners],
            mode="markers",
            marker={"size": 30, "opacity": 0},
            customdata=[[place] for place in range(len(found))],
            hovertext=[_hover(t) for t in found],
            hovertemplate="%{hovertext}<extra></extra>",
            showlegend=False,
        )
    )
    frame(figure, height=120 + 40 * len(layers), x="", y="layer")
    figure.update_layout(margin={"t": 90, "r": 16, "b": 90, "l": 74}, hoverdistance=-1, dragmode=False)
    figure.update_xaxes(
        tickvals=[step * n + (SIDE - 1) / 2 for n in range(len(COLUMNS))],
        ticktext=[name if len(name) < 8 else f"{name[:5]}-<br>{name[5:]}" for _, name in COLUMNS],
        range=[-GAP / 2, cells.shape[1] - 1 + GAP / 2],
        showgrid=False,
        tickangle=0,
        fixedrange=True,
    )
    figure.update_yaxes(
        tickvals=[step * n + (SIDE - 1) / 2 for n in range(len(layers))],
        ticktext=[str(layer + 1) for layer in layers],
        range=[cells.shape[0] - 1 + GAP / 2, -GAP / 2],
        showgrid=False,
        fixedrange=True,
    )
    return figure


def kept_cells(layout: MatrixLayout) -> NDArray[np.uint8]:
    """(SIDE, SIDE), 1 where the weight at evenly spaced places of the permuted matrix is kept, else 0."""
    rows, columns = _places(layout.rows), _places(layout.columns)
    row_groups, column_groups = _membership(layout.row_groups, rows), _membership(layout.column_groups, columns)
    kept = (row_groups[:, None] == column_groups[None, :]) & (row_groups[:, None] >= 0)
    if layout.support is not None:
        kept &= layout.support[np.ix_(layout.row_order()[rows], layout.column_order()[columns])]
    return np.asarray(kept, dtype=np.uint8)


def thumbnail_table(found: Sequence[Thumbnail]) -> list[dict[str, Any]]:
    """One row per matrix: layer from 1, half, name, size, groups, density, kept importance."""
    return [
        {
            "layer": t.key[0] + 1,
            "half": KIND_TITLES[t.key[1]],
            "matrix": t.key[2],
            "rows": t.layout.rows,
            "columns": t.layout.columns,
            "groups": len(t.layout.row_groups),
            "density": t.layout.density,
            "kept_importance": t.kept_importance,
        }
        for t in found
    ]


def _places(length: int) -> NDArray[np.int64]:
    return ((np.arange(SIDE) + 0.5) * length / SIDE).astype(np.int64)


def _membership(groups: Sequence[NDArray[np.int64]], places: NDArray[np.int64]) -> NDArray[np.int64]:
    """Group, from 0, at each permuted place; -1 in none."""
    ends = np.cumsum([len(members) for members in groups])
    found = np.searchsorted(ends, places, side="right")
    return np.where(found < len(groups), found, -1)


def _frames(corners: Sequence[tuple[int, int]], color: str, width: float) -> go.Scatter:
    x: list[float | None] = []
    y: list[float | None] = []
    for top, left in corners:
        bottom, right = top + SIDE - 0.5, left + SIDE - 0.5
        x += [left - 0.5, right, right, left - 0.5, left - 0.5, None]
        y += [top - 0.5, top - 0.5, bottom, bottom, top - 0.5, None]
    return go.Scatter(x=x, y=y, mode="lines", line={"color": color, "width": width}, hoverinfo="skip", showlegend=False)


def _hover(t: Thumbnail) -> str:
    layer, kind, name = t.key
    size = f"{t.layout.rows} x {t.layout.columns}"
    if not t.layout.row_groups:
        left = "dropped"
    else:
        count = len(t.layout.row_groups)
        left = f"{count} group{'' if count == 1 else 's'}, {t.layout.density:.1%} of the weights"
        left += f", {t.kept_importance:.1%} of the importance"
    return f"<b>Layer {layer + 1} {KIND_TITLES[kind]}: {name}</b><br>{size}<br>{left}"

"""From the original to the permuted order, step by step: the columns gather, then the rows, then the rest is cut.

A step between two orders sorts the rows (or columns) by the place that they have when they are a share of their way
along, so each moves over the picture to its new place. The color is the importance: it is what the permutation
gathers. Of a large matrix evenly spaced rows and columns are drawn, one cell per weight, so that a row stays the same
row from step to step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.colors import get_colorscale

from pgb_core.figures.style import FOLLOWED, GRID, OUTLINE, RISING, frame
from pgb_core.following import Followed
from pgb_core.layout import IntArray
from pgb_core.matrices import DECADES, MatrixView

MOVES = 6
"""Steps in which the columns reach their places; the rows take as many."""
SHOWN = 128
"""Most rows and columns that are drawn."""
_CODES = 254
"""Levels of the color scale: a cell is one byte, and 0 is blank."""
_SECONDS = 0.45


@dataclass(frozen=True, eq=False)
class Step:
    """One picture: the order of all rows and columns, and whether what is outside the groups is gone."""

    title: str
    rows: IntArray
    columns: IntArray
    cut: bool
    inside: float
    """Share of the matrix's importance that lies within the outlines of the groups in this order."""


def steps(view: MatrixView) -> tuple[Step, ...]:
    """Original order, `MOVES` steps of the columns, as many of the rows, and the cut."""
    layout = view.layout
    plain = np.arange(layout.rows), np.arange(layout.columns)
    rows, columns = layout.row_order(), layout.column_order()
    shares = [move / MOVES for move in range(1, MOVES + 1)]
    orders = [("Original order", *plain)]
    orders += [(_title("Columns", share), plain[0], halfway(columns, share)) for share in shares]
    orders += [(_title("Rows", share), halfway(rows, share), columns) for share in shares]
    found = [Step(title, r, c, False, _inside(view, r, c)) for title, r, c in orders]
    return (*found, Step("Cut: only the groups stay", rows, columns, True, sum(view.kept_importance)))


def halfway(order: IntArray, share: float) -> IntArray:
    """An order `share` of the way from 0, 1, 2, ... to `order`: ends there, and begins with the original at 0."""
    place = np.empty(len(order))
    place[order] = np.arange(len(order))
    return np.argsort((1 - share) * np.arange(len(order)) + share * place, kind="stable").astype(np.int64)


def step_table(moves: Sequence[Step]) -> list[dict[str, Any]]:
    """One row per step: its number from 0, what moved, and the share of the importance inside the outlines."""
    return [{"step": n, "title": step.title, "inside": step.inside} for n, step in enumerate(moves)]


def animation(view: MatrixView, moves: Sequence[Step], followed: Followed | None = None) -> go.Figure:
    """The `steps` of `view` as frames with a play button and a slider.

    The title tells the share of the importance inside the outlines. `followed` is marked as it moves.
    """
    shown = (
        _sample(view.layout.rows, followed.row if followed else None),
        _sample(view.layout.columns, followed.column if followed else None),
    )
    block = np.ix_(*shown)
    codes = _encode(view.importance[block])
    codes_cut = np.where(view.layout.mask()[block], codes, np.uint8(0))
    place_row, place_column = (np.cumsum(chosen) - 1 for chosen in shown)  # of an index among those that are drawn
    frames = []
    for number, step in enumerate(moves):
        rows, columns = step.rows[shown[0][step.rows]], step.columns[shown[1][step.columns]]
        cells = (codes_cut if step.cut else codes)[np.ix_(place_row[rows], place_column[columns])]
        traces = [go.Heatmap(z=cells), *_mark(rows, columns, followed)]
        said = {"title": {"text": _says(step)}}
        frames.append(go.Frame(name=str(number), data=traces, traces=[0, 2][: len(traces)], layout=said))
    heatmap = go.Heatmap(z=frames[0].data[0].z, hoverinfo="skip", **_colors())
    figure = go.Figure([heatmap, _outline(view, shown), *frames[0].data[1:]], frames=frames)
    frame(figure, height=520, x="columns (inputs)", y="rows (outputs)")
    title = {"text": _says(moves[0]), "x": 0, "xref": "paper", "y": 0.97, "yanchor": "top", "font": {"size": 14}}
    figure.update_layout(margin={"t": 56, "b": 148, "l": 24, "r": 10}, title=title, **_controls(len(moves)))
    border = {"showline": True, "mirror": True, "linewidth": 1, "linecolor": GRID}
    bare = {**border, "showgrid": False, "showticklabels": False, "ticks": "", "title_standoff": 4}
    figure.update_xaxes(bare, range=[-0.5, shown[1].sum() - 0.5])
    figure.update_yaxes(bare, range=[shown[0].sum() - 0.5, -0.5])
    return figure


def drawn(view: MatrixView) -> str:
    """In words, which rows and columns the animation shows."""
    every = [-(-length // SHOWN) for length in (view.layout.rows, view.layout.columns)]
    if every == [1, 1]:
        return "Every row and column is drawn."
    return f"Drawn: about every {_ordinal(every[0])} row and every {_ordinal(every[1])} column, one cell per weight."


def _ordinal(number: int) -> str:
    return {1: "single", 2: "2nd", 3: "3rd"}.get(number, f"{number}th")


def _title(what: str, share: float) -> str:
    return f"{what} permuted" if share == 1 else f"{what}, {share:.0%} of the way"


def _inside(view: MatrixView, rows: IntArray, columns: IntArray) -> float:
    total = float(view.importance.sum(dtype=np.float64)) or 1.0
    top = left = 0
    found = 0.0
    for r, c in zip(view.layout.row_groups, view.layout.column_groups, strict=True):
        block = np.ix_(rows[top : top + len(r)], columns[left : left + len(c)])
        found += float(view.importance[block].sum(dtype=np.float64))
        top, left = top + len(r), left + len(c)
    return found / total


def _sample(length: int, always: int | None) -> NDArray[np.bool_]:
    """(length,), true for at most about `SHOWN` evenly spaced indices and the one that is always drawn."""
    chosen = np.zeros(length, dtype=bool)
    chosen[np.linspace(0, length - 1, min(SHOWN, length)).round().astype(int)] = True
    if always is not None:
        chosen[always] = True
    return chosen


def _encode(importance: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Levels 1 to 255 of the color scale, which is logarithmic."""
    share = 1 + np.log10(np.maximum(importance, np.float32(10.0**-DECADES))) / DECADES
    return (1 + np.round(_CODES * share)).astype(np.uint8)


def _colors() -> dict[str, Any]:
    scale = get_colorscale(RISING)
    first = 1 / (_CODES + 1)
    blank = "rgba(0,0,0,0)"
    levels = [[0, blank], [first / 2, blank], [first / 2, scale[0][1]]]
    levels += [[first + (1 - first) * place, shade] for place, shade in scale]
    return {"colorscale": levels, "zmin": 0, "zmax": _CODES + 1, "showscale": False}


def _mark(rows: IntArray, columns: IntArray, followed: Followed | None) -> list[go.Scatter]:
    if followed is None:
        return []
    x, y = np.flatnonzero(columns == followed.column), np.flatnonzero(rows == followed.row)
    ring = {"symbol": "circle-open", "size": 16, "color": FOLLOWED, "line": {"width": 3}}
    return [go.Scatter(x=x, y=y, mode="markers", marker=ring, hoverinfo="skip", showlegend=False, cliponaxis=False)]


def _outline(view: MatrixView, shown: tuple[NDArray[np.bool_], NDArray[np.bool_]]) -> go.Scatter:
    """The groups' rectangles at their permuted places, among the rows and columns that are drawn."""
    x: list[float | None] = []
    y: list[float | None] = []
    top = left = 0
    for r, c in zip(view.layout.row_groups, view.layout.column_groups, strict=True):
        bottom, right = top + int(shown[0][r].sum()), left + int(shown[1][c].sum())
        x += [left - 0.5, right - 0.5, right - 0.5, left - 0.5, left - 0.5, None]
        y += [top - 0.5, top - 0.5, bottom - 0.5, bottom - 0.5, top - 0.5, None]
        top, left = bottom, right
    return go.Scatter(x=x, y=y, mode="lines", line={"color": OUTLINE, "width": 2}, hoverinfo="skip", showlegend=False)


def _says(step: Step) -> str:
    return f"<b>{step.title}</b><br>{step.inside:.0%} of the importance is inside the outlines"


def _controls(count: int) -> dict[str, Any]:
    quick = {"frame": {"duration": 0, "redraw": True}, "mode": "immediate", "transition": {"duration": 0}}
    play = {"frame": {"duration": 1000 * _SECONDS, "redraw": True}, "fromcurrent": True, "transition": {"duration": 0}}
    soft = {"bgcolor": "rgba(128,140,150,0.18)", "bordercolor": GRID}
    buttons = [
        {"label": "▶ Play", "method": "animate", "args": [None, play]},
        {"label": "❚❚ Pause", "method": "animate", "args": [[None], quick]},
    ]
    menu = {"type": "buttons", "direction": "right", "buttons": buttons, "showactive": False, **soft}
    place = {"x": 0, "xanchor": "left", "y": 0, "yanchor": "top", "pad": {"t": 36}}
    numbers = [str(number) for number in range(count)]
    slider = {
        "currentvalue": {"visible": False},
        "pad": {"t": 84},
        "steps": [{"label": n, "value": n, "method": "animate", "args": [[n], quick]} for n in numbers],
        **soft,
    }
    return {"updatemenus": [{**menu, **place}], "sliders": [slider]}

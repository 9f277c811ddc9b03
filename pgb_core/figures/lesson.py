"""The pictures of a lesson: annotated 12 x 12 heatmaps for each step, and the four shapes compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from pgb_core.figures.style import DENSITY, GRID, METHODS, OUTLINE, SIGNED, frame
from pgb_core.grouping import FloatArray
from pgb_core.layout import IntArray, MatrixLayout
from pgb_core.lesson import SIZE, Lesson, Method, Outcome
from pgb_core.narration import title

COLORS: dict[Method, str] = {
    "unstructured": METHODS["magnitude"][0],
    "rows": METHODS["structured"][0],
    "heads": METHODS["heads-neurons"][0],
    "pgb": METHODS["pgb"][0],
}
"""As the methods of these shapes have them in all other charts."""
HEIGHT = 420


@dataclass(frozen=True, eq=False)
class Picture:
    """One heatmap: `values` (12, 12) in drawing order, NaN where nothing is left."""

    title: str
    color: Literal["weight", "importance"]
    values: FloatArray
    rows: IntArray
    """(12,) original row at each drawn place"""
    columns: IntArray
    outlined: MatrixLayout | None = None
    """The layout whose groups are outlined; it has to be drawn in permuted order."""


def pictures(lesson: Lesson, step: int) -> tuple[Picture, Picture]:
    """What step `step` starts from and what it makes of it; steps are counted from 1."""
    pgb, matrix = lesson.pgb, lesson.matrix
    mask = pgb.layout.mask()
    pruned, refitted = np.where(mask, pgb.pruned, np.nan), np.where(mask, pgb.refitted, np.nan)
    dense = _in_order("Weights", "weight", matrix)
    scores = _in_order("Importance", "importance", lesson.importance)
    moved = _permuted("Weights, permuted", "weight", matrix, pgb)
    gathered = _permuted("Importance, permuted, with its groups", "importance", lesson.importance, pgb, outline=True)
    outlined = _permuted("Weights, permuted, with the groups", "weight", matrix, pgb, outline=True)
    cut = _permuted("What stays", "weight", pruned, pgb, outline=True)
    returned = _in_order("What stays, in its original place", "weight", pruned)
    steps = (
        (dense, scores),
        (dense, moved),
        (scores, gathered),
        (outlined, cut),
        (cut, returned),
        (_in_order("Before the refit", "weight", pruned), _in_order("After the refit", "weight", refitted)),
    )
    return steps[step - 1]


def weight_limit(lesson: Lesson) -> float:
    """The one color range of all weights of a lesson: their largest magnitude, before and after any refit."""
    refits = [np.abs(outcome.refitted).max() for outcome in lesson.outcomes.values()]
    return float(max(np.abs(lesson.matrix).max(), *refits)) or 1.0


def heatmap(lesson: Lesson, picture: Picture) -> go.Figure:
    """An annotated heatmap with the original index at every row and column, counted from 1."""
    text = [[_label(value, picture.color) for value in row] for row in picture.values]
    figure = go.Figure(_heat(lesson, picture, text))
    if picture.outlined is not None:
        figure.add_trace(_outline(picture.outlined))
    frame(figure, height=HEIGHT, x="input (column)", y="output (row)")
    figure.update_layout(dragmode=False)
    names = {"tickvals": list(range(SIZE)), "showgrid": False, "fixedrange": True, "ticks": "", "constrain": "domain"}
    border = {"showline": True, "mirror": True, "linewidth": 1, "linecolor": GRID}  # what is blank belongs to it too
    axis = names | border
    figure.update_xaxes(
        axis | {"ticktext": _counted(picture.columns), "range": [-0.5, SIZE - 0.5], "tickangle": 0}, overwrite=True
    )
    figure.update_yaxes(
        axis | {"ticktext": _counted(picture.rows), "range": [SIZE - 0.5, -0.5], "scaleanchor": "x"}, overwrite=True
    )
    return figure


def picture_table(picture: Picture) -> list[dict[str, Any]]:
    """One row per row of the heatmap, named by its original index; what is removed is None."""
    return [
        {"row": int(row) + 1}
        | {
            str(column + 1): None if np.isnan(value) else float(value)
            for column, value in zip(picture.columns, values, strict=True)
        }
        for row, values in zip(picture.rows, picture.values, strict=True)
    ]


def group_table(lesson: Lesson) -> list[dict[str, Any]]:
    """One row per group, the most important first: its outputs, its inputs, its share of weights and of importance."""
    layout = lesson.pgb.layout
    total = float(lesson.importance.sum()) or 1.0
    sums = layout.block_sums(lesson.importance)
    return [
        {
            "group": g + 1,
            "rows": ", ".join(_counted(rows)),
            "columns": ", ".join(_counted(columns)),
            "density": weights / (SIZE * SIZE),
            "kept_importance": kept / total,
        }
        for g, (rows, columns, weights, kept) in enumerate(
            zip(layout.row_groups, layout.column_groups, layout.block_kept(), sums, strict=True)
        )
    ]


# --- the shapes compared -------------------------------------------------------------------------------------------


def shapes_chart(lesson: Lesson) -> go.Figure:
    """What each method keeps, two by two on one color range; PGB permuted, its groups outlined, the others in order."""
    outcomes = list(lesson.outcomes.values())
    names = [title(lesson, outcome.method) + (", permuted" if outcome.method == "pgb" else "") for outcome in outcomes]
    figure = make_subplots(2, 2, subplot_titles=names, horizontal_spacing=0.04, vertical_spacing=0.12)
    for place, outcome in enumerate(outcomes):
        at = {"row": place // 2 + 1, "col": place % 2 + 1}
        picture = _shape(outcome)
        figure.add_trace(_heat(lesson, picture), **at)
        if picture.outlined is not None:
            figure.add_trace(_outline(picture.outlined), **at)
    frame(figure, height=HEIGHT, x="", y="")
    border = {"showline": True, "mirror": True, "linewidth": 1, "linecolor": GRID, "showticklabels": False}
    fixed = {"showgrid": False, "fixedrange": True, "constrain": "domain", "ticks": ""}
    figure.update_xaxes(border | fixed | {"range": [-0.5, SIZE - 0.5]}, overwrite=True)
    figure.update_yaxes(border | fixed | {"range": [SIZE - 0.5, -0.5]}, overwrite=True)
    for axis in figure.select_yaxes():
        axis.scaleanchor = axis.anchor
    figure.update_layout(margin={"t": 30}, dragmode=False)
    figure.update_annotations(font_size=13, yshift=5)
    return figure


def shapes_table(lesson: Lesson) -> list[dict[str, Any]]:
    """The rows of every heatmap of `shapes_chart` in turn: the shape, then as in `picture_table`, in original order."""
    columns = [str(n + 1) for n in range(SIZE)]
    return [
        {"shape": title(lesson, outcome.method)} | {"row": row["row"], **{name: row[name] for name in columns}}
        for outcome in lesson.outcomes.values()
        for row in sorted(picture_table(_shape(outcome)), key=lambda row: int(row["row"]))
    ]


def comparison_chart(lesson: Lesson) -> go.Figure:
    """The reconstruction error of each method before the refit (open) and after it (filled)."""
    outcomes = list(lesson.outcomes.values())
    figure = go.Figure()
    for place, outcome in enumerate(outcomes):
        color = COLORS[outcome.method]
        before, after = 100 * outcome.error_before, 100 * outcome.error_after
        figure.add_trace(
            go.Scatter(
                x=[before, after],
                y=[place, place],
                mode="lines+markers",
                line={"color": color, "width": 3},
                marker={
                    "size": [13, 15],
                    "color": color,
                    "symbol": ["circle-open", "circle"],
                    "line": {"width": [2.5, 0], "color": color},
                    "opacity": 1,
                },
                customdata=["before the refit", "after the refit"],
                hovertemplate=f"<b>{title(lesson, outcome.method)}</b><br>%{{customdata}}: %{{x:.1f}}%<extra></extra>",
                cliponaxis=False,
                showlegend=False,
            )
        )
    figure.add_traces(list(_legend()))
    frame(figure, height=HEIGHT, x="reconstruction error, % of the squared output", y="", legend=True)
    figure.update_layout(margin={"t": 36, "r": 20}, dragmode=False, legend={"itemclick": False})
    most = max(outcome.error_before for outcome in outcomes)
    figure.update_xaxes(range=[-2, max(106 * most, 5)], fixedrange=True)
    figure.update_yaxes(
        tickvals=list(range(len(outcomes))),
        ticktext=[f"{title(lesson, o.method)}<br><b>{100 * o.error_after:.1f}%</b>" for o in outcomes],
        range=[len(outcomes) - 0.5, -0.5],
        showgrid=False,
        fixedrange=True,
    )
    return figure


def comparison_table(lesson: Lesson) -> list[dict[str, Any]]:
    """One row per method: density, kept importance, and the error before and after the refit, as fractions."""
    return [
        {
            "method": title(lesson, outcome.method),
            "density": outcome.layout.density,
            "kept_importance": outcome.kept_importance,
            "before": outcome.error_before,
            "after": outcome.error_after,
        }
        for outcome in lesson.outcomes.values()
    ]


# --- parts ---------------------------------------------------------------------------------------------------------


def _in_order(name: str, color: Literal["weight", "importance"], values: FloatArray) -> Picture:
    return Picture(name, color, values, np.arange(SIZE), np.arange(SIZE))


def _permuted(
    name: str,
    color: Literal["weight", "importance"],
    values: FloatArray,
    outcome: Outcome,
    *,
    outline: bool = False,
) -> Picture:
    rows, columns = outcome.layout.row_order(), outcome.layout.column_order()
    return Picture(name, color, values[np.ix_(rows, columns)], rows, columns, outcome.layout if outline else None)


def _shape(outcome: Outcome) -> Picture:
    kept = np.where(outcome.layout.mask(), outcome.pruned, np.nan)
    if outcome.method == "pgb":
        return _permuted("", "weight", kept, outcome, outline=True)
    return _in_order("", "weight", kept)


def _heat(lesson: Lesson, picture: Picture, text: list[list[str]] | None = None) -> go.Heatmap:
    """The cells, with `text` in them; the hover names the original row and column."""
    names = np.stack(np.broadcast_arrays(picture.rows[:, None] + 1, picture.columns[None, :] + 1), axis=-1)
    if picture.color == "weight":
        limit = weight_limit(lesson)
        colors: dict[str, Any] = {"colorscale": SIGNED, "zmin": -limit, "zmax": limit}
    else:
        colors = {"colorscale": DENSITY, "zmin": 0.0, "zmax": float(lesson.importance.max()) or 1.0}
    written = {} if text is None else {"text": text, "texttemplate": "%{text}", "textfont": {"size": 11}}
    return go.Heatmap(
        z=picture.values.astype(np.float32),
        customdata=names.astype(np.int16),
        hoverongaps=False,
        hovertemplate=f"row %{{customdata[0]}}, column %{{customdata[1]}}<br>{picture.color} %{{z:.2f}}<extra></extra>",
        showscale=False,
        xgap=1,
        ygap=1,
        **written,
        **colors,
    )


def _outline(layout: MatrixLayout) -> go.Scatter:
    """The rectangles of the groups in permuted order as one trace, separated by gaps."""
    x: list[float | None] = []
    y: list[float | None] = []
    top = left = -0.5
    for rows, columns in zip(layout.row_groups, layout.column_groups, strict=True):
        bottom, right = top + len(rows), left + len(columns)
        x += [left, right, right, left, left, None]
        y += [top, top, bottom, bottom, top, None]
        top, left = bottom, right
    line = {"color": OUTLINE, "width": 3}
    return go.Scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip", showlegend=False, cliponaxis=False)


def _legend() -> Iterator[go.Scatter]:
    for name, symbol in (("before the refit", "circle-open"), ("after the refit", "circle")):
        marker = {"symbol": symbol, "size": 11, "color": "gray", "line": {"width": 2, "color": "gray"}}
        yield go.Scatter(x=[None], y=[None], mode="markers", marker=marker, name=name)


def _label(value: float, color: str) -> str:
    """A number short enough for a cell: at most four characters."""
    if np.isnan(value):
        return ""
    if color == "importance":
        return f"{value:.2f}" if 0.005 <= value < 9.995 else f"{value:.0f}"
    shown = f"{value:.1f}".replace("-", "−")
    return "0" if shown.strip("−") == "0.0" else shown


def _counted(indices: IntArray) -> list[str]:
    return [str(int(index) + 1) for index in indices]

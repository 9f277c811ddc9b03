"""One matrix before, permuted and pruned: a pooled overview, an exact window, and the table of its groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from pgb_core.figures.pooling import pool
from pgb_core.figures.style import BADGE, FOLLOWED, GRID, OUTLINE, RISING, SIGNED, frame
from pgb_core.following import Followed
from pgb_core.layout import IntArray
from pgb_core.matrices import DECADES, MatrixView

Stage = Literal["original", "permuted", "pruned"]
Color = Literal["weight", "importance"]
STAGES: dict[Stage, str] = {
    "original": "Original order",
    "permuted": "Permuted",
    "pruned": "Pruned",
}
WINDOW = 256
_EXACT = ".1f"
"""How the hover of a window writes an index before it is replaced: not as the axis does, whose labels stay."""
ALL = slice(None)


@dataclass(frozen=True, eq=False)
class Panel:
    """What one heatmap shows: `values` (rows, columns) in drawing order; NaN is removed and stays blank."""

    values: NDArray[np.float32]
    row_order: IntArray
    column_order: IntArray


def stages(view: MatrixView, color: Color) -> dict[Stage, str]:
    """The stages that can be drawn, with their titles: weights may be gone, or were never there."""
    return {stage: title for stage, title in STAGES.items() if _source(view, stage, color) is not None}


def panel(view: MatrixView, stage: Stage, color: Color, rows: slice = ALL, columns: slice = ALL) -> Panel | None:
    """The values of one of the `stages` of `view`, in the places `rows` and `columns`; None of another."""
    layout, source = view.layout, _source(view, stage, color)
    if source is None:
        return None
    original = stage == "original"
    row_order = (np.arange(layout.rows) if original else layout.row_order())[rows]
    column_order = (np.arange(layout.columns) if original else layout.column_order())[columns]
    block = np.ix_(row_order, column_order)
    values = source[block]
    if stage == "pruned":
        values[~layout.mask()[block]] = np.nan
    return Panel(values, row_order, column_order)


def _source(view: MatrixView, stage: Stage, color: Color) -> NDArray[np.float32] | None:
    if color == "importance":
        return view.importance
    return view.pruned if stage == "pruned" else view.dense


def overview(view: MatrixView, stage: Stage, color: Color, followed: Followed | None = None) -> go.Figure | None:
    """The whole matrix, pooled to cells; outlines and one numbered marker per group unless in original order.

    A marker carries its group's number (from 1) as customdata: it is what a click selects. `followed` is ringed.
    """
    shown = panel(view, stage, color)
    if shown is None:
        return None
    pooled = pool(shown.values, "mean" if color == "importance" else "extreme")
    rows, columns = pooled.row_step, pooled.column_step
    cell = "" if pooled.exact else f"<br>cell of {rows} x {columns}: {_pooling(color)}"
    figure = go.Figure(
        go.Heatmap(
            z=_drawn(pooled.cells, color),
            y0=(rows - 1) / 2,
            dy=rows,
            x0=(columns - 1) / 2,
            dx=columns,
            hoverongaps=False,
            hovertemplate=f"row %{{y:.0f}}, column %{{x:.0f}}<br>{_value(color)}{cell}<extra></extra>",
            **_colors(color, view.weight_limit),
        )
    )
    if stage != "original":
        figure.add_traces(_groups(view))
    figure.add_traces(_followed(followed, stage))
    return _axes(figure, view.layout.rows, view.layout.columns, 430, permuted=stage != "original")


def overview_table(view: MatrixView, stage: Stage, color: Color) -> dict[str, NDArray[Any]]:
    """The values of `overview`'s cells by column; the first column and the headings name their first row and column.

    NaN where all weights of a cell are removed. Importance is not logarithmic here.
    """
    shown = panel(view, stage, color)
    if shown is None:
        return {}
    return pool(shown.values, "mean" if color == "importance" else "extreme").table()


def window(
    view: MatrixView,
    stage: Stage,
    color: Color,
    first_row: int,
    first_column: int,
    followed: Followed | None = None,
) -> go.Figure | None:
    """At most 256 x 256 exact entries from (first_row, first_column) on; the hover names both index systems.

    `followed` is ringed where it is among them.
    """
    rows = slice(first_row, min(first_row + WINDOW, view.layout.rows))
    columns = slice(first_column, min(first_column + WINDOW, view.layout.columns))
    shown = panel(view, stage, color, rows, columns)
    if shown is None:
        return None
    figure = go.Figure(
        go.Heatmap(
            z=_drawn(shown.values, color),
            y0=rows.start,
            dy=1,
            x0=columns.start,
            dx=1,
            hoverongaps=False,
            xhoverformat=_EXACT,
            yhoverformat=_EXACT,
            hovertemplate=f"row %{{y}}, column %{{x}}<br>{_value(color)}<extra></extra>",
            **_colors(color, view.weight_limit),
        )
    )
    if stage != "original":
        outline = _outline(view)
        outline.line.width = 2
        figure.add_trace(outline)
    figure.add_traces(_followed(followed, stage))
    _axes(figure, view.layout.rows, view.layout.columns, 560, permuted=stage != "original")
    figure.update_yaxes(range=[rows.stop - 0.5, rows.start - 0.5], labelalias=_both(rows.start, shown.row_order))
    figure.update_xaxes(
        range=[columns.start - 0.5, columns.stop - 0.5], labelalias=_both(columns.start, shown.column_order)
    )
    return figure


def _both(start: int, order: IntArray) -> dict[str, str]:
    """What the hover says in place of each drawn index, as `_EXACT` writes it: that and the original index.

    Both for every cell, as customdata, would be more bytes than the weights.
    """
    return {f"{start + place:.1f}": f"{start + place} (original {index})" for place, index in enumerate(order)}


def window_table(
    view: MatrixView, stage: Stage, color: Color, first_row: int, first_column: int
) -> dict[str, NDArray[Any]]:
    """The values of `window` by column; the first column and the headings name the original rows and columns."""
    rows, columns = slice(first_row, first_row + WINDOW), slice(first_column, first_column + WINDOW)
    shown = panel(view, stage, color, rows, columns)
    if shown is None:
        return {}
    table: dict[str, NDArray[Any]] = {"original row": shown.row_order}
    return table | {str(column): shown.values[:, place] for place, column in enumerate(shown.column_order)}


def group_table(view: MatrixView) -> list[dict[str, Any]]:
    """One row per group, numbered from 1: rows, columns, weights, share of the matrix, kept importance, mean size.

    `concentration` is the importance of a kept weight, on average, in multiples of the matrix's mean; `mean_before` and
    `mean_after` are means of |w| over the kept weights in the checkpoint and in the pruned model, `change` is the norm
    of their difference over that of the former. What needs the weights of either is None where those are gone.
    """
    layout = view.layout
    return [
        {
            "group": g + 1,
            "rows": len(rows),
            "columns": len(columns),
            "weights": weights,
            "density": weights / (layout.rows * layout.columns),
            "kept_importance": kept,
            "concentration": kept * layout.rows * layout.columns / weights if weights else None,
            **_refit(view, rows, columns),
        }
        for g, (rows, columns, weights, kept) in enumerate(
            zip(layout.row_groups, layout.column_groups, layout.block_kept(), view.kept_importance, strict=True)
        )
    ]


def _refit(view: MatrixView, rows: IntArray, columns: IntArray) -> dict[str, float | None]:
    if view.pruned is None:
        return dict.fromkeys(("mean_before", "mean_after", "change"))
    block = np.ix_(rows, columns)
    kept = np.ones((len(rows), len(columns)), bool) if view.layout.support is None else view.layout.support[block]
    after = view.pruned[block][kept].astype(np.float64)
    mean_after = float(np.abs(after).mean()) if after.size else None
    if view.dense is None or not after.size:
        return {"mean_before": None, "mean_after": mean_after, "change": None}
    before = view.dense[block][kept].astype(np.float64)
    norm = float(np.linalg.norm(before))
    change = float(np.linalg.norm(after - before)) / norm if norm else None
    return {"mean_before": float(np.abs(before).mean()), "mean_after": mean_after, "change": change}


def group_origin(view: MatrixView, group: int) -> tuple[int, int]:
    """First drawn (row, column) of group `group`, numbered from 1, in permuted order."""
    layout = view.layout
    before = slice(0, group - 1)
    return sum(map(len, layout.row_groups[before])), sum(map(len, layout.column_groups[before]))


def _colors(color: Color, limit: float) -> dict[str, Any]:
    bar: dict[str, Any] = {"orientation": "h", "thickness": 8, "y": 1.0, "yanchor": "bottom", "xpad": 0, "ypad": 6}
    bar["ticklabeloverflow"] = "allow"
    if color == "importance":
        ticks = list(range(-DECADES, 1))
        labels = [f"≤ 10<sup>{ticks[0]}</sup>", *(f"10<sup>{t}</sup>" for t in ticks[1:-1]), "1"]
        bar |= {"tickvals": ticks, "ticktext": labels}
        return {"colorscale": RISING, "zmin": -DECADES, "zmax": 0, "colorbar": bar}
    labels = [f"≤ {-limit:.2g}", f"{-limit / 2:.2g}", "0", f"{limit / 2:.2g}", f"≥ {limit:.2g}"]
    bar |= {"tickvals": [-limit, -limit / 2, 0.0, limit / 2, limit], "ticktext": labels}
    return {"colorscale": SIGNED, "zmin": -limit, "zmax": limit, "colorbar": bar}


def _drawn(values: NDArray[np.float32], color: Color) -> NDArray[np.float32]:
    if color == "weight":
        return values
    return np.log10(np.maximum(values, np.float32(10.0**-DECADES)))


def _value(color: Color) -> str:
    return "weight %{z:.4f}" if color == "weight" else "importance 10<sup>%{z:.2f}</sup> of the largest"


def _pooling(color: Color) -> str:
    return "its largest weight by magnitude" if color == "weight" else "its mean"


def _followed(weight: Followed | None, stage: Stage) -> list[go.Scatter]:
    if weight is None:
        return []
    original = stage == "original"
    x, y = (weight.column, weight.row) if original else (weight.permuted_column, weight.permuted_row)
    label = f"row {weight.row}, column {weight.column}" + ("" if original else f"<br>drawn at row {y}, column {x}")
    ring = {"symbol": "circle-open", "size": 16, "color": FOLLOWED, "line": {"width": 3}}
    hover = f"the followed weight<br>original {label}<extra></extra>"
    return [
        go.Scatter(x=[x], y=[y], mode="markers", marker=ring, hovertemplate=hover, showlegend=False, cliponaxis=False)
    ]


def _groups(view: MatrixView) -> list[go.Scatter]:
    origins = [group_origin(view, g + 1) for g in range(len(view.layout.row_groups))]
    blocks = zip(origins, view.layout.row_groups, view.layout.column_groups, strict=True)
    centers = [(top + (len(r) - 1) / 2, left + (len(c) - 1) / 2) for (top, left), r, c in blocks]
    numbers = [str(g + 1) for g in range(len(centers))]
    markers = go.Scatter(
        x=[column for _, column in centers],
        y=[row for row, _ in centers],
        mode="markers+text",
        text=numbers,
        customdata=[[g + 1] for g in range(len(centers))],
        textfont={"color": "white", "size": 11},
        marker={"size": 20, "color": BADGE, "line": {"color": "white", "width": 1.5}},
        selected={"marker": {"color": OUTLINE}},
        unselected={"marker": {"opacity": 1}},
        hovertemplate="group %{text}: click to select<extra></extra>",
        showlegend=False,
    )
    return [_outline(view), markers]


def _outline(view: MatrixView) -> go.Scatter:
    """All group rectangles as one trace, separated by gaps."""
    x: list[float | None] = []
    y: list[float | None] = []
    for g, (rows, columns) in enumerate(zip(view.layout.row_groups, view.layout.column_groups, strict=True)):
        top, left = group_origin(view, g + 1)
        bottom, right = top + len(rows), left + len(columns)
        x += [left - 0.5, right - 0.5, right - 0.5, left - 0.5, left - 0.5, None]
        y += [top - 0.5, top - 0.5, bottom - 0.5, bottom - 0.5, top - 0.5, None]
    return go.Scatter(x=x, y=y, mode="lines", line={"color": OUTLINE, "width": 1.5}, hoverinfo="skip", showlegend=False)


def _axes(figure: go.Figure, rows: int, columns: int, height: int, *, permuted: bool) -> go.Figure:
    order = "permuted" if permuted else "original"
    frame(figure, height=height, x=f"{order} column (input)", y=f"{order} row (output)")
    figure.update_layout(margin={"t": 68, "r": 24, "b": 74, "l": 80})  # room for the axes, the color bar, its labels
    axis = {"showline": True, "mirror": True, "linewidth": 1, "linecolor": GRID, "showgrid": False}  # around blanks too
    figure.update_xaxes(axis | {"range": [-0.5, columns - 0.5], "constrain": "domain"}, overwrite=True)
    figure.update_yaxes(axis | {"range": [rows - 0.5, -0.5]}, overwrite=True)  # row 0 on top
    return figure

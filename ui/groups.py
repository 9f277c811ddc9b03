"""The groups of a matrix as a table, and the exact window that follows the selected one."""

from __future__ import annotations

from functools import partial

import streamlit as st

from pgb_core.figures import matrix as figures
from pgb_core.matrices import MatrixView
from ui import charts, url, words


def table(view: MatrixView, group: int | None) -> None:
    """The table of groups, linked with the markers: both write `group` in the URL."""
    rows = figures.group_table(view)
    if not rows:
        return
    st.subheader("Groups", anchor=False)
    st.caption("Select a row here, or a number in a heatmap: the exact window below goes there.")
    charts.pick_table(
        rows,
        {
            "group": st.column_config.NumberColumn("Group", help="Number of the group's marker in the heatmaps."),
            "rows": st.column_config.NumberColumn("Rows", help="Outputs in this group."),
            "columns": st.column_config.NumberColumn("Columns", help="Inputs in this group."),
            "weights": st.column_config.NumberColumn("Weights", help="Weights kept in this group.", format="localized"),
            "density": charts.percent_column("Density", "Share of the matrix's weights that lie in this group."),
            "kept_importance": charts.percent_column("Kept importance", words.KEPT_IMPORTANCE),
        },
        key="groups",
        alt="Groups of the matrix with their rows, columns, weights, density and kept importance.",
        selected=None if group is None else group - 1,
        on_pick=lambda row: url.write(group=None if row is None else str(row + 1)),
    )


def window(view: MatrixView, color: figures.Color, group: int | None) -> None:
    """Every single weight of a part of the matrix."""
    title = "Exact window" if group is None else f"Exact window on group {group}"
    st.subheader(title, anchor=False, help=words.WINDOW)
    stages = {stage: text for stage, text in figures.STAGES.items() if figures.panel(view, stage, color) is not None}
    layout = view.layout
    origin = (0, 0) if group is None else figures.group_origin(view, group)
    controls = st.columns([2, 2, 2], vertical_alignment="bottom")
    with controls[0]:
        stage = st.segmented_control(
            "Show", list(stages), default="pruned", required=True, format_func=stages.__getitem__, key="window_stage"
        )
    place = f"{url.current()['run']}_{layout.name}_{layout.rows}_{group}"
    starts = []
    for column, axis, length, start in zip(
        controls[1:], ("row", "column"), (layout.rows, layout.columns), origin, strict=True
    ):
        last = max(0, length - figures.WINDOW)
        with column:
            starts.append(
                st.slider(
                    f"First {axis}",
                    0,
                    last,
                    min(start, last),
                    key=f"window_{axis}_{place}",
                    help=f"Drawn {axis} at which the window begins; it shows {figures.WINDOW} of {length}.",
                )
                if last
                else 0
            )
    figure = figures.window(view, stage, color, *starts)
    if figure is not None:
        charts.chart(
            figure,
            f"{title}: up to 256 by 256 weights, {stages[stage].lower()}, colored by {color}.",
            key="window",
            name=file_words(f"{stage} by {color}, rows from {starts[0]}, columns from {starts[1]}"),
            rows=partial(figures.window_table, view, stage, color, *starts),
            twin="The same as a table, by original index",
        )


def file_words(what: str) -> str:
    """Words for the name of a file that shows `what` of the matrix in the URL."""
    query = url.current()
    return f"matrix layer {query['layer']} {query['matrix']} {what}, run {query['run']}"

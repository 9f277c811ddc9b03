"""The groups of a matrix as a table, one weight to follow, and the exact window that goes where they are."""

from __future__ import annotations

from functools import partial

import streamlit as st

from pgb_core import following
from pgb_core.figures import matrix as figures
from pgb_core.following import Followed
from pgb_core.matrices import MatrixView
from ui import charts, units, url, words


def table(view: MatrixView, group: int | None) -> None:
    """The table of groups, linked with the markers: both write `group` in the URL."""
    rows = figures.group_table(view)
    if not rows:
        return
    st.subheader("Groups", anchor=False)
    st.caption("Select a row here, or a number in a heatmap: the exact window below goes there.")
    number = st.column_config.NumberColumn
    charts.pick_table(
        rows,
        {
            "group": number("Group", help="Number of the group's marker in the heatmaps."),
            "rows": number("Rows", help="Outputs in this group."),
            "columns": number("Columns", help="Inputs in this group."),
            "weights": number("Weights", help="Weights kept in this group.", format="localized"),
            "density": charts.percent_column("Density", "Share of the matrix's weights that lie in this group."),
            "kept_importance": charts.percent_column("Kept importance", words.KEPT_IMPORTANCE),
            "concentration": number("Concentration", format="%.2f ×", help=words.CONCENTRATION),
            "mean_before": number("Mean |w| before", format="%.4f", help=words.MEAN_BEFORE),
            "mean_after": number("Mean |w| after", format="%.4f", help=words.MEAN_AFTER),
            "change": charts.percent_column("Changed by", words.CHANGE),
        },
        key="groups",
        alt="Groups of the matrix: size, density, kept importance, and the mean weight before and after the refit.",
        selected=None if group is None else group - 1,
        # a table that is drawn anew may say that its row is no longer selected: only the button takes a group back
        on_pick=lambda row: None if row is None else choose(str(row + 1)),
    )
    if group is not None:
        st.button("All groups", icon=":material/close:", type="tertiary", on_click=choose, args=(None,))


def choose(group: str | None) -> None:
    """Put a group, or none, in the URL; the exact window goes there."""
    url.write(group=group, first_row=None, first_column=None)


def chosen_weight(view: MatrixView) -> Followed | None:
    """The weight that the URL names by row and column of the original matrix, if it does; two boxes choose it."""
    st.subheader("Follow one weight", anchor=False, help=words.FOLLOW)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        places = [
            url.number(
                st.number_input,
                f"Original {axis}",
                axis,
                last,
                value=None,  # may be empty
                placeholder=f"0 to {last}",
                width=180,
            )
            for axis, last in (("row", view.layout.rows - 1), ("column", view.layout.columns - 1))
        ]
    row, column = places
    if row is None or column is None:
        st.caption("Type a row and a column of the original matrix; the weight there is then ringed in every picture.")
        return None
    weight = following.follow(view, row, column)
    st.write(following.explain(weight))
    with st.container(horizontal=True):
        before = "not at hand" if weight.dense is None else f"{weight.dense:.4f}"
        after = "not at hand" if weight.refit is None else f"{weight.refit:.4f}"
        st.metric("In the checkpoint", before, help=words.DENSE_WEIGHT)
        st.metric("After the refit", after if weight.kept else "removed", help=words.REFIT)
        st.metric("Importance", f"{weight.importance:.2g}", help=words.IMPORTANCE_OF_ONE)
        st.metric("More important than", units.percent(weight.outranked), help=words.OUTRANKED)
        st.metric("Group", "none" if weight.group is None else weight.group, help=words.GROUP_OF_ONE)
        st.metric("Permuted row, column", f"{weight.permuted_row}, {weight.permuted_column}", help=words.PERMUTED_PLACE)
    return weight


def window(view: MatrixView, color: figures.Color, group: int | None, weight: Followed | None) -> None:
    """Every single weight of a part of the matrix."""
    title = "Exact window" if group is None else f"Exact window on group {group}"
    st.subheader(title, anchor=False, help=words.WINDOW)
    stages = figures.stages(view, color)
    controls = st.columns([2, 2, 2], vertical_alignment="bottom")
    with controls[0]:
        asked = url.select(
            st.segmented_control, "Show", "stage", {**stages}, default="pruned", required=True, help=words.SHOW
        )
    stage = next(name for name in stages if name == asked)
    starts = []
    for column, axis, length, start in zip(
        controls[1:],
        ("row", "column"),
        (view.layout.rows, view.layout.columns),
        _start(view, stage, group, weight),
        strict=True,
    ):
        last = max(0, length - figures.WINDOW)
        with column:
            help_text = f"Drawn {axis} at which the window begins; it shows {figures.WINDOW} of {length}."
            first = f"first_{axis}"
            default = min(max(start, 0), last)
            place = url.number(st.slider, f"First {axis}", first, last, default=default, help=help_text) if last else 0
            starts.append(place or 0)
    figure = figures.window(view, stage, color, starts[0], starts[1], weight)
    if figure is not None:
        charts.chart(
            figure,
            f"{title}: up to 256 by 256 weights, {stages[stage].lower()}, colored by {color}.",
            key="window",
            name=file_words(f"{stage} by {color}, rows from {starts[0]}, columns from {starts[1]}"),
            rows=partial(figures.window_table, view, stage, color, *starts),
            twin="The same as a table, by original index",
        )


def _start(view: MatrixView, stage: figures.Stage, group: int | None, weight: Followed | None) -> tuple[int, int]:
    """Where the window begins by itself: around the followed weight, unless another group than its own is chosen."""
    if weight is not None and group in (None, weight.group):
        original = stage == "original"
        place = (weight.row, weight.column) if original else (weight.permuted_row, weight.permuted_column)
        return place[0] - figures.WINDOW // 2, place[1] - figures.WINDOW // 2
    return (0, 0) if group is None else figures.group_origin(view, group)


def file_words(what: str) -> str:
    """Words for the name of a file that shows `what` of the matrix in the URL."""
    query = url.current()
    return f"matrix layer {query['layer']} {query['matrix']} {what}, run {query['run']}"

"""Matrix: one weight matrix of a run before and after, its permutation and its groups."""

from __future__ import annotations

import streamlit as st

from pgb_core import store
from pgb_core.errors import RunError
from pgb_core.figures import matrix as figures
from pgb_core.layout import ENTRY_NAMES, EXIT_NAME
from pgb_core.store import MatrixView, Run
from ui import charts, frame, runs, units, url, words

NAMES = {
    f"{kind}.{name}": f"{title}: {name}"
    for kind, title in (("attention", "attention"), ("feed_forward", "feed-forward"))
    for name in (*ENTRY_NAMES[kind], EXIT_NAME)
}


def main() -> None:
    """Draw the page."""
    frame.require("matrix")
    frame.heading("Matrix", "How permutation gathers the important weights of one matrix into groups, and what is cut.")
    run = runs.pick("the permutation and the groups of every weight matrix")
    if run is None:
        return
    try:
        view, color = choose(run)
    except RunError as error:
        st.error(str(error))
        return
    group = chosen_group(view)
    overviews(view, color)
    groups(view, group)
    exact(view, color, group)


def choose(run: Run) -> tuple[MatrixView, figures.Color]:
    """The matrix that the URL names, and by what to color it."""
    layers = sorted({layer for layer, _, _ in store.read_layouts(run)})
    left, middle, right = st.columns([1, 2, 2], vertical_alignment="bottom")
    with left:
        layer = url.select(
            st.selectbox, "Layer", "layer", {str(n): str(n) for n in layers}, resets=("group",), help=words.LAYER
        )
    with middle:
        name = url.select(st.selectbox, "Matrix", "matrix", NAMES, resets=("group",), help=words.MATRIX)
    with right:
        color = url.select(
            st.segmented_control,
            "Color by",
            "color",
            {"weight": "Weight", "importance": "Importance"},
            required=True,
            help=words.COLOR,
        )
    kind, _, matrix = name.partition(".")
    return store.read_matrix(run, int(layer), kind, matrix), "importance" if color == "importance" else "weight"


def chosen_group(view: MatrixView) -> int | None:
    """The group that the URL names, if this matrix has it."""
    asked = st.query_params.get("group")
    if asked is None:
        return None
    if asked in {str(g + 1) for g in range(len(view.layout.row_groups))}:
        return int(asked)
    st.warning(f"The link asks for group “{asked[:20]}”, which this matrix does not have. You see all groups instead.")
    url.write(group=None)
    return None


def overviews(view: MatrixView, color: figures.Color) -> None:
    """The three stages side by side (stacked on a phone)."""
    layout = view.layout
    count = units.several(len(layout.row_groups), "group")
    if view.dense is None and color == "weight":
        st.info(
            "The checkpoint is no longer where it was, so the weights before pruning cannot be shown; "
            "color by importance to see all three."
        )
    if not layout.row_groups:
        st.info("This sublayer was dropped: no weight is kept, so there is nothing to permute.")
    for column, (stage, title) in zip(st.columns(3), figures.STAGES.items(), strict=True):
        figure = figures.overview(view, stage, color)
        if figure is None:
            continue
        with column:
            st.markdown(f"**{title}**", help=words.STAGES[stage])
            charts.chart(
                figure,
                f"Heatmap of the {layout.rows} by {layout.columns} matrix, {title.lower()}, colored by {color}; "
                f"{count}, {layout.density:.1%} of the weights kept.",
                key=f"overview_{stage}",
                on_pick=None if stage == "original" else lambda custom: url.write(group=str(custom[0])),
            )
    st.caption(
        f"{layout.rows} × {layout.columns}, {units.percent(layout.density)} kept in {count}. " + words.OVERVIEW[color]
    )


def groups(view: MatrixView, group: int | None) -> None:
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
            "weights": st.column_config.NumberColumn(
                "Weights", help="Rows times columns: all are kept.", format="localized"
            ),
            "density": charts.percent_column("Density", "Share of the matrix's weights that lie in this group."),
            "kept_importance": charts.percent_column("Kept importance", words.KEPT_IMPORTANCE),
        },
        key="groups",
        alt="Groups of the matrix with their rows, columns, weights, density and kept importance.",
        selected=None if group is None else group - 1,
        on_pick=lambda row: url.write(group=None if row is None else str(row + 1)),
    )


def exact(view: MatrixView, color: figures.Color, group: int | None) -> None:
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
    place = f"{st.query_params.get('run')}_{layout.name}_{layout.rows}_{group}"
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
            figure, f"{title}: up to 256 by 256 weights, {stages[stage].lower()}, colored by {color}.", key="window"
        )


main()

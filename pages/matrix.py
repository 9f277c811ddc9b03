"""Matrix: one weight matrix of a run before and after, its permutation and its groups."""

from __future__ import annotations

import streamlit as st

from pgb_core import matrices
from pgb_core.errors import RunError
from pgb_core.figures import matrix as figures
from pgb_core.layout import ENTRY_NAMES, EXIT_NAME
from pgb_core.matrices import MatrixView
from pgb_core.store import Run
from ui import charts, frame, groups, runs, units, url, words

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
    groups.table(view, group)
    groups.window(view, color, group)


def choose(run: Run) -> tuple[MatrixView, figures.Color]:
    """The matrix that the URL names, and by what to color it."""
    readable = matrices.readable(run)
    layouts = {key: layout for key, layout in matrices.read_layouts(run).items() if key in readable}
    layers = sorted({layer + 1 for layer, _, _ in layouts})  # users count from 1
    names = {f"{kind}.{matrix}" for _, kind, matrix in layouts}
    # a matrix with several groups shows what this page is about
    first = next((key for key, layout in layouts.items() if len(layout.row_groups) > 1), next(iter(layouts)))
    left, middle, right = st.columns([1, 2, 2], vertical_alignment="bottom")
    with left:
        layer = url.select(
            st.selectbox,
            "Layer",
            "layer",
            {str(n): str(n) for n in layers},
            default=str(first[0] + 1),
            resets=("group",),
            help=words.LAYER,
        )
    with middle:
        name = url.select(
            st.selectbox,
            "Matrix",
            "matrix",
            {name: title for name, title in NAMES.items() if name in names},
            default=f"{first[1]}.{first[2]}",
            resets=("group",),
            help=words.MATRIX,
        )
    with right:
        color = url.select(
            st.segmented_control,
            "Color by",
            "color",
            {"importance": "Importance"} if run.sample else {"weight": "Weight", "importance": "Importance"},
            required=True,
            help=words.COLOR,
        )
    if run.sample:
        st.caption(words.SAMPLE_MATRIX)
    kind, _, matrix = name.partition(".")
    return matrices.read_matrix(run, int(layer) - 1, kind, matrix), "importance" if color == "importance" else "weight"


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
    count = "zeros in single places" if layout.support is not None else units.several(len(layout.row_groups), "group")
    if view.dense is None and color == "weight":
        st.info(
            "The checkpoint is no longer where it was or has changed since, so its weights cannot be shown; "
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
        f"{layout.rows} × {layout.columns}, {count}, {units.percent(layout.density)} kept. " + words.OVERVIEW[color]
    )


main()

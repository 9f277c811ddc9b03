"""Which matrix the page is about: two select boxes, and all matrices as small pictures and as a table."""

from __future__ import annotations

from collections.abc import Set

import streamlit as st

from pgb_core.figures import thumbnails
from pgb_core.figures.matrix import Color
from pgb_core.figures.thumbnails import Key, Thumbnail
from pgb_core.layout import ENTRY_NAMES, EXIT_NAME
from pgb_core.store import Run
from ui import charts, runs, url, words

NAMES = {
    f"{kind}.{name}": f"{title}: {name}"
    for kind, title in (("attention", "attention"), ("feed_forward", "feed-forward"))
    for name in (*ENTRY_NAMES[kind], EXIT_NAME)
}


def choose(run: Run, found: tuple[Thumbnail, ...], readable: Set[Key]) -> tuple[int, Color]:
    """Place in `found` of the matrix that the URL names, else of a `readable` one, and by what to color it."""
    layers = sorted({t.key[0] + 1 for t in found})  # users count from 1
    # a matrix with several groups shows what this page is about
    shown = [t for t in found if t.key in readable]
    first = next((t.key for t in shown if len(t.layout.row_groups) > 1), shown[0].key)
    left, middle, right = st.columns([1, 2, 2], vertical_alignment="bottom")
    with left:
        layer = url.select(
            st.selectbox,
            "Layer",
            "layer",
            {str(n): str(n) for n in layers},
            default=str(first[0] + 1),
            resets=runs.OF_A_MATRIX,
            help=words.LAYER,
        )
    with middle:
        name = url.select(
            st.selectbox,
            "Matrix",
            "matrix",
            NAMES,
            default=f"{first[1]}.{first[2]}",
            resets=runs.OF_A_MATRIX,
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
    place = next(n for n, t in enumerate(found) if t.key == (int(layer) - 1, kind, matrix))
    return place, "importance" if color == "importance" else "weight"


def show(run: Run, found: tuple[Thumbnail, ...], selected: int) -> None:
    """All matrices as small pictures and as a table; a click or a row chooses one."""
    st.subheader("All matrices", anchor=False, help=words.WALL)

    def choose_matrix(place: int) -> None:
        layer, kind, name = found[place].key
        url.write(layer=str(layer + 1), matrix=f"{kind}.{name}", **dict.fromkeys(runs.OF_A_MATRIX))

    rows = thumbnails.thumbnail_table(found)
    columns = {
        "layer": st.column_config.NumberColumn("Layer", help=words.LAYER),
        "half": "Half",
        "matrix": st.column_config.TextColumn("Matrix", help=words.MATRIX),
        "rows": "Rows",
        "columns": "Columns",
        "groups": "Groups",
        "density": charts.percent_column("Density", words.DENSITY),
        "kept_importance": charts.percent_column("Kept importance", words.KEPT_IMPORTANCE),
    }

    def table() -> None:
        folded = st.expander("The same as a table, to choose from", key="wall_twin", on_change="rerun")
        if not folded.open:
            return
        with folded:
            charts.pick_table(
                rows,
                columns,
                key="matrices",
                alt="All weight matrices: size, groups, density and kept importance. Select a row to see that matrix.",
                selected=selected,
                on_pick=lambda row: None if row is None else choose_matrix(row),
            )

    charts.chart(
        thumbnails.wall(found, selected),
        f"Small pictures of the {len(found)} weight matrices, a row per layer: what is kept, permuted, in color; "
        f"chosen: layer {rows[selected]['layer']} {rows[selected]['half']} {rows[selected]['matrix']}.",
        key="wall",
        name=f"all matrices, run {run.id}",
        rows=rows,
        columns=columns,
        twin=table,
        on_pick=lambda custom: choose_matrix(custom[0]),
    )

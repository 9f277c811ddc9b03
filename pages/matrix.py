"""Matrix: one weight matrix of a run before and after, its permutation and its groups."""

from __future__ import annotations

from functools import partial

import streamlit as st

from pgb_core import matrices
from pgb_core.errors import RunError
from pgb_core.figures import matrix as figures
from pgb_core.figures import permuting
from pgb_core.following import Followed
from pgb_core.matrices import MatrixView
from pgb_core.store import Run
from ui import charts, frame, groups, pictures, runs, units, url, wall, words
from ui.pictures import Pictures


def main() -> None:
    """Draw the page."""
    frame.require("matrix")
    frame.heading("Matrix", "How permutation gathers the important weights of one matrix into groups, and what is cut.")
    run = runs.pick("the permutation and the groups of every weight matrix")
    if run is None:
        return
    try:
        show(run)
    except RunError as error:
        st.error(units.plain(str(error)))


def show(run: Run) -> None:
    """All matrices of `run`, and one of them large.

    Raises:
        RunError: the run's files are damaged.
    """
    found = pictures.all_matrices(run)
    readable = matrices.readable(run) if run.sample else {t.key for t in found}
    place, color = wall.choose(run, found, readable)
    key = found[place].key
    if key not in readable:  # a sample came with a few matrices
        st.info(words.SAMPLE_WITHOUT)
        wall.show(run, found, place)
        return
    left, right = st.columns([4, 5], gap="medium")
    with left:
        wall.show(run, found, place)
    drawn = pictures.pictures(run, key)  # after the wall: the browser draws that while a large checkpoint is read
    view = drawn.view
    steps_place, stages_place = right.container(), st.container()
    group = chosen_group(view)
    weight = groups.chosen_weight(view)
    with steps_place:
        steps(drawn, weight)
    with stages_place:
        overviews(drawn, color, weight)
    groups.table(view, group)
    groups.window(view, color, group, weight)


def chosen_group(view: MatrixView) -> int | None:
    """The group that the URL names, if this matrix has it."""
    asked = st.query_params.get("group")
    if asked is None:
        return None
    if asked in {str(g + 1) for g in range(len(view.layout.row_groups))}:
        return int(asked)
    st.warning(
        f"The link asks for group {units.quoted(asked)}, which this matrix does not have. You see all groups instead."
    )
    url.write(group=None)
    return None


def steps(drawn: Pictures, weight: Followed | None) -> None:
    """From the original to the permuted order, as an animation."""
    st.subheader("Permutation, step by step", anchor=False, help=words.ANIMATION)
    if not drawn.view.layout.row_groups:
        st.info("This sublayer was dropped: no weight is kept, so there is nothing to permute.")
        return
    moves = drawn.moves
    charts.chart(
        drawn.animation(weight),
        f"Animation: columns, then rows move into groups. Importance inside the groups' places: {moves[0].inside:.0%} "
        f"in original order, {moves[-1].inside:.0%} permuted.",
        key="steps",
        name=groups.file_words("permutation step by step"),
        rows=permuting.step_table(moves),
        columns={
            "step": "Step",
            "title": "What moved",
            "inside": charts.percent_column("Importance inside the outlines", words.INSIDE),
        },
    )
    st.caption(permuting.drawn(drawn.view))


def overviews(drawn: Pictures, color: figures.Color, weight: Followed | None) -> None:
    """The three stages side by side (stacked on a phone)."""
    view, layout = drawn.view, drawn.view.layout
    count = "zeros in single places" if layout.support is not None else units.several(len(layout.row_groups), "group")
    if view.dense is None and color == "weight":
        st.info(
            "The checkpoint is no longer where it was or has changed since, so its weights cannot be shown; "
            "color by importance to see all three."
        )
    for column, (stage, title) in zip(st.columns(3), figures.STAGES.items(), strict=True):
        figure = drawn.overview(stage, color, weight)
        if figure is None:
            continue
        with column:
            st.markdown(f"**{title}**", help=words.STAGES[stage])
            charts.chart(
                figure,
                f"Heatmap of the {layout.rows} by {layout.columns} matrix, {title.lower()}, colored by {color}; "
                f"{count}, {layout.density:.1%} of the weights kept.",
                key=f"overview_{stage}",
                name=groups.file_words(f"{stage} by {color}"),
                rows=partial(figures.overview_table, view, stage, color),
                on_pick=None
                if stage == "original"
                else lambda custom: url.write(group=str(custom[0]), first_row=None, first_column=None),
            )
    st.caption(
        f"{layout.rows} × {layout.columns}, {count}, {units.percent(layout.density)} kept. " + words.OVERVIEW[color]
    )


main()

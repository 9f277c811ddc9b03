"""Prune, the home page: describe a run, watch it, read its result."""

from __future__ import annotations

import streamlit as st

from pgb_core import store
from pgb_core.settings import get_settings
from pgb_core.store import Run
from ui import form, frame, job, result, runs, units, url

RECENT = 8


def main() -> None:
    """Draw the page."""
    frame.require("prune")
    run = runs.asked()
    if run is None:
        frame.heading(
            "Prune a BERT",
            "Removes most of a fine-tuned BERT's weights by permutation and grouping (PGB), "
            "then measures what is left: score, size and speed.",
        )
        form.show()
        recent()
        return
    header(run)
    if run.status.active:
        job.watch(run.id)
    elif run.status.state == "done":
        result.show(run)
    else:
        job.ended(run)


def header(run: Run) -> None:
    """What this run is, and the way back to the form."""
    titles = {"queued": "Waiting", "running": "Pruning", "done": "Result", "failed": "Failed", "cancelled": "Cancelled"}
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.title(titles[run.status.state], anchor=False, width="content")
        st.button("New run", icon=":material/add:", on_click=url.write, kwargs={"run": None})
    st.caption(runs.label(run))


def recent() -> None:
    """The newest runs, whatever became of them."""
    found = store.list_runs(get_settings().runs_dir)[:RECENT]
    if not found:
        return
    st.subheader("Recent runs", anchor=False)
    for run in found:
        state = run.status.state
        color = {"done": "green", "failed": "red", "cancelled": "gray"}.get(state, "blue")
        with st.container(horizontal=True, vertical_alignment="center"):
            st.badge(state, color=color)
            frame.link("prune", runs.label(run), run=run.id)
            if run.result is not None:
                latency = run.result["latency"]
                speed = f", {latency['speedup']:.1f} × faster" if latency else ""
                score = run.result["score"]
                final = score["recovered"] if score["recovered"] is not None else score["compensated"]
                st.caption(f"{score['metric']} {units.percent(final)}{speed}", width="content")


main()

"""Runs: everything that was pruned on this server: find it, name it, take it along, make it again, delete it."""

from __future__ import annotations

import streamlit as st

from pgb_core import store
from pgb_core.settings import get_settings
from pgb_core.store import Run
from ui import downloads, frame, history, keeping, reproduction, runs


def main() -> None:
    """Draw the page."""
    frame.require("runs")
    frame.heading("Runs", "Every run on this server, and the samples that came with it.")
    keeping.report()
    chosen = runs.asked()
    found = store.list_runs(get_settings().runs_dir)
    if not found:
        frame.empty(
            "No run yet",
            "This page keeps what was pruned. Prune a model first: the demo takes a few minutes and one click.",
            "prune",
            "Prune a model",
        )
        return
    history.show(found, chosen)
    if chosen is not None:
        one(chosen)


def one(run: Run) -> None:
    """Everything about the selected run that is not on the other pages."""
    st.subheader("The selected run", anchor=False)
    st.text(runs.label(run))
    runs.mark(run)
    ways(run)
    left, right = st.columns(2, gap="medium")
    with left:
        keeping.show(run)
    with right:
        downloads.show(run)
    reproduction.show(run)
    st.caption(f"Run {run.id}")


def ways(run: Run) -> None:
    """Links to the pages that show the run."""
    with st.container(horizontal=True):
        frame.link("prune", "Result" if run.status.state == "done" else "Progress and log", run=run.id)
        if run.status.state == "done":
            frame.link("layers", "Layers", run=run.id)
            frame.link("matrix", "Matrices", run=run.id)


main()

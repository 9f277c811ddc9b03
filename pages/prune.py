"""Prune, the home page: describe a run, watch it, read its result."""

from __future__ import annotations

import streamlit as st

from pgb_core import store
from pgb_core.settings import get_settings
from pgb_core.store import Run
from ui import charts, finetuning, form, frame, job, result, runs, url

RECENT = 8


def main() -> None:
    """Draw the page."""
    frame.require("prune")
    if finetuning.running():
        return
    run = runs.asked()
    if run is None:
        frame.heading(
            "Prune a BERT",
            "Removes most weights of a fine-tuned BERT, DistilBERT or RoBERTa by permutation and grouping (PGB), "
            "then measures what is left: score, size and speed.",
        )
        form.show()
        recent()
        return
    header(run)
    if run.status.active:
        job.watch(run.id, run.status.state)
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
    st.text(runs.label(run))
    runs.mark(run)


def recent() -> None:
    """The newest runs, whatever became of them; selecting one opens it."""
    found = store.list_runs(get_settings().runs_dir)[:RECENT]
    if not found:
        return
    st.subheader("Shipped samples" if found[0].sample else "Recent runs", anchor=False)
    st.caption("Select a row to open its run.")
    charts.pick_table(
        [runs.row(run) for run in found],
        runs.columns(found),
        key="recent",
        alt="The newest runs with their settings, state, score and measured speed-up.",
        selected=None,
        on_pick=lambda row: None if row is None else url.write(run=found[row].id),
    )


main()

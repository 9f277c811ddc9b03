"""The files of a run to take along, each made when its button is clicked."""

from __future__ import annotations

import streamlit as st

from pgb_core import downloads as files
from pgb_core.settings import get_settings
from pgb_core.store import Run
from ui import runs, units


def show(run: Run) -> None:
    """One button per file; what there is none of is said."""
    st.markdown("**Downloads**")
    if run.status.state != "done":
        st.caption("There is nothing to download: this run has no result.")
        return
    title = f"Run {run.id}: {runs.label(run)}"
    with st.container(horizontal=True):
        for label, name, mime, make in (
            ("Result, JSON", "result.json", "application/json", files.result_json),
            ("Scores, CSV", "scores.csv", "text/csv", files.scores_csv),
            ("Layers, CSV", "layers.csv", "text/csv", files.layers_csv),
            ("Figures, ZIP", "figures.zip", "application/zip", lambda run: files.figures_zip(run, title)),
        ):
            st.download_button(
                label,
                lambda make=make: make(run),
                f"{run.id}-{name}",
                mime,
                key=f"download_{name}",
                on_click="ignore",
            )
        reason = model(run)
    if reason:
        st.caption(reason)
    st.caption(
        "Figures are web pages that open without a network: scores, network, options of every sublayer, and the first "
        "grouped matrices by importance."
    )


def model(run: Run) -> str | None:
    """The button for the pruned model, which says how large it is; why there is none, or why it is locked."""
    size, limit = files.model_bytes(run), get_settings().max_download_megabytes
    if size == 0:
        return "A sample has no model." if run.sample else "The model is no longer in the run's folder."
    too_large = size > 1e6 * limit
    st.download_button(
        f"Model, ZIP, {units.size(size)}",
        lambda: files.model_zip(run),
        f"{run.id}-model.zip",
        "application/zip",
        key="download_model",
        on_click="ignore",
        disabled=too_large,
        help="The pruned checkpoint; pgb_core.load_pruned loads its folder. Made on the click.",
    )
    if not too_large:
        return None
    return (
        f"A page offers at most {limit} MB. On the server, this writes the model to a folder: "
        f"`python -m pgb_core export --run {run.id} --format safetensors --out FOLDER`, started where the runs are."
    )

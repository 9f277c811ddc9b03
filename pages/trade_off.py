"""Trade-off: all finished runs of a checkpoint and task, sweeps that make many, two of them compared or tried."""

from __future__ import annotations

import streamlit as st

from pgb_core import store
from pgb_core.settings import get_settings
from pgb_core.store import Run
from pgb_core.sweep_spec import Sweep
from ui import compare, frame, points, read_only, runs, sweep_form, sweeps, try_sentence, units, url, words

VIEWS = {"points": "All runs", "compare": "Compare two", "try": "Try a text", "sweep": "New sweep"}


def main() -> None:
    """Draw the page."""
    frame.require("trade_off")
    frame.heading("Trade-off", "What each pruned model scores against what it costs. Up and to the left is better.")
    done = [run for run in store.list_runs(get_settings().runs_dir) if run.status.state == "done"]
    sweep = sweeps.asked()
    view = url.select(st.segmented_control, "View", "view", VIEWS, required=True, label_visibility="collapsed")
    if view == "sweep":
        if not read_only.instead("start a sweep"):
            sweep_form.show()
        return
    if sweep is not None and view == "points":
        sweeps.show(sweep)
    if done:
        family = choose_family(done, sweep)
        {"points": points.show, "compare": compare.show, "try": try_sentence.show}[view](family)
    elif sweep is None or view != "points":
        empty()
    # pages can be switched in the body of a script only, not in the callback that saw the click
    if run_id := st.session_state.pop("open_run", None):
        st.switch_page(frame.path("prune"), query_params={"run": run_id})


def empty() -> None:
    """What to do without a run."""
    frame.empty(
        "No finished run yet",
        "This page compares the runs of a checkpoint. Prune a model once, or start a sweep: it prunes one to several "
        "sizes and scores its weights but once.",
        "prune",
        "Prune a model",
    )
    st.button("Start a sweep", icon=":material/scatter_plot:", on_click=url.write, kwargs={"view": "sweep"})


def choose_family(done: list[Run], sweep: Sweep | None) -> list[Run]:
    """The runs of the family that the URL names, newest first; by default that of the sweep that is shown."""
    families = runs.families(done)
    titles = {name: f"{name} ({units.several(len(members), 'run')})" for name, members in families.items()}
    own = {point.run for point in sweep.points} if sweep is not None else set()
    default = next((name for name, members in families.items() if own & {run.id for run in members}), None)
    family = url.select(
        st.selectbox,
        "Checkpoint and task",
        "family",
        titles,
        default=default,
        resets=("a", "b", "side", "layer", "matrix"),
        help=words.FAMILY,
    )
    return families[family]


main()

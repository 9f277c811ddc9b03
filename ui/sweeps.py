"""Sweeps in the background: progress with Cancel while they run, then what became of their points."""

from __future__ import annotations

import time
from typing import Any

import streamlit as st

from pgb_core import demo_mode, jobs, store, sweep_spec, sweep_table
from pgb_core.errors import PGBError, RunError
from pgb_core.settings import get_settings
from pgb_core.sweep_spec import Sweep
from ui import charts, job, session, units, url, words

STATES = {"queued": "Waiting", "running": "Running", "done": "Done", "failed": "Failed", "cancelled": "Cancelled"}


def asked() -> Sweep | None:
    """The sweep that the URL names, else the one that is active, which a reload then finds again; None without."""
    runs_dir, sweep_id = get_settings().runs_dir, st.query_params.get("sweep")
    if sweep_id is not None:
        try:
            return sweep_spec.find_sweep(runs_dir, sweep_id)
        except RunError as error:
            st.warning(f"{units.plain(str(error))} It may have been deleted; the link is no longer good.")
            url.write(sweep=None)
    active = (found for found in sweep_spec.list_sweeps(runs_dir) if found.status().active)
    return next(active, None)


def show(sweep: Sweep) -> None:
    """Where a sweep stands and what became of its points."""
    state = sweep.status().state
    if state in store.FINISHED:
        _ended(sweep)
    else:
        _watch(sweep.id, state, sweep.count("done"))
    _points(sweep)


@st.fragment(run_every=1)
def _watch(sweep_id: str, state: store.State, done: int) -> None:
    """Progress once a second, until the sweep's state changes or it has one point more: then the page is drawn anew."""
    try:
        sweep = sweep_spec.find_sweep(get_settings().runs_dir, sweep_id)
        status = sweep.status()
    except RunError:
        st.rerun()
    if status.state != state or sweep.count("done") != done:
        st.rerun()
    with st.container(border=True):
        if status.state == "queued":
            st.progress(0.0, text=job.waiting(sweep.path, status))
        else:
            stage = job.STAGES.get(status.stage, "Starting")
            st.progress(min(1.0, max(0.0, status.fraction)), text=f"**Sweep** · {stage} · {status.message}")
            left = "not known yet" if status.eta_seconds is None else f"about {units.seconds(status.eta_seconds)}"
            gone = units.seconds(time.time() - (status.started or status.created))
            st.caption(f"{done} of {units.several(len(sweep.points), 'point')} done · {gone} gone · time left: {left}")
        job.cancel_button(
            "Cancel the sweep",
            "cancel_sweep",
            sweep.path,
            "Stops within about two seconds. Finished points stay; you can go on later.",
        )
    st.caption("You can close or reload this page: the sweep goes on, and points appear here as they are finished.")


def _ended(sweep: Sweep) -> None:
    """What a sweep that has ended came to, and the ways on."""
    status, done, total = sweep.status(), sweep.count("done"), len(sweep.points)
    made = f"{done} of {units.several(total, 'point')}"
    if status.state == "done" and done == total:
        st.success(f"The sweep is done: {units.several(total, 'point')}.", icon=":material/check:")
    elif status.state == "failed":
        st.error(f"The sweep ended after {made}. {units.plain(status.message)}")
    else:
        verb = "was cancelled" if status.state == "cancelled" else "is done"
        st.info(f"The sweep {verb}: {made} made. The table below says what became of the others.")
    with st.container(horizontal=True):
        if done < total and not demo_mode.on():
            st.button(
                "Go on",
                icon=":material/resume:",
                on_click=_resume,
                args=(sweep,),
                help="Makes the points that are not done; those that are stay.",
            )
        st.download_button(
            "Points as CSV",
            lambda: sweep_table.as_csv(sweep_table.rows(sweep)),
            file_name=f"pgb-sweep-{sweep.id}.csv",
            mime="text/csv",
            icon=":material/download:",
            on_click="ignore",
        )
        st.button("Put away", icon=":material/close:", on_click=url.write, kwargs={"sweep": None})
    if error := st.session_state.pop("sweep_error", None):
        st.error(units.plain(error))


def _points(sweep: Sweep) -> None:
    """Every point with its state; selecting one opens its run."""
    rows = sweep_table.rows(sweep)
    for row in rows:
        row["state"] = STATES.get(row["state"], "Not begun")
    columns: dict[str, Any] = {
        "state": "State",
        "method": st.column_config.TextColumn("Method", help=words.METHOD),
        "sparsity": charts.percent_column("Target", words.SPARSITY),
        "recover_epochs": st.column_config.NumberColumn("Recovery epochs", help=words.RECOVERY),
        "seed": st.column_config.NumberColumn("Seed", help=words.SEED),
        "score": charts.percent_column("Score", words.SCORE),
        "standard_error": charts.percent_column("Standard error", words.SCORE),
        "speedup": st.column_config.NumberColumn("Speed-up", format="%.2f ×", help=words.SPEEDUP),
        "message": st.column_config.TextColumn("Why not", width="medium"),
    }
    with st.expander(
        f"The {units.several(len(rows), 'point')} of this sweep", expanded=any(r["message"] for r in rows)
    ):
        st.caption("Select a row to open its run.")

        def open_run(place: int | None) -> None:
            if place is not None and rows[place]["state"] != "Not begun":
                st.session_state["open_run"] = rows[place]["run"]

        charts.pick_table(rows, columns, key="sweep_points", alt="Points", selected=None, on_pick=open_run)


def _resume(sweep: Sweep) -> None:
    try:
        jobs.resume_sweep(sweep, session=session.token())
    except PGBError as error:
        st.session_state["sweep_error"] = str(error)
    url.write(sweep=sweep.id, **session.proof())

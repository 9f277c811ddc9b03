"""A run that has no result (yet): its progress with Cancel, or why it ended."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import streamlit as st

from pgb_core import demo_mode, jobs, store
from pgb_core.errors import RunError
from pgb_core.settings import get_settings
from pgb_core.store import Job, Run, State, Status
from ui import session, units, words

STAGES = {
    "loading": "Load",
    "importance": "Score weights",
    "grouping": "Find groups",
    "budget": "Choose layouts",
    "compensation": "Refit",
    "recovery": "Recover",
    "evaluation": "Evaluate",
    "latency": "Measure latency",
    "saving": "Save",
}
"""Stages of a run in their order, as users read them."""
FINETUNE_STAGES = {"loading": "Load", "training": "Fine-tune", "evaluation": "Evaluate", "saving": "Save"}

LOG_LINES = 40
_STARTING_SECONDS = 15.0
"""After so long, what is next in turn waits for a worker of another machine, or for one at all."""


@st.fragment(run_every=1)
def watch(run_id: str, state: State, kind: Job = "prune") -> None:
    """Show a run once a second while it is in `state`, waiting or running; then the whole page is drawn anew."""
    try:
        run = store.find_run(get_settings().runs_dir, run_id, kind)
    except RunError:
        st.rerun()
    if run.status.state != state:
        st.rerun()
    with st.container(border=True):
        if run.status.state == "queued":
            _waiting(run)
        else:
            _running(run)
        cancel_button(
            "Cancel", "cancel", run.path, "Stops within about two seconds; nothing half-written is left behind."
        )
    st.caption("You can close or reload this page: the run goes on, and this page's address finds it again.")


def cancel_button(label: str, key: str, folder: Path, explanation: str) -> None:
    """The button that cancels the run or sweep in `folder`, for those who may."""
    if not jobs.may_cancel(folder, session.known()):
        st.caption(words.OWNER_CANCELS)
        return
    st.button(
        label,
        key=key,
        icon=":material/stop_circle:",
        on_click=_cancel,
        args=(folder,),
        help=explanation,
        disabled=demo_mode.on(),
    )


def ended(run: Run) -> None:
    """A run that failed or was cancelled: why, and its log."""
    if run.status.state == "cancelled":
        st.info("This run was cancelled. Its settings are kept, its results are not; start a new run when you like.")
    else:
        st.error(f"This run failed. {units.plain(run.status.message or 'It left no reason; see its log.')}")
    log = _log(run)
    if log:
        with st.expander("Log"):
            st.code(log, language=None, wrap_lines=True)


def waiting(folder: Path, status: Status) -> str:
    """What a run or sweep that has not begun waits for."""
    ahead = jobs.queue_position(folder)
    if ahead:
        return f"Waiting: {units.several(ahead, 'run')} before this one."
    return "Starting …" if time.time() - status.created < _STARTING_SECONDS else "Waiting for a worker to be free."


def _waiting(run: Run) -> None:
    st.progress(0.0, text=waiting(run.path, run.status))


def _running(run: Run) -> None:
    status = run.status
    stages = FINETUNE_STAGES if status.job == "finetune" else STAGES
    title = stages.get(status.stage, status.stage.replace("_", " ").capitalize() or "Starting")
    text = f"**{title}**" + (f" · {status.message}" if status.message else "")
    st.progress(min(1.0, max(0.0, status.fraction)), text=text)
    names = list(stages)
    here = names.index(status.stage) if status.stage in names else -1
    skip = set() if run.spec.get("recover_epochs") else {"recovery"}
    skip |= set() if run.spec.get("latency", True) else {"latency"}
    skip |= {"compensation", "evaluation", "saving"} if status.job == "score" else set()
    steps = [
        f":green[✓ {text}]" if place < here else f"**{text}**" if place == here else f":gray[{text}]"
        for place, (name, text) in enumerate(stages.items())
        if name not in skip
    ]
    st.markdown(" → ".join(steps))
    left = "not known yet" if status.eta_seconds is None else f"about {units.seconds(status.eta_seconds)}"
    gone = units.seconds(time.time() - (status.started or status.created))
    st.caption(f"{units.percent(status.fraction, 0)} done · {gone} gone · time left: {left}")


def _cancel(folder: Path) -> None:
    with contextlib.suppress(RunError):  # deleted meanwhile: the page will say so
        jobs.cancel(folder, session=session.known())


def _log(run: Run) -> str:
    try:
        lines = store.log_file(run.path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-LOG_LINES:])

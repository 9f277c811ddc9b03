"""Scoring from a page: what to score, the running job with Cancel, and how it ended."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import streamlit as st

from pgb_core import checkpoints, jobs, store
from pgb_core.errors import PGBError, RunError
from pgb_core.settings import get_settings
from pgb_core.spec import PruneSpec
from pgb_core.tasks import TASKS
from ui import finetuning, job, labels, read_only, session, units, url, words
from ui.devices import devices

NOT_A_TARGET = {"sparsity": 0.0, "method": "pgb-mixed"}
"""A scoring knows neither: what it finds serves all."""


def running() -> bool:
    """Show the scoring that the URL names; True while there is nothing else to show."""
    job_id = st.query_params.get("job")
    if job_id is None:
        return False
    try:
        run = store.find_run(get_settings().runs_dir, job_id, "score")
    except RunError:
        st.warning("The scoring that the link names is not here any more.")
        url.write(job=None)
        return False
    if run.status.active:
        st.subheader(f"Scoring {run.spec['checkpoint'].rpartition('/')[2]} on {run.spec['task']}", anchor=False)
        job.watch(run.id, run.status.state, "score")
        return True
    if run.status.state == "done" and run.result is not None:
        url.write(job=None, record=run.result["record"])
        return False
    job.ended(run)
    st.button("Back", icon=":material/arrow_back:", on_click=url.write, kwargs={"job": None})
    return True


def form() -> None:
    """Choose a checkpoint and a task; the button starts a scoring and puts it in the URL."""
    if read_only.instead("score a checkpoint"):
        return
    settings = get_settings()
    names = [name for name in checkpoints.list_checkpoints(settings) if not finetuning.raw(name, settings)]
    left, middle, right = st.columns(3, vertical_alignment="bottom")
    with left:
        checkpoint = st.selectbox("Checkpoint", names, key="score_checkpoint", help=words.CHECKPOINT)
    own = head = None
    if checkpoint != "demo":
        with contextlib.suppress(PGBError):  # changed since it was listed: the job says how
            info = checkpoints.describe(settings.models_dir / checkpoint)
            own, head = info.labels, info.head
    fitting = [
        name
        for name, task in TASKS.items()
        if name != "csv" and (task.offline or checkpoint != "demo") and labels.fit(task, own, head)
    ]
    with middle:
        task = st.selectbox(
            "Task", fitting, format_func=lambda name: TASKS[name].title, key="score_task", help=words.TASK
        )
    offered = devices()
    with right:
        device = st.selectbox(
            "Device", list(offered), format_func=offered.__getitem__, key="score_device", help=words.DEVICE
        )
    if st.button("Score", type="primary", icon=":material/query_stats:", disabled=task is None):
        start({"checkpoint": checkpoint, "task": task, "device": device})
    st.caption(
        "Takes about as long as a run without its refit: two minutes for the demo on two cores. A model of the Hub, or "
        "a file of your own, is scored by its first run on the Prune page."
    )


def start(values: Mapping[str, Any]) -> None:
    """Start the scoring of what `values`, fields of a spec, describe."""
    try:
        job_id = jobs.submit(PruneSpec(**values, **NOT_A_TARGET), "score", session=session.token())
    except PGBError as error:
        st.error(units.plain(str(error)))
    else:
        url.write(job=job_id, **session.proof())
        st.rerun()

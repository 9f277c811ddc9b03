"""Fine-tuning from the Prune page: offered where a checkpoint has no trained head, watched, and what came out of it."""

from __future__ import annotations

import re
from typing import Any

import streamlit as st

from pgb_core import hub, jobs, metrics, store
from pgb_core.errors import PGBError, RunError, SpecError
from pgb_core.finetune_spec import FinetuneSpec
from pgb_core.settings import Settings, get_settings
from pgb_core.store import Run
from pgb_core.tasks import TASKS
from ui import data_file, job, session, sources, units, uploads, url, words
from ui.devices import choose_device

_KEEP: dict[str, Any] = {"persist_state": "session"}


def raw(checkpoint: str | None, settings: Settings) -> bool:
    """Whether a chosen checkpoint is known to be an encoder without a trained head."""
    info = sources.described(checkpoint, settings)
    if info is not None:
        return not info.head_trained
    if checkpoint is None or not checkpoint.startswith(hub.PREFIX):
        return False
    asked = sources.asked(checkpoint.removeprefix(hub.PREFIX))
    return asked.done() and asked.exception() is None and asked.result().raw


def offer(checkpoint: str, task: str, files: tuple[Any, Any], columns: data_file.Choice, *, complete: bool) -> None:
    """Ask how to fine-tune; the button starts the job and puts it in the URL. `complete`: all files are there."""
    st.info("A raw encoder has no trained head. Fine-tune it on the task first, then prune what comes out.")
    device = choose_device()
    left, middle, right = st.columns(3)
    with left:
        epochs = st.number_input(
            "Epochs", 1, get_settings().max_recover_epochs, 3, key="finetune_epochs", **_KEEP, help=words.EPOCHS
        )
    with middle:
        rate = st.number_input(
            "Learning rate",
            1e-7,
            1e-2,
            None,
            step=1e-5,
            placeholder="automatic",
            format="%.0e",
            key="finetune_rate",
            **_KEEP,
            help=words.LEARNING_RATE,
        )
    with right:
        name = st.text_input(
            "Name of the result",
            _name(checkpoint, task),
            key=f"finetune_{checkpoint}_{task}",
            help=words.CHECKPOINT_NAME,
        )
    pressed = st.button(
        "Fine-tune",
        type="primary",
        icon=":material/school:",
        width="stretch",
        disabled=not (complete and columns.complete and name.strip()),
    )
    if pressed:
        values = {"checkpoint": checkpoint, "task": task, "device": device, "epochs": int(epochs)}
        _start({**values, "learning_rate": rate, **columns.fields}, files, name.strip())


def _name(checkpoint: str, task: str) -> str:
    """A name that is free, made of those of the checkpoint and the task."""
    base = re.sub(r"[^A-Za-z0-9._-]+", "-", checkpoint.removeprefix(hub.PREFIX).partition("@")[0].rpartition("/")[2])
    base = "upload" if checkpoint.startswith("/") else base.lstrip("._-") or "encoder"
    models, name = get_settings().models_dir, f"{base}-{task}"
    free = (candidate for n in range(2, 1000) if not (models / (candidate := f"{name}-{n}")).exists())
    return name if not (models / name).exists() else next(free, name)


def _start(values: dict[str, Any], files: tuple[Any, Any], name: str) -> None:
    uploads.touch(values["checkpoint"])
    try:
        train, evaluation = (uploads.stored(file) if file is not None else None for file in files)
        spec = FinetuneSpec(**values, train_file=train, eval_file=evaluation)
        job_id = jobs.submit_finetune(spec, name, session=session.token())
    except SpecError as error:
        st.error(f"This cannot be run: {units.plain(str(error))}")
    except (PGBError, OSError) as error:
        st.error(units.plain(str(error)))
    else:
        url.write(finetune=job_id, **session.proof())
        st.rerun()


def running() -> bool:
    """Show the fine-tuning that the URL names; True while there is nothing else to show."""
    job_id = st.query_params.get("finetune")
    if job_id is None:
        return False
    try:
        run = store.find_run(get_settings().runs_dir, job_id, "finetune")
    except RunError:
        st.warning("The fine-tuning that the link names is not here any more.")
        url.write(finetune=None)
        return False
    st.title({"done": "Fine-tuned", "failed": "Failed", "cancelled": "Cancelled"}.get(run.status.state, "Fine-tuning"))
    task = TASKS[run.spec["task"]].title
    st.text(f"{run.spec['name']} · {task} · {units.several(run.spec['epochs'], 'epoch')}")
    if run.status.active:
        job.watch(run.id, run.status.state, "finetune")
        return True
    if run.status.state == "done" and run.result is not None:
        _done(run)
    else:
        job.ended(run)
    st.button("Back", icon=":material/arrow_back:", on_click=url.write, kwargs={"finetune": None})
    return True


def _done(run: Run) -> None:
    result: dict[str, Any] = run.result or {}
    score, error = units.percent(result["score"]), units.percent(result["standard_error"])
    st.success(
        f"{metrics.title(result['metric'])} {score} ± {error} on {result['samples']} held-out examples, "
        f"in {units.seconds(result['seconds']['total'])}. The checkpoint is in the models folder.",
        icon=":material/check:",
    )
    st.button(
        f"Prune {run.spec['name']}",
        type="primary",
        icon=":material/content_cut:",
        on_click=_choose,
        args=(run.spec["name"],),
    )


def _choose(name: str) -> None:
    st.session_state["checkpoint"] = name
    url.write(finetune=None)

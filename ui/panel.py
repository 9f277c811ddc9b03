"""What the chosen checkpoint and task are, and what a run does with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from pgb_core import card, checkpoints, demo, estimates, hub, store
from pgb_core.card import Origin
from pgb_core.checkpoints import CheckpointInfo
from pgb_core.corpora import CORPORA
from pgb_core.errors import PGBError
from pgb_core.families import FAMILIES, HEAD_TITLES, Head
from pgb_core.hub import HubModel
from pgb_core.label_order import order_note
from pgb_core.settings import get_settings
from pgb_core.tasks import TASKS, Task
from pgb_core.weights import fingerprint_of
from ui import finetuning, inside, labels, sources, units, words

CALIBRATION = 1024
_ASKING_SECONDS = 0.5


def show(checkpoint: str | None, task: str, label_names: Sequence[str] | None = None) -> None:
    """What the chosen checkpoint and task are; `label_names` are the checkpoint's, if it is known already."""
    with st.container(border=True):
        st.subheader("Checkpoint", anchor=False, help=words.FACTS)
        if checkpoint is None:
            st.write("Choose a model of the Hub or upload one: what it is will be shown here.")
        elif checkpoint == "demo":
            _demo_panel(task)
        elif checkpoint.startswith(hub.PREFIX):
            _hub_panel(checkpoint.removeprefix(hub.PREFIX), task)
        else:
            folder = get_settings().models_dir / checkpoint
            _folder_panel(folder, task, card.read_origin(folder))
        st.subheader("Task", anchor=False)
        st.write(f"**{TASKS[task].title}.** {TASKS[task].description}")
        head, raw = sources.head_of(checkpoint, get_settings()), finetuning.raw(checkpoint, get_settings())
        if not labels.fit(TASKS[task], label_names, head):
            st.warning(f"This checkpoint {_lack(TASKS[task], head)}: choose the task it was fine-tuned on.")
        elif not raw and (note := order_note(TASKS[task].labels or (), dict(enumerate(label_names or ())))):
            st.caption(f":material/info: {units.plain(note[0].upper() + note[1:])}.")
        st.subheader("What happens", anchor=False)
        if raw:
            st.write("A new head is put on the encoder and both are trained on the task; then it can be pruned.")
        else:
            st.markdown(words.STEPS_OF_A_RUN)


def _lack(task: Task, head: Head | None) -> str:
    """Why a checkpoint with that head does not fit the task."""
    if task.labels and head in (None, task.head):
        return f"lacks labels of the task ({', '.join(task.labels)})"
    return f"is no {HEAD_TITLES[task.head]}"


def _demo_panel(task: str) -> None:
    own = demo.task_for(task)
    st.write(f"all-MiniLM-L6-v2, a real BERT of 6 layers, fine-tuned here for the task {CORPORA[own].title}.")
    summary = demo.summary(own)
    if summary is None:
        st.info(
            "Not prepared yet: the first run of this task fetches up to 90 MB and fine-tunes it, "
            f"about {CORPORA[own].minutes} minutes on two cores; progress is shown."
        )
        return
    score = units.percent(summary["score"])
    st.success(f"Prepared: {score} on {summary['samples']} held-out texts.", icon=":material/check:")
    _folder_panel(Path(summary["checkpoint"]), task, Origin(demo.BASE_MODEL, demo.BASE_LICENSE))


# --- the Hub -------------------------------------------------------------------------------------------------------


def _hub_panel(name: str, task: str) -> None:
    """A model that was fetched already, or what the Hub says of it; the page does not wait for its answer."""
    folder = hub.cached(name)
    if folder is not None:
        st.write(f"**{name}** was fetched before. A run takes the newest revision, if the Hub has another one by then.")
        _folder_panel(folder, task, card.read_origin(folder))
        return
    asked = sources.asked(name)
    if not asked.done():
        _asking(name)
        return
    if reason := sources.refusal(hub.PREFIX + name):
        st.error(units.plain(reason), icon=":material/cloud_off:")
    else:
        _hub_facts(asked.result())


@st.fragment(run_every=_ASKING_SECONDS)
def _asking(name: str) -> None:
    if sources.asked(name).done():
        st.rerun()
    st.caption(f":material/hourglass_top: Asking the Hub for {name}, for three seconds at most …")


def _hub_facts(found: HubModel) -> None:
    family = FAMILIES.get(found.family or "")
    if family is None:
        kind = units.plain(found.family or "model of unknown type")
        st.error(f"The Hub says this is a {kind}, which cannot be pruned here.")
    size = units.size(sum(found.files.values()))
    parameters = "" if found.parameters is None else f", {units.count(found.parameters)} parameters"
    rows = {
        "Model": found.name,
        "Family": family.title if family else "–",
        "Revision": found.revision[:12],
        "Download": f"{size} in {units.several(len(found.files), 'file')}{parameters}",
        "License": found.license or "not said",
    }
    _table(rows, "What the Hub says of the model.")
    st.caption("Fetched when the run starts: safetensors, config and tokenizer only, inspected before they are loaded.")


# --- a folder ------------------------------------------------------------------------------------------------------


def _folder_panel(folder: Path, task: str, origin: Origin) -> None:
    try:
        info = checkpoints.describe(folder)
        fingerprint = fingerprint_of(folder)
    except (PGBError, OSError) as error:
        st.error(units.plain(str(error)))
        return
    _facts(info, fingerprint, origin)
    if info.pruned:
        st.warning("This checkpoint is pruned already; choose the dense one it came from.")
        return
    if note := hub.note(folder, info):
        st.warning(f"{units.plain(note[0].upper() + note[1:])}.")
    _estimate(info, task, fingerprint)
    inside.show(folder, info, fingerprint)


def _facts(info: CheckpointInfo, fingerprint: str, origin: Origin) -> None:
    names = ", ".join(info.labels[:6]) + (f" … ({len(info.labels)} in all)" if len(info.labels) > 6 else "")
    head = HEAD_TITLES[info.head] if info.head_trained else "raw encoder without a trained head"
    others = info.parameters - info.encoder_weights
    rows = {
        "Family": f"{FAMILIES[info.family].title}, {head}",
        "Encoder": f"{info.layers} layers, hidden {info.hidden}, {info.heads} heads, {info.intermediate} neurons",
        "Parameters": f"{units.count(info.parameters)}: {units.count(info.encoder_weights)} encoder weights, which can "
        f"be pruned, {units.count(others)} others",
        "Size": f"{units.size(info.bytes)} on disk, {info.dtype}"
        + ("" if info.dtype == "float32" else " (read as float32)"),
        "Vocabulary": f"{info.vocabulary:,} tokens, texts of up to {info.max_positions}",
        "Labels": names if info.head == "classification" and info.head_trained else "–",
        "Weights": f"SHA-256 {fingerprint[:12]}…",
        "From": origin.source or "not known",
        "License": origin.license or "not known",
    }
    if origin.revision:
        rows["From"] += f", revision {origin.revision[:8]}"
    _table(rows, "What the checkpoint is.")


def _table(rows: dict[str, str], alt: str) -> None:
    st.table(
        [{"": key, " ": units.plain(value)} for key, value in rows.items()],
        border="horizontal",
        hide_index=True,
        hide_header=True,
        alt=alt,
    )


def _estimate(info: CheckpointInfo, task: str, fingerprint: str) -> None:
    length = min(TASKS[task].max_length, info.max_positions)
    found = estimates.estimate(
        info,
        store.list_runs(get_settings().runs_dir),
        samples=CALIBRATION,
        length=length,
        fingerprint=fingerprint,
    )
    if found is None:
        return
    what = "of these very weights " if found.like else ""
    rests = f"{units.several(found.runs, 'finished run')} {what}on this server"
    if not found.here:
        rests = f"{units.several(found.runs, 'shipped sample')} {what}measured on {found.machine}, not on this server"
    seconds = units.seconds(max(1.0, found.seconds))
    st.markdown(f"**A run here**: about {seconds} and up to {units.size(found.bytes)} of memory.", help=words.ESTIMATE)
    st.caption(f"Told from {rests}, scaled to this checkpoint and to {CALIBRATION:,} texts of {length} tokens.")

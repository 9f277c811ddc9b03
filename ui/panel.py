"""What the chosen checkpoint and task are, and what a run does with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from pgb_core import checkpoints, demo, hub
from pgb_core.checkpoints import CheckpointInfo
from pgb_core.corpora import CORPORA
from pgb_core.errors import PGBError
from pgb_core.settings import get_settings
from pgb_core.tasks import TASKS
from ui import labels, units, words


def show(checkpoint: str | None, task: str, label_names: Sequence[str] | None = None) -> None:
    """What the chosen checkpoint and task are; `label_names` are the checkpoint's, if it is known already."""
    with st.container(border=True):
        st.subheader("Checkpoint", anchor=False)
        if checkpoint is None:
            st.write("Type the id of a fine-tuned BERT classifier on the Hub, as owner/name.")
        elif checkpoint == "demo":
            _demo_panel(task)
        elif checkpoint.startswith(hub.PREFIX):
            name = checkpoint.removeprefix(hub.PREFIX)
            st.write(f"**{name}** is fetched from the Hub when the run starts (safetensors and tokenizer only).")
        else:
            try:
                _facts(checkpoints.describe(get_settings().models_dir / checkpoint))
            except PGBError as error:
                st.error(str(error))
        st.subheader("Task", anchor=False)
        st.write(f"**{TASKS[task].title}.** {TASKS[task].description}")
        if not labels.fit(TASKS[task], label_names):
            needed = ", ".join(TASKS[task].labels or ())
            st.warning(f"This checkpoint lacks labels of the task ({needed}): choose the task it was fine-tuned on.")
        st.subheader("What happens", anchor=False)
        st.markdown(words.STEPS_OF_A_RUN)


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
    try:
        _facts(checkpoints.describe(Path(summary["checkpoint"])))
    except PGBError as error:
        st.error(str(error))


def _facts(info: CheckpointInfo) -> None:
    names = ", ".join(info.labels[:6]) + (" …" if len(info.labels) > 6 else "")
    rows = {
        "Encoder": f"{info.layers} layers, hidden {info.hidden}, {info.heads} heads, {info.intermediate} neurons",
        "Parameters": f"{units.count(info.parameters)}, {units.count(info.encoder_weights)} can be pruned",
        "Size": f"{units.size(info.bytes)}, {info.dtype}",
        "Vocabulary": f"{info.vocabulary:,} pieces, up to {info.max_positions} tokens",
        "Labels": names,
    }
    st.table(
        [{"": key, " ": value} for key, value in rows.items()],
        border="horizontal",
        hide_index=True,
        hide_header=True,
        alt="What the checkpoint is.",
    )
    if info.pruned:
        st.warning("This checkpoint is pruned already; choose the dense one it came from.")
    elif not info.head_trained:
        st.warning("This checkpoint has no trained classifier; fine-tune it on a task first.")

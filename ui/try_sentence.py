"""A text of the visitor's own: what two models of one checkpoint make of it, and how long they take."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import streamlit as st

from pgb_core.errors import RunError
from pgb_core.store import Run
from pgb_core.tasks import TASKS
from pgb_core.trial import MAX_CHARACTERS
from ui import compare, read_only, trial, units, words
from ui.compare import Side

_LAST = "tried"
LABELS = 8
"""Most labels whose probabilities are drawn."""


def show(members: Sequence[Run]) -> None:
    """The form and, once there is one, the answer."""
    if read_only.instead("try a text on two models"):
        return
    with contextlib.suppress(RunError):  # the question itself says what is wrong
        trial.helper().warm()
    both = compare.choose(members)
    if any(side.run.sample for side in both):
        st.info(words.SAMPLE_TRIED)
        return
    task = TASKS.get(both[1].run.spec["task"])
    paired = task is not None and len(task.text_columns) > 1
    second = "Second text (only if the file has pairs)" if task is not None and task.labels is None else "Second text"
    with st.form("try"):
        text = st.text_area(
            "Text",
            key="try_text",
            max_chars=MAX_CHARACTERS,
            height=110,
            placeholder="Type or paste a text of the kind that the checkpoint was fine-tuned on.",
        )
        pair = st.text_input(second, key="try_pair", max_chars=MAX_CHARACTERS) if paired else ""
        pressed = st.form_submit_button("Try it", icon=":material/play_arrow:", type="primary")
    st.caption("Both answer with one of the checkpoint's labels, whatever the text is about. No text is stored.")
    if pressed and not text.strip():
        st.warning("Type a text first.")
        return
    if pressed:
        st.session_state[_LAST] = answer(both, text, pair)
    found = st.session_state.get(_LAST)
    if found and found["models"] == models(both):
        result(both, found)


def models(both: tuple[Side, Side]) -> list[dict[str, str]]:
    """The two models as the helper process knows them."""
    return [{"run": side.run.id, "model": side.column} for side in both]


def answer(both: tuple[Side, Side], text: str, pair: str) -> dict[str, Any] | None:
    """What the helper process says; None, and a line that says why, when it cannot."""
    request = {"op": "classify", "models": models(both), "text": text, "text_pair": pair or None}
    try:
        found = trial.ask(request, "Asking both models")
    except RunError as error:
        st.error(units.plain(str(error)))
        return None
    return {"models": models(both), "answers": found}


def result(both: tuple[Side, Side], found: dict[str, Any]) -> None:
    """Label, probabilities and milliseconds, side by side."""
    for column, side, said in zip(st.columns(2), both, found["answers"], strict=True):
        with column, st.container(border=True):
            st.markdown(f"**{side.letter}** {side.name}")
            shares = sorted(said["probabilities"].items(), key=lambda item: -item[1])
            with st.container(horizontal=True):
                st.metric("Label", units.plain(said["label"]))
                st.metric("Probability", units.percent(shares[0][1]))
                st.metric("Time", units.milliseconds(said["median_ms"]), help=words.TRIED)
            st.caption(
                f"[{units.milliseconds(said['p10_ms'])} to {units.milliseconds(said['p90_ms'])}], "
                f"{units.several(said['tokens'], 'token')}" + (", cut to what the run allows." if said["cut"] else ".")
            )
            st.dataframe(
                [{"label": label, "probability": share} for label, share in shares[:LABELS]],
                hide_index=True,
                column_config={
                    "label": "Label",
                    "probability": st.column_config.ProgressColumn(
                        "Probability", format="percent", min_value=0.0, max_value=1.0
                    ),
                },
                alt=f"Probability of each label by model {side.letter}.",
            )
    times = [said["median_ms"] for said in found["answers"]]
    st.caption(f"B takes {times[1] / times[0]:.2f} times as long as A for this text.")

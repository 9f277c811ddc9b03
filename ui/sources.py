"""Where a checkpoint comes from, as the forms ask for it: the models folder, the Hub, or an upload of this session."""

from __future__ import annotations

import contextlib
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import streamlit as st

from pgb_core import checkpoints, curated, hub
from pgb_core.checkpoints import CheckpointInfo
from pgb_core.errors import PGBError
from pgb_core.families import Head
from pgb_core.hub import HubModel
from pgb_core.settings import Settings
from pgb_core.tasks import TASKS
from ui import units, uploads, words

HUB = "A model of the Hugging Face Hub …"
UPLOAD = "Upload a checkpoint …"
OTHER = "Another one, by its id …"
_UPLOADED = "checkpoint_uploads"
"""In the session: what its uploads are called, by where they lie. No other session learns of them."""
_REFUSED = "checkpoint_refused"
_KEEP: dict[str, Any] = {"persist_state": "session"}
_ASKING = ThreadPoolExecutor(32, "asks the Hub")


def choose(settings: Settings) -> str | None:
    """The chosen checkpoint as a spec names it; None while none is."""
    own = _own_uploads()
    chosen = st.selectbox(
        "Checkpoint",
        [*checkpoints.list_checkpoints(settings), *own, HUB, UPLOAD],
        format_func=lambda name: own.get(name) or title(name),
        key="checkpoint",
        **_KEEP,
        help=words.CHECKPOINT,
    )
    if refused := checkpoints.list_refused(settings):
        with st.expander(f"{units.several(len(refused), 'folder')} of the models folder cannot be pruned"):
            st.markdown("\n".join(f"- **{units.plain(name)}**: {units.plain(why)}" for name, why in refused.items()))
    if chosen == HUB:
        return _choose_on_the_hub()
    if chosen == UPLOAD:
        _upload(settings)
        return None
    return str(chosen)


def title(name: str) -> str:
    """What a checkpoint of the list is called."""
    return "Demo: MiniLM, fine-tuned for the task" if name == "demo" else name


def described(checkpoint: str | None, settings: Settings) -> CheckpointInfo | None:
    """What a checkpoint is that lies on this server; None of one that has yet to be prepared or fetched."""
    folder = folder_of(checkpoint, settings)
    with contextlib.suppress(PGBError):  # changed since it was listed: the panel says how
        return None if folder is None else checkpoints.describe(folder)
    return None


def folder_of(checkpoint: str | None, settings: Settings) -> Path | None:
    """Where a chosen checkpoint lies on this server; None of the demo and of what the Hub has yet to send."""
    if checkpoint is None or checkpoint == "demo":
        return None
    if checkpoint.startswith(hub.PREFIX):
        return hub.cached(checkpoint.removeprefix(hub.PREFIX))
    return settings.models_dir / checkpoint  # an upload's own place is absolute, and stays what it is


def known(checkpoint: str | None) -> curated.Curated | None:
    """What the list of well-known checkpoints says of it."""
    if checkpoint is None or not checkpoint.startswith(hub.PREFIX):
        return None
    return curated.find(checkpoint.removeprefix(hub.PREFIX))


def names_of_labels(checkpoint: str | None, settings: Settings) -> tuple[str, ...] | None:
    """Labels of a checkpoint; None of one that is not here yet, or whose head has yet to be trained."""
    info = described(checkpoint, settings)
    if info is not None:
        return info.labels if info.head_trained else None
    entry = known(checkpoint)
    return (entry.labels or None) if entry else None


def head_of(checkpoint: str | None, settings: Settings) -> Head | None:
    """The kind of its head, as far as it is known."""
    info = described(checkpoint, settings)
    if info is not None:
        return info.head if info.head_trained else None
    entry = known(checkpoint)
    return TASKS[entry.task].head if entry else None


# --- the Hub -------------------------------------------------------------------------------------------------------


def _choose_on_the_hub() -> str | None:
    entries = {entry.name: entry for entry in curated.curated()}
    chosen = st.selectbox(
        "Model",
        [*entries, OTHER],
        format_func=lambda name: f"{name} · {TASKS[entries[name].task].title}" if name in entries else name,
        key="hub_known",
        **_KEEP,
        help=words.WELL_KNOWN,
    )
    if chosen in entries:
        note = entries[chosen].note
        if note is not None:
            st.caption(f"{note[0].upper()}{note[1:]}.")
        return hub.PREFIX + str(chosen)
    typed = st.text_input("Hub id", placeholder="owner/name", key="hub_id", **_KEEP, help=words.HUB_ID).strip()
    with contextlib.suppress(PGBError):
        hub.split(typed)
        return hub.PREFIX + typed
    if typed:
        st.warning(
            "A Hub id has the form owner/name, for instance distilbert/distilbert-base-cased-distilled-squad, or "
            "owner/name@commit with all 40 hexadecimal digits of the commit."
        )
    return None


@st.cache_resource(ttl=60, max_entries=100, show_spinner=False)
def asked(name: str) -> Future[HubModel]:
    """The Hub's answer about `owner/name`, asked for at most once a minute by all sessions together."""
    return _ASKING.submit(hub.look_up, name)


def refusal(checkpoint: str | None) -> str | None:
    """Why a model of the Hub cannot be had now, in one line; None where it can, or where nothing is known yet."""
    if checkpoint is None or not checkpoint.startswith(hub.PREFIX):
        return None
    name = checkpoint.removeprefix(hub.PREFIX)
    if hub.cached(name) is not None or not asked(name).done():
        return None
    error = asked(name).exception()
    if error is None:
        return None
    if not isinstance(error, ConnectionError | PGBError):
        raise error
    reason = hub.out_of_reach(name, str(error)) if isinstance(error, ConnectionError) else str(error)
    return f"{reason[:1].upper()}{reason[1:]}"


# --- uploads -------------------------------------------------------------------------------------------------------


def _own_uploads() -> dict[str, str]:
    """This session's uploads that are still there: where they lie, and what they are called."""
    found = {place: name for place, name in st.session_state.get(_UPLOADED, {}).items() if Path(place).is_dir()}
    names = list(found.values())  # most are called model.safetensors
    return {
        place: f"Your upload: {name}" + (f" ({names[: n + 1].count(name)})" if names.count(name) > 1 else "")
        for n, (place, name) in enumerate(found.items())
    }


def _upload(settings: Settings) -> None:
    files = st.file_uploader(
        "Files of the checkpoint",
        type=list(uploads.CHECKPOINT_TYPES),
        accept_multiple_files=True,
        max_upload_size=settings.max_checkpoint_megabytes,
        key="checkpoint_files",
        help=words.UPLOAD_CHECKPOINT,
    )
    st.caption(
        "config.json, one .safetensors and the tokenizer (tokenizer.json or vocab.txt; vocab.json and merges.txt), up "
        f"to {settings.max_checkpoint_megabytes} MB. Only this browser session sees it; it is removed after "
        f"{units.several(round(settings.upload_hours), 'hour')}."
    )
    st.button("Use these files", icon=":material/upload_file:", disabled=not files, on_click=_take, args=(files,))
    refused = st.session_state.pop(_REFUSED, None)
    if refused:
        st.error(units.plain(refused))


def _take(files: list[Any]) -> None:
    """Keep the uploaded files as a checkpoint and choose it, or say why not."""
    try:
        place = uploads.keep_checkpoint([(file.name, file) for file in files])
    except (PGBError, OSError) as error:
        st.session_state[_REFUSED] = f"These files cannot be used: {error}"
        return
    weights = next(file.name for file in files if file.name.lower().endswith(".safetensors"))
    st.session_state[_UPLOADED] = {**st.session_state.get(_UPLOADED, {}), str(place): weights[:60]}
    st.session_state["checkpoint"] = str(place)

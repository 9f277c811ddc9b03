"""What a user does with a run: name it, write notes, pin it, delete it."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from pgb_core import disk, store
from pgb_core.errors import RunError
from pgb_core.label import NAME_LENGTH, NOTES_LENGTH, Label
from pgb_core.settings import get_settings
from pgb_core.store import Run
from ui import read_only, units, url, words

_REPORT = "kept"


def show(run: Run) -> None:
    """The form for name and notes, and the buttons to pin and delete; a sample has none."""
    if run.sample:
        st.markdown("**Name and notes**")
        st.caption("A sample is shipped with the package: it cannot be named, pinned or deleted.")
        return
    if read_only.instead("name, pin and delete runs"):
        return
    with st.form(f"label_{run.id}"):
        name = st.text_input(
            "Name", run.label.name, max_chars=NAME_LENGTH, key=f"name_{run.id}", placeholder="None yet", help=words.NAME
        )
        notes = st.text_area("Notes", run.label.notes, max_chars=NOTES_LENGTH, key=f"notes_{run.id}", help=words.NOTES)
        if st.form_submit_button("Save", icon=":material/save:"):
            write(run, Label(name or "", notes or "", run.label.pinned), "Saved.")
    with st.container(horizontal=True):
        pinned = run.label.pinned
        if st.button(
            "Unpin" if pinned else "Pin", icon=":material/keep_off:" if pinned else ":material/keep:", help=words.PIN
        ):
            write(run, replace(run.label, pinned=not pinned), "Unpinned." if pinned else "Pinned.")
        delete_button(run)


def delete_button(run: Run) -> None:
    """Deletes after a second click, on a button that says what goes; locked while a run is active or pinned."""
    locked = (
        "It is waiting or running: cancel it first."
        if run.status.active
        else "It is pinned: unpin it first."
        if run.label.pinned
        else None
    )
    with st.popover("Delete …", icon=":material/delete:", disabled=locked is not None, help=locked):
        st.write(f"This deletes the run and all its files, {units.size(disk.use(run))}. It cannot be undone.")
        if locked is None and st.button("Delete for good", type="primary", key=f"delete_{run.id}"):
            delete(run)


def write(run: Run, label: Label, done: str) -> None:
    """Write the label and draw the page anew."""
    try:
        store.write_label(get_settings().runs_dir, run.id, label)
    except RunError as error:
        done = units.plain(str(error))
    _leave(done)


def delete(run: Run) -> None:
    """Delete the run and leave its address."""
    try:
        store.delete_run(get_settings().runs_dir, run.id)
    except RunError as error:
        _leave(units.plain(str(error)))
    url.write(run=None)
    _leave("Deleted.")


def report() -> None:
    """Say what the last click did."""
    if said := st.session_state.pop(_REPORT, None):
        st.toast(said)


def _leave(message: str) -> None:
    st.session_state[_REPORT] = message
    st.rerun()

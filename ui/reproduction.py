"""The command line and the Python that make a run again."""

from __future__ import annotations

import streamlit as st

from pgb_core import reproduce
from pgb_core.errors import SpecError
from pgb_core.store import Run
from ui import words


def show(run: Run) -> None:
    """Both, and what the result depends on beside the settings."""
    st.subheader("Reproduce", anchor=False, help=words.REPRODUCE)
    try:
        command, snippet, conditions = (
            make(run.spec) for make in (reproduce.command, reproduce.snippet, reproduce.conditions)
        )
    except SpecError as error:
        st.info("This server would not take these settings today:")
        st.text(str(error))
        return
    line, python = st.tabs(["Command line", "Python"])
    with line:
        st.code(command, language="bash", wrap_lines=True)
    with python:
        st.code(snippet, language="python", wrap_lines=True)
    st.caption("Settings that are left out are the defaults. What else the result depends on:")
    st.code("\n".join(f"{name}: {value}" for name, value in conditions), language=None, wrap_lines=True)

"""The helper process that pages ask what needs torch: one for the whole server, started with the first question."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from pgb_core.trial import Trial


@st.cache_resource(show_spinner=False)
def helper() -> Trial:
    """The handle of the server's one helper process."""
    return Trial()


def ask(request: Mapping[str, Any], doing: str) -> Any:
    """The helper's answer, with a line that says what happens meanwhile.

    Raises:
        RunError: it has none; the message says why.
    """
    with st.status(doing) as box:
        try:
            answer = helper().ask(request, lambda message: box.update(label=f"{doing}: {message} …"))
        except BaseException:
            box.update(label=doing, state="error")
            raise
        box.update(label="Done", state="complete")
    return answer

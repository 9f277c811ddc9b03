"""Who a session is: a secret of its own, by which it may have so many runs, and may cancel what it started.

Where only owners may cancel (`PGB_CANCEL=owner`) the session's URL carries it, so that a reload keeps the right; the
address that **Copy link** gives does not.
"""

from __future__ import annotations

import secrets

import streamlit as st

from pgb_core.settings import get_settings
from ui import url

_KEY = "owner"


def token() -> str:
    """The secret of this session, from now on."""
    found = known() or secrets.token_urlsafe(24)
    st.session_state[_KEY] = found
    return found


def known() -> str | None:
    """The secret of this session, which its URL may have brought along; None while it has not needed any."""
    found: str | None = st.session_state.get(_KEY) or st.query_params.get(url.PRIVATE)
    return found


def keep() -> None:
    """Keep the secret in the URL, where it decides who may cancel; the frame calls this after the page."""
    if get_settings().cancel == "owner" and (found := known()):
        url.write(**{url.PRIVATE: found})

"""Who a session is: a secret of its own, by which it may have so many runs, and may cancel what it started.

Where only owners may cancel (`PGB_CANCEL=owner`) the URL of what a session has started carries it, so that a reload, or
the same address elsewhere, keeps the right; the address that **Copy link** gives does not.
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
    if url.PRIVATE in st.query_params:
        st.session_state.setdefault(_KEY, st.query_params[url.PRIVATE])
    found: str | None = st.session_state.get(_KEY)
    return found


def proof() -> dict[str, str]:
    """What belongs in the URL of what this session has started: its secret, where only owners may cancel."""
    return {url.PRIVATE: token()} if get_settings().cancel == "owner" else {}

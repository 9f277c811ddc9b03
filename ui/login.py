"""Logging in, where the server has an identity provider: `[auth]` in `.streamlit/secrets.toml` (docs/deploy.md)."""

from __future__ import annotations

import streamlit as st


def require() -> None:
    """Draw nothing more of the page until the visitor is logged in; without a provider everybody is let in."""
    if st.user.get("is_logged_in", True):  # Streamlit knows the key only where there is a provider
        return
    st.title("PGB", anchor=False)
    st.write("This server is for people who are logged in.")
    st.button("Log in", type="primary", icon=":material/login:", on_click=st.login)
    st.stop()

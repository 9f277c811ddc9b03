"""What stands in the place of buttons on a server that only shows."""

from __future__ import annotations

import streamlit as st

from pgb_core import demo_mode


def instead(what: str) -> bool:
    """Whether this server only shows; then a line says so in the place of `what`, which could be done otherwise."""
    if demo_mode.on():
        st.info(f"{demo_mode.LINE} Install PGB on a machine of your own to {what}.", icon=":material/visibility:")
    return demo_mode.on()

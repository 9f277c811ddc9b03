"""The dashboard's frame: the pages and what they share. Start it with `streamlit run app.py` (or `make app`)."""

from __future__ import annotations

import streamlit as st

from ui import frame

st.set_page_config(page_title="PGB", page_icon=":material/grid_view:", layout="wide")
frame.run()

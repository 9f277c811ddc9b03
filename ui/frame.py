"""Navigation, and the guard that brings a page back into its frame.

On a freshly started server Streamlit runs a deep link's page file without `app.py`: no navigation, no layout. So every
page begins with `require`, which sends such a visit through `app.py` and back, query and all.
"""

from __future__ import annotations

import contextlib
import gc
from pathlib import Path

import streamlit as st

from pgb_core import embedded, memory
from pgb_core.settings import get_settings
from ui import login, uploads, url

PAGES = {
    "prune": ("Prune", ":material/content_cut:"),
    "layers": ("Layers", ":material/stacks:"),
    "matrix": ("Matrix", ":material/grid_on:"),
    "what_if": ("What if", ":material/tune:"),
    "trade_off": ("Trade-off", ":material/scatter_plot:"),
    "learn": ("Learn", ":material/school:"),
    "runs": ("Runs", ":material/history:"),
}
"""Title and icon of each page by its file name, which is its URL."""

_MARK = "framed"
_STYLE = Path(__file__).with_name("frame.css")


def path(page: str) -> str:
    """Where Streamlit finds page `page`."""
    return f"pages/{page}.py"


def run() -> None:
    """Build the navigation and run the page that the URL asks for."""
    pages = [st.Page(path(name), title=title, icon=icon) for name, (title, icon) in PAGES.items()]
    # the server's root only forwards, so that every page, the first one too, answers to its own name
    home = st.Page(_home, title="PGB", default=True, visibility="hidden")
    chosen = st.navigation([home, *pages], position="top")
    st.session_state[_MARK] = True
    st.html(_STYLE)
    st.logo(":material/grid_view:")
    query = st.query_params.to_dict()
    target = query.pop("page", None)
    if target in PAGES:
        st.switch_page(path(target), query_params=query)
    uploads.sweep()
    _session()
    with contextlib.suppress(OSError):  # a folder that cannot be written has no runs to compute
        embedded.attend(get_settings().runs_dir)
    tools = st.container(horizontal=True, horizontal_alignment="right", key="frame_tools")
    chosen.run()
    url.settle()
    with tools:
        _copy_link()


def require(page: str) -> None:
    """Make sure that `page` runs inside the frame, for somebody who may see it; every page calls this first."""
    if not st.session_state.get(_MARK):
        st.switch_page("app.py", query_params={**st.query_params.to_dict(), "page": page})
    login.require()  # here, as a page can be run without the frame


def link(page: str, label: str, **query: str) -> None:
    """A link to another page that carries `query` in its URL."""
    st.page_link(path(page), label=label, icon=PAGES[page][1], query_params=query)


def heading(title: str, explanation: str) -> None:
    """A page's title and the sentence under it."""
    st.title(title, anchor=False)
    st.caption(explanation)


def empty(title: str, advice: str, page: str | None = None, label: str = "") -> None:
    """An honest empty state: what is missing, what to do next, and the link to do it."""
    with st.container(border=True):
        st.subheader(title, anchor=False)
        st.write(advice)
        if page is not None:
            link(page, label)


def _copy_link() -> None:
    """The address of the view, to be copied; drawn last, when the page has said all that belongs to it.

    It is made when it is asked for: what a fragment of the page changed since the whole was drawn belongs to it, too.
    """
    place = st.popover("Copy link", icon=":material/link:", type="tertiary", key="copy_link", on_change="rerun")
    if not place.open:
        return
    with place:
        st.caption("Opens this page as you see it now, for whoever can reach this server.")
        with st.container(key="copy_link_address"):
            st.code(url.here(), language=None, wrap_lines=True)


def _left(_: bool) -> None:
    gc.collect()  # scripts leave it out, see .streamlit/config.toml
    memory.release()


@st.cache_resource(scope="session", on_release=_left, show_spinner=False)
def _session() -> bool:
    """There as long as the session is; what it took goes back to the system with it."""
    memory.keep_little()
    return True


def _home() -> None:
    st.switch_page(path("prune"), query_params=st.query_params.to_dict())

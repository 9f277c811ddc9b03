"""A session's secret: in the URL of what it started where only owners may cancel, never in a copied link."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from ui import url


def page() -> None:
    import streamlit as st

    from ui import session, url

    if st.button("Start"):
        session.token()
        url.write(run="1", **session.proof())
    st.text(f"{session.known()}")
    st.text(url.here())


def test_a_session_has_a_secret_once_it_has_started_something() -> None:
    app = AppTest.from_function(page).run()
    assert app.text[0].value == "None"
    app.button[0].click().run()
    first = app.text[0].value
    assert len(first) == 32
    assert app.run().text[0].value == first
    assert url.PRIVATE not in app.query_params  # anyone may cancel: it says nothing
    other = AppTest.from_function(page).run().button[0].click().run()
    assert other.text[0].value != first


def test_the_url_of_an_owner_has_the_secret_and_a_copied_link_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGB_CANCEL", "owner")
    app = AppTest.from_function(page).run().button[0].click().run()
    secret = app.text[0].value
    assert app.query_params[url.PRIVATE] == secret
    assert app.text[1].value == "?run=1"
    reloaded = AppTest.from_function(page)
    reloaded.query_params[url.PRIVATE] = secret
    assert reloaded.run().text[0].value == secret

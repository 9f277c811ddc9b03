"""The query and the defaults that widgets take, also when a click stops the page half-way."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest


def page() -> None:
    import streamlit as st

    from ui import url

    st.text(url.read("stage", ["pruned", "permuted"], "pruned", "stage"))
    if "stop" in st.session_state:
        st.stop()
    st.text(sorted(url.current().items()))
    url.settle()


def opened(**query: str) -> AppTest:
    app = AppTest.from_function(page)
    app.query_params.update(query)
    return app


@pytest.mark.parametrize("asked", [{}, {"stage": "gone"}])
def test_a_default_takes_the_place_of_nothing_and_of_what_is_not_here(asked: dict[str, str]) -> None:
    app = opened(**asked).run()
    assert app.query_params["stage"] == "pruned"
    assert app.text[1].value == "[('stage', 'pruned')]"


def test_a_default_of_a_page_that_was_stopped_does_not_undo_what_was_chosen_meanwhile() -> None:
    app = opened()
    app.session_state["stop"] = True
    app.run()
    assert "stage" not in app.query_params
    del app.session_state["stop"]
    app.query_params["stage"] = "permuted"
    app.run()
    assert app.text[1].value == "[('stage', 'permuted')]"
    assert app.query_params["stage"] == "permuted"

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


def slider_page() -> None:
    import streamlit as st

    from ui import url

    url.number(st.slider, "Group", "group", 9, default=0)


def test_a_slider_is_not_set_back_to_what_it_just_sent() -> None:
    """The visitor may have moved on; only a value that came from elsewhere is put in the browser."""
    app = AppTest.from_function(slider_page).run()
    moved = app.slider[0].set_value(4).run()
    assert moved.query_params["group"] == "4"
    assert moved.slider[0].value == 4
    assert not moved.slider[0].proto.set_value
    moved.query_params["group"] = "7"
    led = moved.run()
    assert led.slider[0].value == 7
    assert led.slider[0].proto.set_value

"""With an identity provider, no page shows anything before the visitor is logged in."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from pgb_core.settings import get_settings
from tests.pages.visit import APP, TIMEOUT, healthy, words
from tests.sample_run import make_sample_run
from ui import frame


@pytest.mark.parametrize("page", frame.PAGES)
def test_a_stranger_sees_a_button_to_log_in_and_nothing_else(page: str) -> None:
    run = make_sample_run(get_settings().runs_dir)
    app = AppTest.from_file(str(APP), default_timeout=TIMEOUT)
    app.user = {"is_logged_in": False}  # as Streamlit says it where there is a provider
    app.query_params.update({"page": page, "run": run.name})
    healthy(app.run())
    assert words(app).splitlines() == ["PGB", "This server is for people who are logged in."]
    assert [button.label for button in app.button] == ["Log in"]
    app.user = {"is_logged_in": True}
    healthy(app.run())
    assert "This server is for people who are logged in." not in words(app)

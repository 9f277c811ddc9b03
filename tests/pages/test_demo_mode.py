"""Every page of a read-only server: what there is is shown, and a line stands where buttons would be."""

from __future__ import annotations

import pytest

from pgb_core import demo_mode
from pgb_core.settings import get_settings
from tests.pages.visit import visit, words
from tests.sample_run import make_sample_run
from ui import frame

CHANGES = {
    *("Prune", "Score", "Measure latency", "Prune like this", "Start the sweep", "Fine-tune", "Use these files"),
    *("Save", "Pin", "Unpin", "Delete for good", "Try it", "Go on", "Cancel"),
}


@pytest.mark.parametrize("page", frame.PAGES)
def test_no_page_of_a_read_only_server_offers_a_change(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGB_DEMO_MODE", "1")
    monkeypatch.setenv("PGB_SHOW_SAMPLES", "1")
    app = visit(page)
    assert not {button.label for button in app.button} & CHANGES
    assert not app.get("file_uploader")
    assert (demo_mode.LINE in words(app)) == (page in ("prune", "what_if"))


@pytest.mark.parametrize(
    ("page", "query"), [("trade_off", {"view": "sweep"}), ("trade_off", {"view": "try"}), ("runs", {"run": "own"})]
)
def test_what_would_change_something_is_a_line(
    page: str, query: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_sample_run(get_settings().runs_dir)
    monkeypatch.setenv("PGB_DEMO_MODE", "1")
    app = visit(page, **{key: run.name if value == "own" else value for key, value in query.items()})
    assert demo_mode.LINE in words(app)
    assert not {button.label for button in app.button} & CHANGES

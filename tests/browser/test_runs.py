"""From a fresh server's sample to a run that is named, found, taken along and deleted."""

from __future__ import annotations

import re
import zipfile

import pytest
from playwright.sync_api import Page, expect

from pgb_core import store
from pgb_core.settings import get_settings
from tests.browser.visitor import settled
from tests.sample_run import make_sample_run

pytestmark = pytest.mark.timeout(240)


def test_a_run_is_named_found_downloaded_and_deleted(page: Page, server: str) -> None:
    runs_dir = get_settings().runs_dir
    run = make_sample_run(runs_dir, sparsity=0.6, seed=1).name
    page.goto(f"{server}/runs?run={run}&q=bbc")
    expect(page.get_by_text("1 run of this server")).to_be_visible()

    page.get_by_role("textbox", name="Name").fill("<b>Monday</b> **x**")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("<b>Monday</b> **x** · demo")).to_be_visible()
    assert store.find_run(runs_dir, run).label.name == "<b>Monday</b> **x**"

    search = page.get_by_role("searchbox", name="Search")
    search.fill("tuesday")
    search.press("Enter")
    expect(page.get_by_text("No run matches")).to_be_visible()
    expect(page).to_have_url(re.compile("q=tuesday"))
    search.fill("monday")
    search.press("Enter")
    expect(page.get_by_test_id("stDataFrame")).to_have_count(1)
    settled(page)  # the page draws every button anew: a click on one of the page before makes no file

    for button, name in ((re.compile("^Model, ZIP"), "model.safetensors"), ("Figures, ZIP", "index.html")):
        with page.expect_download() as download:
            page.get_by_role("button", name=button).click()
        assert run in download.value.suggested_filename
        with zipfile.ZipFile(download.value.path()) as archive:
            assert archive.testzip() is None
            assert any(entry.endswith(name) for entry in archive.namelist())

    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.get_by_role("button", name="Delete …").click()
    page.get_by_role("button", name="Delete for good").click()
    expect(page.get_by_text("No run yet")).to_be_visible()
    expect(page).not_to_have_url(re.compile("run="))
    assert not (runs_dir / run).exists()

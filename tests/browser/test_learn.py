"""The journey through a lesson: a cold deep link, an edit that survives a reload, a help text that leads to a term."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlparse

import pytest
from playwright.sync_api import Page, expect

from ui.lesson import decode

pytestmark = pytest.mark.timeout(240)


def test_a_weight_is_edited_followed_through_the_steps_kept_by_a_reload_and_its_terms_looked_up(
    page: Page, server: str
) -> None:
    page.goto(f"{server}/learn?preset=random&step=1")
    expect(page.get_by_role("heading", name="1. Importance")).to_be_visible()
    expect(page.locator(".js-plotly-plot")).to_have_count(4)

    # the first cell of the table; a canvas, so it is typed into by place and keyboard
    table = page.get_by_test_id("stDataFrame").first
    table.scroll_into_view_if_needed()
    table.click(position={"x": 25, "y": 60})
    page.keyboard.press("Enter")
    expect(page.locator("#portal input")).to_be_visible()
    page.keyboard.press("Control+A")
    page.keyboard.type("-7.3", delay=50)
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("weights="))
    expect(page.get_by_text("The largest weight is −7.3 (row 1, column 1)")).to_be_visible()
    typed = decode(parse_qs(urlparse(page.url).query)["weights"][0])
    assert typed is not None
    assert typed[0, 0] == -7.3

    page.get_by_role("radio", name="Glossary").click()
    expect(page.get_by_role("heading", name="Measuring")).to_be_visible()
    page.get_by_role("radio", name="Step by step").click()
    expect(page.get_by_text("The largest weight is −7.3 (row 1, column 1)")).to_be_visible()
    page.get_by_role("button", name="Next: Permutation").click()
    expect(page.get_by_role("heading", name="2. Permutation")).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="2. Permutation")).to_be_visible()
    expect(page.get_by_role("button", name="Undo edits")).to_be_enabled()
    page.get_by_role("button", name="Undo edits").click()
    expect(page).not_to_have_url(re.compile("weights="))

    page.get_by_role("button", name="Help for Density").hover()
    with page.context.expect_page() as opened:
        page.get_by_role("tooltip").get_by_role("link", name="Density").click()
    term = opened.value
    expect(term).to_have_url(re.compile(r"/learn\?.*term=density"))
    expect(term.get_by_role("heading", name="Density").first).to_be_visible()
    term.get_by_role("link", name="sparsity").first.click()
    expect(term.locator("#sparsity")).to_be_in_viewport()

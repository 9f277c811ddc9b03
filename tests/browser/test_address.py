"""The address bar says what a page shows, both ways: copied, typed, and with the browser's Back and Forward."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from pgb_core.settings import get_settings
from tests.browser.visitor import GROUP_MARKS, choose, click_mark, settled
from tests.sample_run import make_sample_run

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def run() -> Path:
    return make_sample_run(get_settings().runs_dir, seed=1)


def copied(page: Page) -> str:
    """What the clipboard holds after Copy link."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator(".st-key-copy_link button").first.click()
    page.locator(".st-key-copy_link_address").hover()
    page.locator(".st-key-copy_link_address").get_by_role("button").click()
    text: str = page.evaluate("navigator.clipboard.readText()")
    page.keyboard.press("Escape")
    return text


def test_a_copied_link_restores_matrix_group_weight_and_window(page: Page, server: str, run: Path) -> None:
    page.goto(f"{server}/matrix?run={run.name}&layer=1&matrix=feed_forward.output")
    click_mark(page.locator(GROUP_MARKS).first)
    expect(page).to_have_url(re.compile("group=1"))
    page.get_by_role("spinbutton", name="Original row").fill("3")
    page.keyboard.press("Tab")
    expect(page).to_have_url(re.compile("row=3"))
    page.get_by_role("spinbutton", name="Original column").fill("5")
    page.keyboard.press("Tab")
    expect(page.get_by_text("In the checkpoint")).to_be_visible()
    settled(page)  # a click on what is just drawn anew is lost
    page.get_by_role("radio", name="Permuted").click()
    expect(page).to_have_url(re.compile("stage=permuted"))
    settled(page)
    link = copied(page)
    assert link == page.url

    page.goto("about:blank")  # nothing of the session is left
    page.goto(link)
    settled(page)
    expect(page.get_by_role("heading", name="Exact window on group 1")).to_be_visible()
    expect(page.get_by_role("spinbutton", name="Original row")).to_have_value("3")
    expect(page.get_by_role("spinbutton", name="Original column")).to_have_value("5")
    expect(page.get_by_role("radio", name="Permuted")).to_be_checked()
    assert page.url == link


def test_back_and_forward_walk_over_what_was_chosen(page: Page, server: str, run: Path) -> None:
    page.goto(f"{server}/layers?run={run.name}")
    settled(page)
    start = page.url
    assert "layer=" in start
    other = "2" if "layer=1" in start else "1"
    page.get_by_role("combobox", name=re.compile("Layer")).click()
    page.get_by_role("option", name=other, exact=True).click()
    expect(page).to_have_url(re.compile(f"layer={other}"))
    settled(page)
    page.get_by_role("link", name="See its matrices").click()
    expect(page.get_by_role("heading", name="All matrices")).to_be_visible()
    settled(page)

    page.go_back()
    back_to(page, lambda: page.get_by_role("heading", name="Network").is_visible())
    expect(page).to_have_url(re.compile(f"/layers.*layer={other}"))
    expect(page.get_by_role("combobox", name=re.compile("Layer"))).to_have_value(other)
    page.go_back()
    expect(page).to_have_url(start)
    expect(page.get_by_role("combobox", name=re.compile("Layer"))).to_have_value("1" if other == "2" else "2")
    page.go_forward()
    expect(page).to_have_url(re.compile(f"/layers.*layer={other}"))
    expect(page.get_by_role("combobox", name=re.compile("Layer"))).to_have_value(other)


def back_to(page: Page, reached: Callable[[], bool]) -> None:
    """Go back until `reached`: the step in which a page took its defaults is one of its own."""
    settled(page)
    if not reached():
        page.go_back()
        settled(page)


def test_two_sessions_do_not_see_each_others_selections(page: Page, server: str, run: Path) -> None:
    make_sample_run(get_settings().runs_dir, seed=2, sparsity=0.7)
    page.goto(f"{server}/matrix?run={run.name}&layer=2")
    settled(page)
    browser = page.context.browser
    assert browser is not None
    other = browser.new_context().new_page()  # another visitor: no cookies in common
    other.goto(f"{server}/matrix")
    settled(other)
    assert run.name not in other.url
    choose(other, "Layer", "1")
    expect(other).to_have_url(re.compile("layer=1"))
    settled(other)

    page.get_by_role("radio", name="Importance").click()
    expect(page).to_have_url(re.compile(f"run={run.name}.*color=importance"))
    settled(page)
    expect(page.get_by_role("combobox", name=re.compile("Layer"))).to_have_value("2")
    expect(other.get_by_role("radio", name="Importance")).not_to_be_checked()
    other.get_by_role("link", name="Layers").click()
    expect(other.get_by_role("heading", name="Network")).to_be_visible()
    settled(other)
    assert run.name not in other.url
    other.context.close()

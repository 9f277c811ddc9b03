"""What a visitor does with eyes and hands: waits until a page stands still, chooses from a box, clicks into a chart."""

from __future__ import annotations

import re

from playwright.sync_api import Locator, Page, expect

GROUP_MARKS = ".st-key-overview_pruned .scatterlayer .points path"
"""Of every group, on the page Matrix."""


def settled(page: Page) -> None:
    """Wait until the page is drawn and its script has ended."""
    expect(page.get_by_text("Copy link")).to_be_visible()
    expect(page.locator("[data-testid=stApp][data-test-script-state=notRunning]")).to_be_visible()
    expect(page.get_by_test_id("stSkeleton")).to_have_count(0)


def choose(page: Page, label: str, option: str) -> None:
    """Pick `option` in the select box `label`."""
    page.get_by_role("combobox", name=re.compile(label)).click()
    page.get_by_role("option", name=option, exact=True).click()


def click_mark(mark: Locator) -> None:
    """Click a mark of a chart as soon as it stays where it is: the chart's own layer lies above it and takes the click.

    A chart is drawn twice, as it comes and at its width, and anew when its page is.
    """
    settled(mark.page)
    before = None
    while (place := _place(mark)) != before:
        before = place
        mark.page.wait_for_timeout(1000)
    mark.page.mouse.click(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)


def _place(mark: Locator) -> dict[str, float]:
    """Where it is in the window, once it is there."""
    place: dict[str, float] = mark.evaluate(
        "node => { node.scrollIntoView({block: 'center', behavior: 'instant'}); "
        "const {x, y, width, height} = node.getBoundingClientRect(); return {x, y, width, height} }"
    )
    return place

"""What every page promises: it opens from a cold link, fits its window, and has nothing that axe calls serious."""

from __future__ import annotations

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from pgb_core.settings import get_settings
from tests.browser.visitor import settled
from tests.sample_run import make_sample_run
from ui.frame import PAGES

pytestmark = pytest.mark.timeout(240)
RUN = "20260101-120000-abcdef"
HEADINGS = {"prune": "Result"} | {name: title for name, (title, _) in PAGES.items() if name != "prune"}
"""What a page is called when the link names a run."""
WIDTHS = (1920, 768, 420)
SEVERE = ("serious", "critical")
FRAMEWORK: set[tuple[str, str]] = set()
"""(rule, part of the selector) of what Streamlit itself draws and we cannot change; none is known of 1.67."""


def violations(page: Page) -> list[str]:
    """What axe calls serious or critical in the page as it is now, a line per element, the framework's own left out."""
    found: list[dict[str, Any]] = Axe().run(page).response["violations"]
    return [
        f"{violation['id']}: {selector}: {node['html'][:200]}"
        for violation in found
        if violation["impact"] in SEVERE
        for node in violation["nodes"]
        for selector in [" ".join(map(str, node["target"]))]
        if not any(violation["id"] == rule and part in selector for rule, part in FRAMEWORK)
    ]


@pytest.mark.parametrize("name", PAGES)
def test_a_cold_link_opens_a_page_that_fits_and_that_all_can_use(page: Page, server: str, name: str) -> None:
    make_sample_run(get_settings().runs_dir, run_id=RUN, recovered=True, seed=1)
    page.goto(f"{server}/{name}?run={RUN}")
    settled(page)
    expect(page.get_by_role("heading", level=1)).to_have_text(HEADINGS[name])
    expect(page.get_by_role("link", name="Trade-off")).to_be_visible()  # the frame is there
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        for selector in ("html", "[data-testid=stMain]"):
            box = page.locator(selector).evaluate("node => [node.scrollWidth, node.clientWidth]")
            assert box[0] <= box[1], f"{selector} is {box[0]} px wide in {box[1]} px"
    page.set_viewport_size({"width": 1400, "height": 900})
    assert violations(page) == []
    page.emulate_media(color_scheme="dark")
    page.goto(f"{server}/{name}?run={RUN}")
    settled(page)
    assert violations(page) == []
    page.locator(".st-key-copy_link button").first.click()
    expect(page.locator(".st-key-copy_link_address")).to_be_visible()
    assert violations(page) == []
    exports = page.get_by_role("button", name="Export")
    if exports.count():
        page.keyboard.press("Escape")
        exports.first.click()
        expect(page.get_by_role("button", name="SVG, a drawing")).to_be_visible()
        assert violations(page) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_first_page_of_a_fresh_server_can_be_used_by_all(page: Page, server: str, theme: Any) -> None:
    page.emulate_media(color_scheme=theme)
    page.goto(server)
    settled(page)
    expect(page.get_by_role("heading", level=1)).to_have_text("Prune a BERT")
    assert violations(page) == []


def test_axe_sees_what_is_wrong(page: Page) -> None:
    page.set_content('<html lang="en"><title>x</title><main><h1>x</h1><img src="x.png"><button></button></main></html>')
    assert [line.split(":")[0] for line in violations(page)] == ["button-name", "image-alt"]

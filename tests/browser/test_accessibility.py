"""axe finds nothing serious in what we draw, on any page, in either theme."""

from __future__ import annotations

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from pgb_core.settings import get_settings
from tests.sample_run import make_sample_run
from ui.frame import PAGES

pytestmark = pytest.mark.timeout(240)
RUN = "20260101-120000-abcdef"
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


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("address", ["prune", *(f"{name}?run={RUN}" for name in PAGES)])
def test_no_serious_violation(page: Page, server: str, address: str, theme: Any) -> None:
    make_sample_run(get_settings().runs_dir, run_id=RUN, recovered=True, seed=1)
    page.emulate_media(color_scheme=theme)
    page.goto(f"{server}/{address}")
    settled(page)
    assert violations(page) == []
    page.locator(".st-key-copy_link button").first.click()
    expect(page.locator(".st-key-copy_link_address")).to_be_visible()
    exports = page.get_by_role("button", name="Export")
    assert violations(page) == []
    if exports.count():
        page.keyboard.press("Escape")
        exports.first.click()
        expect(page.get_by_role("button", name="SVG, a drawing")).to_be_visible()
        assert violations(page) == []


def test_axe_sees_what_is_wrong(page: Page) -> None:
    page.set_content('<html lang="en"><title>x</title><main><h1>x</h1><img src="x.png"><button></button></main></html>')
    assert [line.split(":")[0] for line in violations(page)] == ["button-name", "image-alt"]


def settled(page: Page) -> None:
    """Wait until the page is drawn and its script has ended."""
    expect(page.get_by_text("Copy link")).to_be_visible()
    expect(page.locator("[data-testid=stApp][data-test-script-state=notRunning]")).to_be_visible()
    expect(page.get_by_test_id("stSkeleton")).to_have_count(0)

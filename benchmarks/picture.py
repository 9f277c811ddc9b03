"""A figure as a picture for the README: a page as a browser draws it."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
SCALE = 2
"""Pixels of the picture for each one of the page: sharp on dense screens."""


def take_picture(page: Path, picture: Path, width: int, height: int) -> bool:
    """Save what a browser window of that size shows of the file `page`; False if Playwright or Chromium fails.

    `height` is that of a figure at the top of the page.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        return False
    if browser is None:
        return False
    picture.parent.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright, contextlib.suppress(Error):  # it may not start, or take too long
        chromium = playwright.chromium.launch(executable_path=browser, args=ARGUMENTS)
        tab = chromium.new_page(viewport={"width": width, "height": height}, device_scale_factor=SCALE)
        tab.goto(page.resolve().as_uri())
        tab.add_style_tag(content="body { margin: 0; background: white; }")
        tab.evaluate("window.dispatchEvent(new Event('resize'))")  # the margin is gone
        tab.locator(".main-svg").first.wait_for()
        tab.wait_for_timeout(500)  # drawing anew has no event to wait for
        tab.screenshot(path=picture)
        chromium.close()
        return True
    return False

"""From a sweep to a point to its run, and to the comparison of two, in a real browser."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from pgb_core import store, sweep_spec
from pgb_core.settings import get_settings
from tests.browser.visitor import choose, click_mark

pytestmark = pytest.mark.timeout(420)


def test_a_sweep_is_started_found_again_and_leads_to_a_run_and_a_comparison(
    page: Page, server: str, tiny_checkpoint: Path, tiny_csv: Path
) -> None:
    shutil.copytree(tiny_checkpoint, get_settings().models_dir / "tiny")
    page.goto(f"{server}/trade_off?view=sweep")
    choose(page, "Checkpoint", "tiny")
    choose(page, "Task", "Your own file")
    page.locator("input[type=file]").first.set_input_files(tiny_csv)
    expect(page.get_by_text("tiny.csv")).to_be_visible()
    for method in ("PGB: groups", "Structured: whole"):  # one cheap method in place of both
        page.get_by_role("button", name=re.compile(f"(Remove|Clear|Close).*{method}")).first.click()
    page.get_by_role("combobox", name=re.compile("Methods")).click()
    page.get_by_role("option", name=re.compile("magnitude")).click()
    page.keyboard.press("Escape")
    expect(page.get_by_text("3 points")).to_be_visible()
    page.get_by_role("button", name="Start the sweep").click()
    expect(page.get_by_role("button", name="Cancel the sweep")).to_be_visible()
    expect(page).to_have_url(re.compile(r"sweep=\d{8}-\d{6}-[0-9a-f]{6}"))

    page.goto(f"{server}/trade_off")  # a visit without its address finds what is active
    expect(page.get_by_role("button", name="Cancel the sweep")).to_be_visible()
    (sweep,) = sweep_spec.list_sweeps(get_settings().runs_dir)
    page.goto(f"{server}/trade_off?sweep={sweep.id}&cost=density")
    expect(page.get_by_text("The sweep is done: 3 points.")).to_be_visible(timeout=300_000)
    expect(page.locator(".js-plotly-plot")).to_have_count(1)

    click_mark(page.locator(".st-key-trade_off .scatterlayer .points path").last)
    expect(page.get_by_role("heading", name="Result")).to_be_visible()
    opened = re.search(r"run=([0-9a-f-]+)", page.url)
    assert opened is not None
    assert opened[1] in {point.run for point in sweep.points}

    first, second = (run.id for run in store.list_runs(get_settings().runs_dir)[:2])
    page.goto(f"{server}/trade_off?view=compare&a={first}&b={second}")
    expect(page.get_by_role("heading", name="Is one better?")).to_be_visible()
    expect(page.get_by_role("heading", name="The same matrix")).to_be_visible()
    expect(page.locator(".js-plotly-plot")).to_have_count(3)
    page.goto(f"{server}/trade_off?view=try&b={first}")
    page.get_by_role("textbox", name="Text", exact=True).fill("a happy lovely day")
    page.get_by_role("button", name="Try it").click()
    expect(page.get_by_text("times as long as A")).to_be_visible(timeout=200_000)
    expect(page.get_by_test_id("stMetric").first).to_contain_text("positive")

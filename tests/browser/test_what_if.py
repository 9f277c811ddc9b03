"""What if: from the slider to the figure, the numbers and the address."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from benchmarks.synthetic_record import make_record
from pgb_core import replan, scored
from pgb_core.constraints import Constraints
from pgb_core.settings import get_settings
from tests.browser.visitor import settled
from tests.sample_latency import SIZES, keep_sample_table

pytestmark = pytest.mark.timeout(240)

BARS = """() => [...document.querySelectorAll('.st-key-what_if_network .bars path')]
  .map(path => path.getAttribute('d')).join()"""


def test_the_slider_moves_the_figure_the_numbers_and_the_address(page: Page, server: str) -> None:
    keep_sample_table(get_settings().cache_dir)
    key = make_record(get_settings().runs_dir, SIZES, seed=2)
    page.goto(f"{server}/what_if?record={key}&method=pgb-mixed&target=50")
    settled(page)
    before = page.evaluate(BARS)
    assert before
    handle = page.get_by_role("slider").first
    handle.focus()
    for _ in range(20):
        handle.press("ArrowRight")
    expect(page).to_have_url(re.compile("target=70"))
    page.wait_for_function(f"before => ({BARS})() !== before", arg=before)

    record = scored.read(scored.find(get_settings().runs_dir)[key])
    (plan,) = replan.solve(replan.market_of(record, "pgb-mixed", "weights"), [0.7], Constraints())
    kept = f"{100 * replan.totals(record, plan.options, None).sparsity:.1f}%"
    expect(page.get_by_test_id("stMetric").filter(has_text="Weights removed")).to_contain_text(kept)

    link = page.url
    page.goto("about:blank")
    page.goto(link)
    settled(page)
    expect(page.get_by_test_id("stMetric").filter(has_text="Weights removed")).to_contain_text(kept)

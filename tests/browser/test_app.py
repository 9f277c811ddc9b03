"""The two journeys that nothing but a real browser can vouch for."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from pgb_core import matrices, store
from pgb_core.settings import get_settings
from tests.browser.visitor import GROUP_MARKS, choose, click_mark, settled
from tests.sample_run import SampleShape, make_sample_run

pytestmark = pytest.mark.timeout(240)


def test_a_deep_link_on_a_cold_server_opens_its_group_and_a_click_another(page: Page, server: str) -> None:
    shape = SampleShape(layers=2, hidden=64, heads=8, intermediate=128)
    run = make_sample_run(get_settings().runs_dir, shape=shape, sparsity=0.6, seed=1)
    layouts = matrices.read_layouts(store.read_run(run))
    (layer, kind, name), layout = next((k, found) for k, found in layouts.items() if len(found.row_groups) >= 2)
    page.goto(f"{server}/matrix?run={run.name}&layer={layer + 1}&matrix={kind}.{name}&group=2")

    expect(page.get_by_role("heading", name="Exact window on group 2")).to_be_visible()
    expect(page.get_by_role("link", name="Trade-off")).to_be_visible()  # the frame is there
    expect(page.locator(".js-plotly-plot")).to_have_count(6)
    assert re.search(rf"/matrix\?run={run.name}&layer={layer + 1}&matrix={kind}\.{name}&group=2", page.url)

    # a heatmap's marker and the table of groups both write the URL
    click_mark(page.locator(GROUP_MARKS).first)
    expect(page.get_by_role("heading", name="Exact window on group 1")).to_be_visible()
    expect(page).to_have_url(re.compile("group=1"))

    # what the pointer is on is named as drawn and as in the checkpoint
    settled(page)
    plot = page.locator(".st-key-window .nsewdrag")
    plot.hover(position={"x": 30, "y": 30})
    said = page.locator(".st-key-window .hoverlayer text").first
    expect(said).to_contain_text("row")
    found = re.match(r"row (\d+) \(original (\d+)\), column (\d+) \(original (\d+)\)weight", said.text_content() or "")
    assert found
    row, original_row, column, original_column = map(int, found.groups())
    assert (layout.row_order()[row], layout.column_order()[column]) == (original_row, original_column)


def test_a_tiny_model_is_pruned_from_the_button_to_the_result(
    page: Page, server: str, tiny_checkpoint: Path, tiny_csv: Path
) -> None:
    shutil.copytree(tiny_checkpoint, get_settings().models_dir / "tiny")
    page.goto(server)
    expect(page.get_by_role("heading", name="Prune a BERT")).to_be_visible()
    choose(page, "Checkpoint", "tiny")
    expect(page.get_by_text("2 layers, hidden 32, 4 heads, 64 neurons")).to_be_visible()
    choose(page, "Task", "Your own file")
    page.locator("input[type=file]").first.set_input_files(tiny_csv)
    expect(page.get_by_text("tiny.csv")).to_be_visible()
    page.get_by_role("button", name="Prune", exact=True).click()

    expect(page.get_by_role("button", name="Cancel")).to_be_visible()
    expect(page).to_have_url(re.compile(r"run=\d{8}-\d{6}-[0-9a-f]{6}"))
    page.reload()  # the run is found again by its address
    expect(page.get_by_role("heading", name="Result")).to_be_visible(timeout=150_000)

    run = store.list_runs(get_settings().runs_dir)[0]
    assert run.result is not None
    score = run.result["score"]
    expect(page.get_by_test_id("stMetric").first).to_contain_text(f"{100 * score['compensated']:.1f}%")
    assert score["dense"] > 0.85
    assert run.result["parameters"]["encoder_pruned"] < run.result["parameters"]["encoder_dense"]
    page.get_by_role("link", name="What is left of each layer").click()
    expect(page.get_by_role("heading", name="Network")).to_be_visible()
    expect(page.locator(".js-plotly-plot")).to_have_count(2)
    assert run.id in page.url

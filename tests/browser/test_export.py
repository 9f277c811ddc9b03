"""The files of a chart: each opens, is what its name says, and can be read on white although the page is dark."""

from __future__ import annotations

import csv
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from pgb_core import matrices, store
from pgb_core.figures import matrix as figures
from pgb_core.figures.export import INK
from pgb_core.settings import get_settings
from tests.browser.visitor import settled
from tests.sample_run import make_sample_run

pytestmark = pytest.mark.timeout(240)
SVG = "{http://www.w3.org/2000/svg}"
BUTTONS = {"png": "PNG, a picture", "svg": "SVG, a drawing", "html": "HTML, interactive", "csv": "CSV, the numbers"}


def save(page: Page, ending: str, folder: Path) -> Path:
    """The file that the Export menu of the permuted overview gives for `ending`."""
    button = page.get_by_role("button", name=BUTTONS[ending])
    if button.count() == 0:  # saving a picture closes the menu
        page.locator(".st-key-overview_permuted_export button").first.click()
    with page.expect_download() as download:
        button.click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def test_exported_files_open_and_say_what_the_chart_says(page: Page, server: str, tmp_path: Path) -> None:
    run = make_sample_run(get_settings().runs_dir, seed=1)
    page.emulate_media(color_scheme="dark")
    page.goto(f"{server}/matrix?run={run.name}&layer=1&matrix=feed_forward.output")
    expect(page.locator(".st-key-overview_permuted .js-plotly-plot")).to_be_visible()
    settled(page)
    before = page.locator(".st-key-overview_permuted .js-plotly-plot").evaluate("plot => plot.layout.font?.color")
    files = {ending: save(page, ending, tmp_path) for ending in BUTTONS}
    stem = f"matrix-layer-1-feed-forward-output-permuted-by-weight-run-{run.name}"
    assert [path.name for path in files.values()] == [f"{stem}.{ending}" for ending in BUTTONS]

    ink = tuple(int(INK[place : place + 2], 16) for place in (1, 3, 5))
    with Image.open(files["png"]) as picture:
        picture.load()
        pixels = np.asarray(picture.convert("RGBA"))
    assert picture.format == "PNG"
    np.testing.assert_array_equal(pixels[2, 2], (255, 255, 255, 255))
    assert (pixels[..., :3] == ink).all(axis=2).sum() > 200  # the text

    root = ET.parse(files["svg"]).getroot()  # noqa: S314  # made by this very test
    assert root.tag == f"{SVG}svg"
    assert "rgb(255, 255, 255)" in next(root.iter(f"{SVG}rect")).attrib["style"]
    titles = [node for node in root.iter(f"{SVG}text") if node.text == "permuted row (output)"]
    assert len(titles) == 1
    assert f"rgb({', '.join(map(str, ink))})" in titles[0].attrib["style"]

    view = matrices.read_matrix(store.read_run(run), 0, "feed_forward", "output")
    table = figures.overview_table(view, "permuted", "weight")
    with files["csv"].open(encoding="utf-8-sig", newline="") as file:
        heading, *rows = csv.reader(file)
    assert heading == list(table)
    np.testing.assert_array_equal(np.array(rows, dtype=np.float32), np.stack(list(table.values()), axis=1))

    # the page has its own colors again
    assert page.locator(".st-key-overview_permuted .js-plotly-plot").evaluate("p => p.layout.font?.color") == before
    page.context.set_offline(True)
    page.goto(files["html"].as_uri())
    expect(page).to_have_title(f"matrix layer 1 feed_forward.output permuted by weight, run {run.name}")
    expect(page.locator(".js-plotly-plot .heatmaplayer image")).to_be_visible()

"""A run outlives the browser that started it and the server that it was started on."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from pgb_core import store
from pgb_core.settings import get_settings
from tests.browser.conftest import started_server
from tests.browser.test_app import choose
from tests.watching import wait_for, worker_process


@pytest.mark.long
@pytest.mark.timeout(400)
def test_a_run_started_in_one_browser_is_watched_to_its_end_in_another_after_the_app_was_killed(
    page: Page, tmp_path: Path, tiny_checkpoint: Path, tiny_csv: Path, record_property: Callable[[str, object], None]
) -> None:
    shutil.copytree(tiny_checkpoint, get_settings().models_dir / "tiny")
    other = page.context.browser.new_context() if page.context.browser else page.context
    with started_server(tmp_path) as (address, process):
        page.goto(address)
        choose(page, "Checkpoint", "tiny")
        choose(page, "Task", "Your own file")
        page.locator("input[type=file]").first.set_input_files(tiny_csv)
        expect(page.get_by_text("tiny.csv")).to_be_visible()
        page.get_by_role("button", name="Prune", exact=True).click()
        expect(page).to_have_url(re.compile(r"run=\d{8}-\d{6}-[0-9a-f]{6}"))
        query = page.url.partition("?")[2]
        page.close()
        run_dir = store.list_runs(get_settings().runs_dir)[0].path
        status = wait_for(run_dir, lambda status: status.stage != "", 120)
        run, worker = store.find_process(status), worker_process(run_dir.parent)
        assert run is not None
        run.suspend()  # so that it is still computing when the app is back
        process.kill()
    with started_server(tmp_path) as (address, _):
        again = other.new_page()
        again.goto(f"{address}/prune?{query}")
        expect(again.get_by_role("heading", name="Pruning")).to_be_visible()
        assert worker_process(run_dir.parent) == worker
        run.resume()
        expect(again.get_by_role("heading", name="Result")).to_be_visible(timeout=200_000)
    assert store.read_status(run_dir).pid == run.pid
    record_property("outcome", "the run goes on and is watched to its end")

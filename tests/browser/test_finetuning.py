"""From a file of one's own to a checkpoint: an encoder is uploaded, gets a head, learns, and can be pruned."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from pgb_core import checkpoints
from pgb_core.settings import get_settings
from tests.browser.test_app import choose
from tests.test_finetuning import make_raw

pytestmark = pytest.mark.timeout(240)


def test_an_uploaded_encoder_is_fine_tuned_and_offered_for_pruning(
    page: Page, server: str, tiny_csv: Path, tmp_path: Path
) -> None:
    encoder = make_raw(tmp_path / "encoder")
    page.goto(server)
    choose(page, "Checkpoint", "Upload a checkpoint …")
    page.locator("input[type=file]").first.set_input_files(sorted(encoder.iterdir()))
    page.get_by_role("button", name="Use these files").click()
    expect(page.get_by_text("BERT, raw encoder without a trained head")).to_be_visible()

    choose(page, "Task", "Your own file")
    page.locator("input[type=file]").first.set_input_files(tiny_csv)
    expect(page.get_by_text("The new head learns 2 labels, negative, positive.")).to_be_visible()
    page.get_by_role("button", name="Fine-tune", exact=True).click()
    expect(page.get_by_role("heading", name="Fine-tuned")).to_be_visible(timeout=150_000)

    page.get_by_role("button", name="Prune upload-csv").click()
    expect(page.get_by_text("BERT, sequence classifier")).to_be_visible()
    assert checkpoints.describe(get_settings().models_dir / "upload-csv").labels == ("negative", "positive")

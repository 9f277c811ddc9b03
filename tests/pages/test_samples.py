"""A fresh server is not empty: the sample runs that are shipped, on every page."""

from __future__ import annotations

import pytest

from pgb_core import store
from pgb_core.settings import get_settings
from tests.pages.visit import charts, query, visit, words
from tests.sample_run import make_sample_run

MARK = "Shipped sample, measured on"


@pytest.fixture(autouse=True)
def _samples_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGB_SHOW_SAMPLES", "1")


@pytest.fixture
def sample() -> store.Run:
    """One whose halves are in groups."""
    return next(run for run in store.list_runs(get_settings().runs_dir) if run.spec["method"].startswith("pgb"))


def test_the_trade_off_of_the_samples_is_a_family_of_its_own() -> None:
    app = visit("trade_off")
    assert MARK in words(app)
    assert "shipped samples" in app.selectbox(key="url_family").value
    assert len(app.dataframe[0].value) >= 4
    make_sample_run(get_settings().runs_dir)
    assert "shipped samples" not in visit("trade_off").selectbox(key="url_family").value


def test_every_matrix_that_a_sample_offers_is_drawn_by_importance(sample: store.Run) -> None:
    for name in ("attention.query", "feed_forward.intermediate"):
        app = visit("matrix", run=sample.id, matrix=name)
        assert MARK in words(app)
        assert "two matrices only" in words(app)
        wall, steps, *stages = charts(app)
        assert "weight matrices" in wall.alt
        assert "Animation" in steps.alt
        assert len(stages) == 4
        assert all("colored by importance" in chart.alt for chart in stages)
        assert max(len(chart.spec) for chart in charts(app)) < 1_000_000
        assert not app.warning
    assert app.segmented_control(key="url_color").options == ["Importance"]


def test_what_a_sample_lacks_is_told_and_the_rest_is_shown(sample: store.Run) -> None:
    app = visit("matrix", run=sample.id, color="weight")
    assert "weight" in app.warning[0].value
    assert len(charts(app)) == 6
    app = visit("matrix", run=sample.id, matrix="attention.key")
    assert "came without the importance of this matrix" in words(app)
    (wall,) = charts(app)
    assert "attention key" in wall.alt


def test_the_layers_of_a_sample_have_their_options(sample: store.Run) -> None:
    app = visit("layers", run=sample.id)
    assert MARK in words(app)
    assert len(charts(app)) == 2


def test_the_result_of_a_sample_is_shown_and_listed(sample: store.Run) -> None:
    app = visit("prune", run=sample.id)
    assert app.title[0].value == "Result"
    assert MARK in words(app)
    assert query(app, "run") == sample.id
    assert set(visit("prune").dataframe[0].value["state"]) == {"shipped sample"}


def test_a_page_opens_with_a_run_of_the_server_rather_than_a_sample() -> None:
    own = make_sample_run(get_settings().runs_dir)
    app = visit("layers")
    assert query(app, "run") == own.name
    assert MARK not in words(app)


def test_two_samples_are_compared_but_for_what_needs_their_weights() -> None:
    app = visit("trade_off", view="compare")
    assert "came without weights" in words(app)
    (structure,) = charts(app)
    assert "Share of weights" in structure.alt
    assert "came without its model" in words(visit("trade_off", view="try"))


def test_a_setting_hides_them(sample: store.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGB_SHOW_SAMPLES", "0")
    assert "No finished run yet" in words(visit("matrix", run=sample.id))

from pathlib import Path

import pytest

from pgb_core import store
from pgb_core.settings import get_settings
from tests.pages.visit import charts, healthy, query, visit, words
from tests.sample_run import make_sample_run


@pytest.fixture
def run() -> Path:
    return make_sample_run(get_settings().runs_dir, sparsity=0.7, seed=1)


def test_without_runs_the_page_says_what_to_do() -> None:
    app = visit("layers")
    assert app.title[0].value == "Layers"
    assert "No finished run yet" in words(app)


def test_a_first_visit_shows_the_network_and_explains_what_was_dropped() -> None:
    run = store.read_run(make_sample_run(get_settings().runs_dir, sparsity=0.97, seed=1))
    assert run.result is not None
    app = visit("layers")
    place, dropped = next((i, entry) for i, entry in enumerate(run.result["sublayers"]) if entry["dropped"])
    picture, options = charts(app)
    assert "4 sublayers" in picture.alt
    assert f"Layer {dropped['layer'] + 1} " in options.alt
    assert (query(app, "layer"), query(app, "kind")) == (str(dropped["layer"] + 1), dropped["kind"])
    assert "Chosen: dropped" in words(app)
    tables = [len(table.value) for table in app.dataframe]
    assert sorted(tables) == sorted([4, len(store.read_options(run)[place]["options"])])


def test_a_deep_link_explains_its_sublayer(run: Path) -> None:
    app = visit("layers", run=run.name, layer="2", kind="feed_forward")
    table = store.read_options(store.read_run(run))[3]
    chosen = table["options"][table["chosen"]]
    assert f"Chosen: {chosen['label']}" in words(app)
    assert "Layer 2 feed-forward" in charts(app)[1].alt
    assert not app.warning


def test_another_layer_goes_to_the_url(run: Path) -> None:
    app = visit("layers", run=run.name, layer="1", kind="attention")
    app.selectbox(key="url_layer").set_value("2").run()
    assert query(healthy(app), "layer") == "2"
    assert "Layer 2 attention" in charts(app)[1].alt


@pytest.mark.parametrize(("key", "value"), [("run", "no"), ("layer", "9"), ("kind", "pooler")])
def test_a_bad_query_gets_a_friendly_line_and_the_page_all_the_same(run: Path, key: str, value: str) -> None:
    app = visit("layers", **{key: value})
    assert value in app.warning[0].value
    assert len(charts(app)) == 2


def test_a_missing_option_table_gets_one_line(run: Path) -> None:
    (run / "options.json").unlink()
    assert "options.json" in visit("layers").error[0].value

from pathlib import Path

import pytest

from pgb_core import store
from pgb_core.figures.options import closest
from pgb_core.settings import get_settings
from pgb_core.spec import BASELINES
from pgb_core.what_if import rate
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
    app = visit("layers", "network_twin", "options_twin")
    place, dropped = next((i, entry) for i, entry in enumerate(run.result["sublayers"]) if entry["dropped"])
    picture, options = charts(app)
    assert "4 sublayers" in picture.alt
    assert f"Layer {dropped['layer'] + 1} " in options.alt
    assert (query(app, "layer"), query(app, "kind")) == (str(dropped["layer"] + 1), dropped["kind"])
    assert "Chosen: dropped" in words(app)
    tables = [len(table.value) for table in app.dataframe]
    assert sorted(tables) == sorted([4, len(store.read_options(run)[place]["options"])])


def test_an_export_menu_is_filled_when_it_is_opened(run: Path) -> None:
    closed, opened = (visit("layers", *menus, run=run.name) for menus in ((), ("network_export",)))
    assert [entry.label for entry in closed.get("download_button")] == []
    assert [entry.label for entry in opened.get("download_button")] == ["HTML, interactive", "CSV, the numbers"]
    assert len(charts(closed)) == 2


def test_a_deep_link_explains_its_sublayer(run: Path) -> None:
    app = visit("layers", run=run.name, layer="2", kind="feed_forward")
    table = store.read_options(store.read_run(run))[3]
    chosen = table["options"][table["chosen"]]
    assert f"Chosen: {chosen['label']}" in words(app)
    assert "Layer 2 feed-forward" in charts(app)[1].alt
    assert not app.warning


def test_a_sublayer_that_drops_could_not_do_without_says_so(run: Path) -> None:
    result = store.read_json(run / "result.json")
    restored = [{"pin": {"layer": 1, "kind": "attention", "keep": 1}, "alone": 0.01, "together": 1.4, "without": 0.02}]
    store.write_json(run / "result.json", {**result, "restored": restored})
    assert "1.4 nats" in words(visit("layers", run=run.name, layer="2", kind="attention"))
    assert "1.4 nats" not in words(visit("layers", run=run.name, layer="1", kind="attention"))


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


def test_a_missing_option_table_gets_one_line_and_the_network(run: Path) -> None:
    (run / "options.json").unlink()
    app = visit("layers")
    assert "options.json" in app.error[0].value
    assert len(charts(app)) == 1


@pytest.mark.parametrize("method", BASELINES)
def test_a_method_without_options_shows_the_network_and_says_why_there_is_no_more(method: str) -> None:
    make_sample_run(get_settings().runs_dir, method=method)
    app = visit("layers")
    assert f"{method} chooses by rules of its own" in app.info[0].value
    assert [picture.alt[:19] for picture in charts(app)] == ["Bars for 4 sublayer"]
    assert not app.error
    assert "Chosen" not in words(app)


def test_the_page_says_which_options_were_close(run: Path) -> None:
    app = visit("layers", "network_twin", "options_twin", run=run.name, layer="1", kind="attention")
    table = store.read_options(store.read_run(run))
    network, options = (frame.value for frame in app.dataframe)
    if "closest" not in network:
        network, options = options, network
    ratings = rate(table, "pgb")
    assert network["closest"].tolist() == [closest(*pair) for pair in zip(table, ratings, strict=True)]
    assert f"Closest: {network['closest'][0].split(' (')[0]}, with a regret of" in words(app)
    assert options["chosen"].tolist() == [True] + [False] * (len(options) - 1)
    assert options["close"].sum() == sum(r.close and r.allowed for r in ratings[0])
    barred = [o["label"] for o in table[0]["options"] if "pgb" not in o["methods"]]
    assert set(options["label"][~options["allowed"]]) == set(barred) != set()


def test_a_run_of_the_first_version_is_shown_as_well(run: Path) -> None:
    tables = store.read_json(run / "options.json")
    for table in tables["sublayers"]:
        kept = [(n, o) for n, o in enumerate(table["options"]) if "pgb" in o["methods"]]
        table["chosen"] = next(place for place, (n, _) in enumerate(kept) if n == table["chosen"])
        names = ("label", "groups", "units", "cost", "density", "loss")
        table["options"] = [{name: o[name] for name in names} for _, o in kept]
    store.write_json(run / "options.json", tables)
    app = visit("layers", run=run.name)
    assert len(charts(app)) == 2
    assert "Closest: " in words(app)

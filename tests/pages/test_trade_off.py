import json

import pytest

from pgb_core import store
from pgb_core.settings import get_settings
from tests.pages.visit import charts, healthy, query, visit, words
from tests.sample_run import make_sample_run


@pytest.fixture
def runs() -> list[str]:
    folder = get_settings().runs_dir
    return [
        make_sample_run(folder, sparsity=0.3, seed=1).name,
        make_sample_run(folder, sparsity=0.6, method="structured", recovered=True, seed=2).name,
        make_sample_run(folder, sparsity=0.8, latency=False, seed=3).name,
        make_sample_run(folder, checkpoint="mine", task="csv", seed=4).name,
    ]


def shown(spec: str) -> set[str]:
    """Ids of the runs in a chart; dense is the empty one."""
    return {custom[0] for trace in json.loads(spec)["data"] for custom in trace.get("customdata", [])}


def test_without_runs_the_page_says_what_to_do() -> None:
    app = visit("trade_off")
    assert app.title[0].value == "Trade-off"
    assert "No finished run yet" in words(app)


def test_all_runs_of_one_checkpoint_and_task_are_compared_with_dense(runs: list[str]) -> None:
    app = visit("trade_off", family="demo · bbc-news", cost="flops")
    assert shown(charts(app)[0].spec) == {"", *runs[:3]}
    assert len(app.dataframe[0].value) == 4


def test_runs_without_latency_are_left_out_and_counted(runs: list[str]) -> None:
    app = visit("trade_off", family="demo · bbc-news", cost="latency")
    assert shown(charts(app)[0].spec) == {"", *runs[:2]}
    assert "1 run without" in words(app)


def test_without_any_latency_the_page_says_what_to_choose() -> None:
    make_sample_run(get_settings().runs_dir, latency=False)
    app = visit("trade_off")
    assert "FLOPs" in app.info[0].value
    assert charts(app) == []


def test_another_family_goes_to_the_url(runs: list[str]) -> None:
    app = visit("trade_off")
    app.selectbox(key="url_family").set_value("mine · csv").run()
    assert query(healthy(app), "family") == "mine · csv"
    assert shown(charts(app)[0].spec) == {"", runs[3]}


@pytest.mark.parametrize(("key", "value"), [("family", "nobody"), ("cost", "money")])
def test_a_bad_query_gets_a_friendly_line_and_the_page_all_the_same(runs: list[str], key: str, value: str) -> None:
    app = visit("trade_off", **{key: value})
    assert value in app.warning[0].value
    assert len(charts(app)) == 1


def test_checkpoints_of_one_name_and_other_weights_are_kept_apart() -> None:
    folder = get_settings().runs_dir
    first, second = (make_sample_run(folder, checkpoint=f"/somewhere/{i}/bert", seed=i) for i in range(2))
    for run, fingerprint in ((first, "a" * 64), (second, "b" * 64)):
        spec = store.read_json(run / "spec.json")
        store.write_json(run / "spec.json", {**spec, "fingerprint": fingerprint})
    app = visit("trade_off", family="bert aaaaaa · bbc-news", cost="flops")
    assert shown(charts(app)[0].spec) == {"", first.name}
    assert "somewhere" not in words(app)

import json
from pathlib import Path

import pytest

from pgb_core import store
from pgb_core.settings import get_settings
from tests.pages.visit import charts, healthy, query, visit, words
from tests.sample_run import make_sample_run
from ui import runs as runs_of


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


def with_spec(number: int, **values: object) -> store.Run:
    spec = {"checkpoint": "demo", "fingerprint": "a" * 64, "task": "bbc-news", "max_length": 64, **values}
    return store.Run(str(number), Path(), spec, store.Status("done"), {})


def test_runs_that_were_tested_on_other_texts_are_kept_apart() -> None:
    """Each change against the first run is a family of its own, and the name says which; the rest share one."""
    shared = {
        "task": "csv",
        "train_file": "/uploads/aa.csv",
        "eval_file": None,
        "eval_samples": None,
        "max_length": 64,
        "seed": 0,
    }
    changes: dict[str, dict[str, object]] = {
        "demo · csv (1) · 64 tokens · all texts · texts drawn with seed 0": {},
        "demo · csv (2)": {"train_file": "/uploads/bb.csv"},
        "demo · csv (3)": {"train_file": "/uploads/cc.csv", "eval_file": "/uploads/dd.csv"},
        "demo · csv (1) · 128 tokens": {"max_length": 128},
        "demo · csv (1) · 64 tokens · 50 texts": {"eval_samples": 50},
        "demo · csv (1) · 64 tokens · all texts · texts drawn with seed 1": {"seed": 1},
    }
    found = [with_spec(number, **{**shared, **change}) for number, change in enumerate(changes.values())]
    same = [
        with_spec(6, **{**shared, "calibration_samples": 8}),
        with_spec(7, **{**shared, "train_file": "/uploads/ee.csv", "eval_file": "/uploads/dd.csv", "seed": 5}),
    ]
    families = runs_of.families([*reversed([*found, *same])])
    assert {name: [run.id for run in members] for name, members in families.items()} == {
        **{name: [run.id] for name, run in zip(changes, found, strict=True)},
        next(iter(changes)): [same[0].id, found[0].id],
        "demo · csv (3)": [same[1].id, found[2].id],
    }


def test_the_seed_does_not_part_runs_whose_texts_it_does_not_draw() -> None:
    found = [with_spec(seed, seed=seed) for seed in range(3)]
    assert list(runs_of.families(found)) == ["demo · bbc-news"]

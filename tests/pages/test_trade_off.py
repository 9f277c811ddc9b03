import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from pgb_core import PruneSpec, RunError, jobs, store, sweep_spec
from pgb_core.settings import get_settings
from tests.pages.visit import charts, healthy, query, visit, words
from tests.sample_run import make_sample_run
from ui import compare, trial
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


# --- what the runs are seen against --------------------------------------------------------------------------------


def test_published_figures_are_shown_where_task_and_metric_match_and_can_be_hidden() -> None:
    make_sample_run(get_settings().runs_dir, task="sst2", checkpoint="mine")
    app = visit("trade_off", cost="density")
    assert "published" in charts(app)[0].spec
    assert "references, not measurements of ours" in app.expander[-1].label
    app.segmented_control(key="url_cited").set_value("hide").run()
    assert "published" not in charts(healthy(app))[0].spec
    assert query(app, "cited") == "hide"
    make_sample_run(get_settings().runs_dir)
    app = visit("trade_off", family="demo · bbc-news", cost="density")
    assert "published" not in charts(app)[0].spec


def test_on_other_axes_the_page_says_where_published_figures_are() -> None:
    make_sample_run(get_settings().runs_dir, task="sst2", checkpoint="mine")
    app = visit("trade_off", cost="flops")
    assert "published" not in charts(app)[0].spec
    assert "choose Weights kept" in words(app)


# --- two models compared -------------------------------------------------------------------------------------------


def test_two_runs_are_compared_in_pairs_layer_by_layer_and_by_one_matrix(runs: list[str]) -> None:
    app = visit("trade_off", view="compare", family="demo · bbc-news", a=runs[0], b=runs[1])
    text = words(app)
    assert "McNemar p = " in text or "very same" in text
    assert "Structure, layer by layer" in text
    structure, *heatmaps = charts(app)
    assert [trace["name"] for trace in json.loads(structure.spec)["data"]] == ["A", "B"]
    limits = {json.loads(heatmap.spec)["data"][0]["zmax"] for heatmap in heatmaps}
    assert len(heatmaps) <= 2
    assert len(limits) == 1
    app.selectbox(key="url_a").set_value("dense").run()
    assert query(healthy(app), "a") == "dense"
    assert "only A gets right" in words(app) or "very same" in words(app)


def test_by_default_the_newest_run_is_compared_with_dense(runs: list[str]) -> None:
    app = visit("trade_off", view="compare", family="demo · bbc-news")
    newest = next(run.id for run in store.list_runs(get_settings().runs_dir) if run.spec["checkpoint"] == "demo")
    assert (query(app, "a"), query(app, "b")) == ("dense", newest)


def test_one_model_is_not_compared_with_itself(runs: list[str]) -> None:
    app = visit("trade_off", view="compare", family="demo · bbc-news", a=runs[0], b=runs[0])
    assert "one and the same" in app.info[0].value
    assert charts(app) == []


def test_runs_without_answers_say_so_and_show_the_rest() -> None:
    folder = get_settings().runs_dir
    make_sample_run(folder, seed=1, kept_answers=False)
    app = visit("trade_off", view="compare")
    assert "kept no answers" in app.info[0].value
    assert len(charts(app)) >= 2


def test_texts_are_read_only_when_asked_and_shown_as_they_are(runs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []

    class Helper:
        def ask(self, request: dict[str, object]) -> list[dict[str, str]]:
            asked.append(request)
            return [{"text": "<b>_bold_</b> =1+1"} for _ in request["rows"]]  # type: ignore[attr-defined]

    monkeypatch.setattr(trial, "helper", Helper)
    compare.read_texts.clear()
    app = visit("trade_off", view="compare", family="demo · bbc-news", a="dense", b=runs[0], side="a")
    assert asked == []
    app.toggle(key="compare_texts").set_value(True).run()
    (request,) = asked
    assert request["op"] == "texts"
    frame = healthy(app).dataframe[0].value
    assert set(frame["text"]) == {"<b>_bold_</b> =1+1"}
    assert len(frame) == len(request["rows"])  # type: ignore[arg-type]


# --- a text tried --------------------------------------------------------------------------------------------------


class Oracle:
    """Stands in for the helper process."""

    def __init__(self, error: str = "", label: str = "sport") -> None:
        self.error, self.asked, self.warmed = error, list[dict[str, object]](), 0
        self.label = label

    def warm(self) -> None:
        self.warmed += 1

    def ask(self, request: dict[str, object], on_progress: Callable[[str], object]) -> list[dict[str, object]]:
        self.asked.append(request)
        on_progress("loading the dense model")
        if self.error:
            raise RunError(self.error)
        said = {"label": self.label, "probabilities": {"tech": 0.1, self.label: 0.9}, "tokens": 7, "cut": False}
        return [{**said, "median_ms": ms, "p10_ms": ms - 1, "p90_ms": ms + 1} for ms in (20.0, 10.0)]


def test_a_text_is_answered_by_both_with_probabilities_and_milliseconds(
    runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle = Oracle()
    monkeypatch.setattr(trial, "helper", lambda: oracle)
    app = visit("trade_off", view="try", family="demo · bbc-news", b=runs[0])
    assert oracle.warmed == 1
    app.text_area(key="try_text").set_value("a goal in the last minute")
    next(button for button in app.button if button.label == "Try it").click().run()
    assert [metric.value for metric in healthy(app).metric] == [
        "sport",
        "90.0%",
        "20.0 ms",
        "sport",
        "90.0%",
        "10.0 ms",
    ]
    assert "0.50 times as long" in words(app)
    assert oracle.asked == [
        {
            "op": "classify",
            "models": [{"run": runs[0], "model": "dense"}, {"run": runs[0], "model": "pruned"}],
            "text": "a goal in the last minute",
            "text_pair": None,
        }
    ]
    app.selectbox(key="url_b").set_value(runs[1]).run()
    assert healthy(app).metric == []  # the answer was another model's
    assert len(oracle.asked) == 1


def test_the_label_of_an_answer_is_no_markdown(runs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "helper", lambda: Oracle(label="![x](//e.example)"))
    app = visit("trade_off", view="try", family="demo · bbc-news")
    app.text_area(key="try_text").set_value("anything")
    next(button for button in app.button if button.label == "Try it").click().run()
    assert healthy(app).metric[0].value == r"\!\[x\]\(//e.example\)"


def test_a_text_that_cannot_be_tried_says_why(runs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "helper", lambda: Oracle("The checkpoint has changed since."))
    app = visit("trade_off", view="try", family="demo · bbc-news")
    button = next(button for button in app.button if button.label == "Try it")
    button.click().run()
    assert healthy(app).warning[0].value == "Type a text first."
    app.text_area(key="try_text").set_value("anything")
    next(button for button in app.button if button.label == "Try it").click().run()
    assert healthy(app).error[0].value == "The checkpoint has changed since."


# --- sweeps --------------------------------------------------------------------------------------------------------


def begun(state: store.State, done: int, **values: object) -> sweep_spec.Sweep:
    """A sweep of three points, of which the first ones are finished."""
    runs_dir = get_settings().runs_dir
    folder = store.new_run(runs_dir)
    spec = sweep_spec.SweepSpec(PruneSpec("demo", "bbc-news", 0.5), (0.3, 0.5, 0.7))
    sweep = sweep_spec.write_sweep(folder, spec, runs_dir)
    for point in sweep.points[:done]:
        make_sample_run(runs_dir, sparsity=point.spec.sparsity, run_id=point.run)
    mine = {"pid": os.getpid(), "pid_created": psutil.Process().create_time()}
    store.write_status(folder, store.Status(state, created=time.time(), started=time.time(), **mine, **values))  # type: ignore[arg-type]
    return sweep


def test_the_form_starts_a_sweep_that_the_url_then_names(monkeypatch: pytest.MonkeyPatch) -> None:
    submitted: list[sweep_spec.SweepSpec] = []

    def submit(spec: sweep_spec.SweepSpec, *, session: str) -> str:
        submitted.append(spec)
        return begun("running", 0).id

    monkeypatch.setattr(jobs, "submit_sweep", submit)
    app = visit("trade_off", view="sweep")
    assert "6 points" in words(app)
    app.multiselect(key="sweep_targets").set_value([0.9, 0.5])
    app.multiselect(key="sweep_methods").set_value(["kwon", "pgb"])
    app.segmented_control(key="sweep_recovery").set_value("both").run()
    app.number_input(key="sweep_epochs").set_value(1)
    app.number_input(key="sweep_seeds").set_value(2).run()
    assert "16 points" in words(healthy(app))
    next(button for button in app.button if button.label == "Start the sweep").click().run()
    (spec,) = submitted
    assert spec.sparsities == (0.5, 0.9)
    assert spec.methods == ("pgb", "kwon")
    assert (spec.recover_epochs, spec.seeds) == ((0, 1), (0, 1))
    assert query(healthy(app), "sweep") == sweep_spec.list_sweeps(get_settings().runs_dir)[0].id
    assert query(app, "view") == "points"


def test_a_sweep_without_a_method_cannot_be_started() -> None:
    app = visit("trade_off", view="sweep")
    app.multiselect(key="sweep_methods").set_value([]).run()
    assert next(button for button in healthy(app).button if button.label == "Start the sweep").disabled


def test_a_running_sweep_is_found_without_its_id_and_shows_what_is_done() -> None:
    sweep = begun("running", 2, fraction=0.6, message="point 3 of 3 (pgb, 70% removed): pricing", eta_seconds=61.0)
    app = visit("trade_off", cost="flops")
    assert "2 of 3 points done" in words(app)
    assert "1 min 1 s" in words(app)
    assert shown(charts(app)[0].spec) == {"", *(point.run for point in sweep.points[:2])}
    assert [button.label for button in app.button] == ["Cancel the sweep"]
    states = app.dataframe[0].value["state"].tolist()
    assert states == ["Done", "Done", "Not begun"]


def test_cancel_asks_the_sweep_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    cancelled: list[Path] = []
    monkeypatch.setattr(jobs, "cancel", lambda path, session: cancelled.append(path))
    sweep = begun("running", 0)
    app = visit("trade_off", sweep=sweep.id)
    app.button(key="cancel_sweep").click().run()
    assert cancelled == [sweep.path]


def test_a_sweep_that_ended_early_can_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    resumed: list[str] = []
    monkeypatch.setattr(jobs, "resume_sweep", lambda sweep, session: resumed.append(sweep.id))
    sweep = begun("cancelled", 1)
    app = visit("trade_off", sweep=sweep.id)
    assert "was cancelled: 1 of 3 points made" in app.info[0].value
    next(button for button in app.button if button.label == "Go on").click().run()
    assert resumed == [sweep.id]
    assert query(healthy(app), "sweep") == sweep.id


def test_a_finished_sweep_is_shown_by_its_address_alone_and_put_away() -> None:
    sweep = begun("done", 3)
    assert "The sweep is done" not in "".join(entry.value for entry in visit("trade_off").success)
    app = visit("trade_off", sweep=sweep.id)
    assert app.success[0].value == "The sweep is done: 3 points."
    assert "Go on" not in [button.label for button in app.button]
    next(button for button in app.button if button.label == "Put away").click().run()
    assert query(healthy(app), "sweep") is None


def test_a_sweep_that_is_gone_gets_a_friendly_line(runs: list[str]) -> None:
    app = visit("trade_off", sweep="../../etc")
    assert "no sweep" in app.warning[0].value
    assert len(charts(app)) == 1

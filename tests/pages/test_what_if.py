import json
import os
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from streamlit.testing.v1 import AppTest

from benchmarks.synthetic_record import make_record
from pgb_core import jobs, replan, scored, store
from pgb_core.constraints import Constraints, Pin
from pgb_core.scored import Record
from pgb_core.settings import get_settings
from pgb_core.spec import PruneSpec
from tests.pages.visit import charts, healthy, query, visit, words
from tests.sample_latency import SIZES, keep_sample_table
from tests.sample_run import make_sample_run, make_unfinished_run

NONE = Constraints()
Submitted = list[tuple[str, PruneSpec]]


@pytest.fixture
def record() -> Record:
    runs_dir = get_settings().runs_dir
    make_record(runs_dir, SIZES, seed=2)
    return scored.read(next(iter(scored.find(runs_dir).values())))


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch) -> Submitted:
    """The jobs that the page submits; nothing is started."""
    found: Submitted = []

    def submit(spec: PruneSpec, job: store.Job = "prune", *, session: str) -> str:
        found.append((job, spec))
        return make_unfinished_run(get_settings().runs_dir, status("queued", job)).name

    monkeypatch.setattr(jobs, "submit", submit)
    return found


def status(state: store.State, job: store.Job = "score", **values: Any) -> store.Status:
    mine = {"pid": os.getpid(), "pid_created": psutil.Process().create_time()}
    return store.Status(state, created=time.time() - 60, started=time.time() - 50, job=job, **mine, **values)


def press(app: AppTest, label: str) -> AppTest:
    return healthy(next(button for button in app.button if button.label == label).click().run())


def metric(app: AppTest, label: str) -> str:
    return str(next(entry.value for entry in app.metric if entry.label == label))


def planned(record: Record, target: float, method: str = "pgb", constraints: Constraints = NONE) -> Any:
    return replan.solve(replan.market_of(record, method, "weights"), [target], constraints)[0]


# --- nothing scored yet --------------------------------------------------------------------------------------------


def test_without_a_record_the_page_explains_and_offers_to_score(submitted: Submitted) -> None:
    app = visit("what_if")
    assert "Nothing is scored yet" in words(app)
    app.selectbox(key="score_task").set_value("tweets").run()
    press(app, "Score")
    ((job, spec),) = submitted
    assert (job, spec.checkpoint, spec.task, spec.latency) == ("score", "demo", "tweets", True)
    assert query(app, "job") is not None


def test_a_running_scoring_shows_its_stages_and_can_be_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    cancelled: list[Path] = []
    monkeypatch.setattr(jobs, "cancel", lambda path, session: cancelled.append(path))
    folder = make_unfinished_run(
        get_settings().runs_dir, status("running", stage="grouping", fraction=0.3, message="the attention of layer 2")
    )
    app = visit("what_if", job=folder.name)
    shown = words(app)
    assert "**Find groups**" in shown
    assert "Refit" not in shown  # no part of a scoring
    press(app, "Cancel")
    assert cancelled == [folder]


def test_a_finished_scoring_opens_its_record(record: Record) -> None:
    folder = make_unfinished_run(get_settings().runs_dir, status("done"))
    store.write_json(folder / "result.json", {"record": record.key})
    app = visit("what_if", job=folder.name)
    assert (query(app, "job"), query(app, "record")) == (None, record.key)
    assert len(charts(app)) == 3


def test_a_failed_scoring_says_why() -> None:
    folder = make_unfinished_run(get_settings().runs_dir, status("failed", message="The disk is full."))
    app = visit("what_if", job=folder.name)
    assert "The disk is full." in app.error[0].value
    press(app, "Back")
    assert "Nothing is scored yet" in words(app)


# --- a plan --------------------------------------------------------------------------------------------------------


def test_the_slider_solves_the_budget_anew(record: Record) -> None:
    app = visit("what_if", record=record.key, target="60")
    assert metric(app, "Predicted loss") == f"{planned(record, 0.6).loss:.3g}"
    before = json.loads(charts(app)[0].spec)
    app.slider(key="url_target").set_value(90).run()
    assert query(healthy(app), "target") == "90"
    plan = planned(record, 0.9)
    assert metric(app, "Predicted loss") == f"{plan.loss:.3g}"
    totals = replan.totals(record, plan.options)
    assert metric(app, "Dropped") == f"{totals.dropped} of 4"
    assert metric(app, "Heads kept") == str(totals.heads)
    assert metric(app, "Weights removed") == f"{totals.sparsity:.1%}"
    assert json.loads(charts(app)[0].spec) != before
    assert "No finished run of this checkpoint and task yet" in words(app)
    assert "checks with the model what several dropped sublayers do together" in words(app)


@pytest.mark.parametrize("method", ["pgb", "pgb-mixed", "structured"])
def test_every_method_of_the_table_is_offered(record: Record, method: str) -> None:
    app = visit("what_if", record=record.key, method=method, target="70")
    assert metric(app, "Predicted loss") == f"{planned(record, 0.7, method).loss:.3g}"
    assert (method == "structured") == ("Groups" not in [entry.label for entry in app.metric])


def test_pins_and_limits_hold_and_are_in_the_address(record: Record) -> None:
    app = visit("what_if", record=record.key, target="70", pins="1.attention:3", max_groups="2")
    constraints = Constraints(None, 2, (Pin(1, "attention", 3),))
    assert metric(app, "Predicted loss") == f"{planned(record, 0.7, constraints=constraints).loss:.3g}"
    pins = app.multiselect(key="what_if_pins")
    assert pins.value == ["1.attention"]
    pins.set_value(["1.attention", "0.feed_forward"]).run()
    assert query(healthy(app), "pins") == "0.feed_forward,1.attention:3"
    app.number_input(key="what_if_keep_0.feed_forward").set_value(32).run()
    assert query(healthy(app), "pins") == "0.feed_forward:32,1.attention:3"
    app.number_input(key="url_max_groups").set_value(3).run()
    assert query(healthy(app), "max_groups") == "3"


def test_a_latency_is_offered_once_it_was_measured(record: Record, submitted: Submitted) -> None:
    app = visit("what_if", record=record.key)
    assert app.segmented_control(key="url_goal").options == ["Weights", "FLOPs"]
    press(app, "Measure latency")
    ((job, spec),) = submitted
    assert (job, spec.checkpoint, spec.latency) == ("score", "demo", True)

    table = keep_sample_table(get_settings().cache_dir)
    market = replan.market_of(record, "pgb", replan.LATENCY, table)
    low, high = replan.reach(market, Constraints())
    target = round((low + high) / 2, 1)
    app = visit("what_if", record=record.key, goal="latency", target=str(target))
    (plan,) = replan.solve(market, [target], Constraints())
    assert metric(app, "Predicted loss") == f"{plan.loss:.3g}"
    assert float(metric(app, "Time, predicted").split()[0]) <= target + 0.05
    assert "off by up to 6%" in words(app)
    assert "It takes a share of weights, not a latency" in words(app)


# --- why -----------------------------------------------------------------------------------------------------------


def test_a_dropped_sublayer_says_when_it_comes_back_and_can_be_pinned(record: Record) -> None:
    plan = planned(record, 0.95, "structured")
    place = next(n for n, sub in enumerate(record.sublayers) if sub.options[plan.options[n]]["groups"] == 0)
    sub = record.sublayers[place]
    app = visit("what_if", record=record.key, method="structured", target="95")
    assert (query(app, "layer"), query(app, "kind")) == (str(sub.layer + 1), sub.shape.kind)
    assert "dropped?" in words(app)
    assert "It comes back as" in words(app)
    press(app, "Never drop it")
    assert query(app, "pins") == f"{sub.layer}.{sub.shape.kind}"
    assert "dropped?" not in words(app)


def test_a_deep_link_asks_about_its_sublayer(record: Record) -> None:
    app = visit("what_if", record=record.key, target="40", layer="2", kind="feed_forward")
    assert "Why this much of layer 2 feed-forward?" in words(app)
    assert "Layer 2 feed-forward" in charts(app)[2].alt
    assert not app.warning


@pytest.mark.parametrize(
    ("key", "value"),
    [("record", "no"), ("method", "magic"), ("target", "lots"), ("pins", "9.attention"), ("goal", "joy")],
)
def test_a_bad_query_gets_a_friendly_line_and_the_page_all_the_same(record: Record, key: str, value: str) -> None:
    app = visit("what_if", **{"record": record.key, key: value})
    assert value in app.warning[0].value
    assert len(charts(app)) == 3


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_target_that_is_no_finite_number_gets_a_friendly_line(record: Record, value: str) -> None:
    keep_sample_table(get_settings().cache_dir)
    app = visit("what_if", record=record.key, goal="latency", target=value)
    assert value in app.warning[0].value
    assert len(charts(app)) == 3


def test_a_target_out_of_reach_is_told_and_the_controls_stay(record: Record) -> None:
    app = visit(
        "what_if", record=record.key, method="structured", target="95", pins="0.feed_forward:64,1.feed_forward:64"
    )
    assert "sparsity 0.95 is out of reach" in app.error[0].value
    app.slider(key="url_target").set_value(30).run()
    assert not healthy(app).error


# --- past runs, and the next one -----------------------------------------------------------------------------------


def test_past_runs_of_the_checkpoint_give_a_band() -> None:
    runs_dir = get_settings().runs_dir
    first = make_sample_run(runs_dir, sparsity=0.9, seed=1)
    for seed, sparsity in ((2, 0.8), (3, 0.7), (4, 0.5)):
        make_sample_run(runs_dir, sparsity=sparsity, seed=seed)
    key = scored.key_of(store.read_run(first).spec)
    app = visit("what_if", record=key, target="1")
    assert "From 4 finished runs of this checkpoint" in words(app)


@pytest.mark.parametrize("goal", ["weights", "flops"])
def test_one_button_makes_it_a_run(record: Record, submitted: Submitted, goal: str) -> None:
    app = visit(
        "what_if", record=record.key, method="pgb-mixed", goal=goal, target="63", pins="0.attention:2", max_groups="3"
    )
    next(button for button in app.button if button.label == "Prune like this").click().run()
    ((job, spec),) = submitted
    assert job == "prune"
    assert (spec.checkpoint, spec.task, spec.method, spec.budget, spec.sparsity) == (
        "demo",
        "bbc-news",
        "pgb-mixed",
        goal,
        0.63,
    )
    assert (spec.pins, spec.min_groups, spec.max_groups, spec.seed) == (("0.attention:2",), None, 3, 2)
    assert spec.calibration_samples == record.spec["calibration_samples"]


@pytest.mark.parametrize("upload", ["train_file", "checkpoint"])
def test_a_record_of_an_upload_that_is_gone_cannot_be_run(record: Record, tmp_path: Path, upload: str) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("text,label\n")
    spec = {**record.spec, "task": "csv", upload: str(file)}
    key = scored.write(
        get_settings().runs_dir, spec, record.dense, [(s.layer, s.shape, s.options) for s in record.sublayers]
    )
    file.unlink()
    app = visit("what_if", record=key)
    assert next(button for button in app.button if button.label == "Prune like this").disabled
    assert "no longer on the server" in words(app)

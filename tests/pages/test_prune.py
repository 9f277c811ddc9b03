import io
import json
import os
import time
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import psutil
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from pgb_core import demo, jobs, store, tickets
from pgb_core.corpora import CORPORA
from pgb_core.errors import JobRejected
from pgb_core.settings import get_settings
from pgb_core.spec import BASELINES, METHODS, PruneSpec
from pgb_core.tasks import TASKS
from tests.pages.visit import APP, TIMEOUT, charts, healthy, query, visit, words
from tests.sample_run import make_sample_run, make_unfinished_run
from tests.tiny import make_tiny_checkpoint
from ui import labels, sources, uploads


def status(state: store.State, **values: Any) -> store.Status:
    """A status whose process, this one, lives."""
    mine = {"pid": os.getpid(), "pid_created": psutil.Process().create_time()}
    return store.Status(state, created=time.time() - 60, started=time.time() - 50, **mine, **values)


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch) -> list[PruneSpec]:
    """The specs that the page submits; nothing is started."""
    specs: list[PruneSpec] = []

    def submit(spec: PruneSpec, *, session: str) -> str:
        specs.append(spec)
        return make_unfinished_run(get_settings().runs_dir, status("queued")).name

    monkeypatch.setattr(jobs, "submit", submit)
    return specs


def task_box(app: AppTest) -> Any:
    return next(box for box in app.selectbox if box.label == "Task")


def press(app: AppTest, label: str) -> AppTest:
    return healthy(next(button for button in app.button if button.label == label).click().run())


def test_the_root_of_the_server_is_this_page() -> None:
    app = healthy(AppTest.from_file(str(APP), default_timeout=TIMEOUT).run())
    assert app.title[0].value == "Prune a BERT"


def test_a_first_visit_offers_the_demo_and_says_what_happens() -> None:
    app = visit("prune")
    assert app.selectbox(key="checkpoint").value == "demo"
    assert "Not prepared yet" in app.info[0].value
    assert "Recent runs" not in words(app)
    assert "What happens" in words(app)


def test_every_task_with_text_of_its_own_has_a_demo(submitted: list[PruneSpec]) -> None:
    app = visit("prune")
    assert task_box(app).options == ["BBC news", "Tweets", "Your own file"]
    task_box(app).set_value("tweets").run()
    assert "fine-tuned here for the task Tweets" in words(healthy(app))
    assert "Not prepared yet" in app.info[0].value
    assert f"about {CORPORA['tweets'].minutes} minutes" in app.info[0].value
    folder = get_settings().cache_dir / "demo" / "tweets"
    make_tiny_checkpoint(folder, labels=CORPORA["tweets"].labels, train=False)
    (folder / "demo.json").write_text(json.dumps({"recipe": demo.RECIPE, "score": 0.789, "samples": 10_000}))
    app.run()
    assert healthy(app).success[0].value == "Prepared: 78.9% on 10000 held-out texts."
    press(app, "Prune")
    assert [(spec.checkpoint, spec.task) for spec in submitted] == [("demo", "tweets")]


def test_one_click_submits_what_the_form_says(submitted: list[PruneSpec]) -> None:
    app = visit("prune")
    app.slider(key="sparsity").set_value(75)
    app.number_input(key="recover_epochs").set_value(2)
    app.number_input(key="max_length").set_value(64)
    app.selectbox(key="method").set_value("structured")
    press(app, "Prune")
    expected = PruneSpec(
        "demo", "bbc-news", 0.75, method="structured", recover_epochs=2, max_length=64, device=submitted[0].device
    )
    assert submitted == [expected]
    assert query(app, "run") == store.list_runs(get_settings().runs_dir)[0].id


def test_every_method_is_offered_with_its_sentence() -> None:
    app = visit("prune")
    assert len(set(app.selectbox(key="method").options)) == len(METHODS)
    for method, sentence in METHODS.items():
        app.selectbox(key="method").set_value(method).run()
        assert sentence in [caption.value for caption in healthy(app).caption]


def test_constraints_are_chosen_in_words_and_layers_count_from_one(submitted: list[PruneSpec]) -> None:
    app = visit("prune")
    app.segmented_control(key="budget").set_value("flops")
    app.number_input(key="min_groups").set_value(2)
    app.number_input(key="max_groups").set_value(4)
    pins = app.multiselect(key="pins_6")
    assert (pins.options[0], len(pins.options)) == ("Layer 1 attention", 12)
    pins.set_value(["3.attention", "0.feed_forward"]).run()
    app.slider(key="sparsity").set_value(60)
    assert "FLOPs" in healthy(app).slider(key="sparsity").label
    heads = next(box for box in app.number_input if box.label == "Layer 4 attention: fewest heads")
    heads.set_value(4)
    press(app, "Prune")
    (spec,) = submitted
    assert (spec.budget, spec.min_groups, spec.max_groups, spec.sparsity) == ("flops", 2, 4, 0.6)
    assert spec.pins == ("0.feed_forward", "3.attention:4")


def test_what_cannot_be_meant_is_told_in_one_sentence(submitted: list[PruneSpec]) -> None:
    app = visit("prune")
    app.number_input(key="min_groups").set_value(6)
    app.number_input(key="max_groups").set_value(3)
    press(app, "Prune")
    assert app.error[0].value == "This cannot be run: max groups 3 must be at least 6."
    assert submitted == []


@pytest.mark.parametrize("method", BASELINES)
def test_methods_of_others_take_no_constraints(submitted: list[PruneSpec], method: str) -> None:
    app = visit("prune")
    app.segmented_control(key="budget").set_value("flops")
    app.number_input(key="max_groups").set_value(3)
    app.multiselect(key="pins_6").set_value(["0.attention"]).run()
    app.selectbox(key="method").set_value(method).run()
    assert [box.label for box in healthy(app).multiselect] == []
    press(app, "Prune")
    (spec,) = submitted
    assert (spec.method, spec.max_groups, spec.pins) == (method, None, ())
    assert spec.budget == ("weights" if method == "magnitude" else "flops")


def test_only_what_a_checkpoint_has_can_be_pinned() -> None:
    make_tiny_checkpoint(get_settings().models_dir / "tiny", train=False)
    app = visit("prune")
    app.selectbox(key="checkpoint").set_value("tiny").run()
    app.multiselect(key="pins_2").set_value(["1.attention"]).run()
    heads = next(box for box in healthy(app).number_input if box.label == "Layer 2 attention: fewest heads")
    assert (heads.min, heads.max) == (1, 4)


def test_a_full_server_says_so_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(spec: PruneSpec, *, session: str) -> str:
        raise JobRejected("20 runs are waiting already.")

    monkeypatch.setattr(jobs, "submit", refuse)
    app = press(visit("prune"), "Prune")
    assert app.error[0].value == "20 runs are waiting already."


def test_a_checkpoint_of_the_models_folder_is_described_and_wants_its_file() -> None:
    make_tiny_checkpoint(get_settings().models_dir / "tiny", train=False)
    app = visit("prune")
    app.selectbox(key="checkpoint").set_value("tiny").run()
    task = next(box for box in healthy(app).selectbox if box.label == "Task")
    task.set_value("csv").run()
    facts = {row[0]: row[1] for table in healthy(app).table for row in table.value.to_numpy().tolist()}
    assert facts["Encoder"] == "2 layers, hidden 32, 4 heads, 64 neurons"
    assert facts["Labels"] == "negative, positive"
    assert "Upload a training file" in words(app)
    assert next(button for button in app.button if button.label == "Prune").disabled


def test_a_checkpoint_is_offered_the_tasks_it_has_the_labels_for_first() -> None:
    for name, own in {"reviews": ("Negative", "POSITIVE"), "news": TASKS["bbc-news"].labels or ()}.items():
        make_tiny_checkpoint(get_settings().models_dir / name, labels=own, train=False)
    app = visit("prune")
    for name, task in (("reviews", "sst2"), ("news", "bbc-news"), ("reviews", "sst2"), ("demo", "bbc-news")):
        app.selectbox(key="checkpoint").set_value(name).run()
        assert task_box(healthy(app)).value == task
        assert not app.warning
        assert not next(button for button in app.button if button.label == "Prune").disabled


def test_labels_without_names_are_told_before_a_run() -> None:
    make_tiny_checkpoint(get_settings().models_dir / "tiny", labels=("LABEL_0", "LABEL_1"), train=False)
    app = visit("prune")
    app.selectbox(key="checkpoint").set_value("tiny").run()
    task_box(app).set_value("sst2").run()
    (told,) = [caption.value for caption in healthy(app).caption if "have no names" in caption.value]
    assert "0 is negative, 1 is positive" in told


def test_a_task_whose_labels_a_checkpoint_lacks_says_so_and_cannot_be_started() -> None:
    make_tiny_checkpoint(get_settings().models_dir / "tiny", train=False)
    app = visit("prune")
    app.selectbox(key="checkpoint").set_value("tiny").run()
    task_box(app).set_value("qnli").run()
    assert "lacks labels of the task (entailment, not_entailment)" in healthy(app).warning[0].value
    assert next(button for button in app.button if button.label == "Prune").disabled


@pytest.mark.parametrize(
    ("names", "fitting"),
    [
        (("negative", "positive"), {"sst2", "csv"}),
        (("Positive", "neutral", "NEGATIVE"), {"tweets", "sst2", "csv"}),
        (("LABEL_0", "LABEL_1", "LABEL_2"), {"tweets", "mnli", "mnli_mismatched", "csv"}),
        (("contradiction", "neutral", "entailment"), {"mnli", "mnli_mismatched", "csv"}),
        (("Entailment", "not entailment"), {"qnli", "rte", "csv"}),
        (("LABEL_0", "LABEL_1"), {"sst2", "qnli", "qqp", "mrpc", "rte", "cola", "csv"}),
        (("label_0", "label_1", "label_2", "label_3", "label_4"), {"bbc-news", "csv"}),
        (("LABEL_1", "LABEL_0"), {"csv"}),
        (("sport", "tech"), {"csv"}),
    ],
)
def test_labels_fit_a_task_by_name_or_without_names_by_count(names: tuple[str, ...], fitting: set[str]) -> None:
    assert {name for name, task in TASKS.items() if labels.fit(task, names, "classification")} == fitting


def test_a_head_fits_its_tasks_alone() -> None:
    def fitting(*arguments: Any) -> set[str]:
        return {name for name, task in TASKS.items() if labels.fit(task, *arguments)}

    assert fitting(("LABEL_0",)) == fitting(("LABEL_0",), "regression") == {"stsb", "csv"}
    assert fitting(("LABEL_0", "LABEL_1"), "question_answering") == {"squad", "squad_v2"}
    assert fitting(None) == {*TASKS}
    assert fitting(None, "question_answering") == {"squad", "squad_v2"}
    assert {"sst2", "squad"} < fitting(("LABEL_0", "LABEL_1"))  # while the head is not known


def upload(rows: dict[str, list[Any]], own: tuple[str, ...] = ("negative", "positive")) -> AppTest:
    """The page with a checkpoint of these labels and a CSV of these columns."""
    make_tiny_checkpoint(get_settings().models_dir / "tiny", labels=own, train=False)
    app = visit("prune")
    app.selectbox(key="checkpoint").set_value("tiny").run()
    task_box(app).set_value("csv").run()
    content = pd.DataFrame(rows).to_csv(index=False).encode()
    app.file_uploader(key="train_file").upload("mine.csv", content, "text/csv").run()
    return healthy(app)


def test_a_file_that_finds_no_room_on_the_server_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, content: bytes) -> int:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    app = upload({"text": ["good day", "bad day"] * 5, "label": ["positive", "negative"] * 5})
    assert "No space left on device" in app.error[0].value
    assert next(button for button in app.button if button.label == "Prune").disabled
    assert list(get_settings().uploads_dir.iterdir()) == []


def box(app: AppTest, label: str) -> Any:
    return next(box for box in app.selectbox if box.label == label)


def may_start(app: AppTest) -> bool:
    return not next(button for button in app.button if button.label == "Prune").disabled


def test_a_file_with_the_usual_names_needs_no_answer(submitted: list[PruneSpec]) -> None:
    app = upload({"text": ["good day", "bad day"] * 5, "label": ["Positive", "negative"] * 5})
    assert [box(app, f"{role} column").value for role in ("Text", "Second text", "Label")] == ["text", "", "label"]
    assert "10 rows, 2 labels; all of them are names of the checkpoint's labels." in words(app)
    press(app, "Prune")
    (spec,) = submitted
    assert (spec.text_column, spec.pair_column, spec.label_column, spec.label_map) == (None, None, None, ())


def test_columns_and_labels_are_mapped_in_the_form(submitted: list[PruneSpec]) -> None:
    rows = {"stars": ["1", "5", "none"] * 4, "review": ["quite a long text"] * 12, "shop": ["x", "y"] * 6}
    app = upload({**rows, "text_pair": ["more"] * 12})
    assert not may_start(app)
    box(app, "Label column").set_value("stars").run()
    box(app, "Second text column").set_value("shop").run()
    assert "Which of the checkpoint's labels are these?" in words(healthy(app))
    chosen = {"“1” (4 rows)": "negative", "“5” (4 rows)": "positive", "“none” (4 rows)": "negative"}
    for label, name in chosen.items():
        assert not may_start(app)
        box(app, label).set_value(name).run()
    assert may_start(healthy(app))
    press(app, "Prune")
    (spec,) = submitted
    assert (spec.text_column, spec.pair_column, spec.label_column) == ("review", "shop", "stars")
    assert set(spec.label_map) == {"1=negative", "5=positive", "none=negative"}
    assert spec.columns.renamed["5"] == "positive"


def test_numbers_are_taken_as_the_checkpoints_unless_told_otherwise(submitted: list[PruneSpec]) -> None:
    app = upload({"text": ["good day", "bad day"] * 5, "label": [1, 0] * 5})
    assert "They are numbers: in the checkpoint's order, unless you say otherwise." in words(app)
    assert [box(app, f"“{n}” (5 rows)").value for n in (0, 1)] == ["negative", "positive"]
    assert may_start(app)
    box(app, "“0” (5 rows)").set_value("positive").run()
    box(app, "“1” (5 rows)").set_value("negative").run()
    press(app, "Prune")
    assert submitted[0].label_map == ("0=positive", "1=negative")


def test_numbers_of_labels_without_names_need_no_answer() -> None:
    app = upload({"text": ["good day", "bad day"] * 5, "label": [1, 0] * 5}, own=("LABEL_0", "LABEL_1"))
    assert "taken as the numbers of the checkpoint's labels: 0 is LABEL" in words(app)
    assert not any("“0”" in box.label for box in app.selectbox)
    assert may_start(app)


@pytest.mark.parametrize(("last", "fits"), [("4.5", True), ("much", False)])
def test_labels_of_a_regression_are_numbers(last: str, fits: bool) -> None:
    app = upload({"text": ["good day", "bad day"] * 5, "label": ["1.5", last] * 5}, own=("value",))
    assert ("The labels are read as numbers" in words(app)) == fits
    assert any("whose labels are numbers" in warning.value for warning in app.warning) != fits
    assert may_start(app) == fits


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ({"text": [f"text {n}" for n in range(120)], "label": [f"value {n}" for n in range(120)]}, "different values"),
        ({"text": [f"text {n}" for n in range(60)], "label": [f"value {n}" for n in range(60)]}, "is this the label"),
        ({"only": ["a", "b"]}, "must be different columns"),
        ({"text": ["a", "b"], "label": ["positive", ""]}, "Some rows have no label"),
    ],
)
def test_a_file_that_cannot_be_meant_is_told_before_a_run(rows: dict[str, list[Any]], line: str) -> None:
    app = upload(rows)
    assert any(line in warning.value for warning in app.warning)
    assert not may_start(app)


def test_a_file_that_cannot_be_read_is_told_without_its_place() -> None:
    make_tiny_checkpoint(get_settings().models_dir / "tiny", train=False)
    app = visit("prune")
    app.selectbox(key="checkpoint").set_value("tiny").run()
    task_box(app).set_value("csv").run()
    app.file_uploader(key="train_file").upload("mine.csv", b"\xff\xfe", "text/csv").run()
    (error,) = healthy(app).error
    assert error.value == "This file cannot be used: the file is not UTF-8 text; save it as UTF-8."
    assert not may_start(app)


def test_an_upload_is_kept_under_a_name_of_the_server(submitted: list[PruneSpec]) -> None:
    make_tiny_checkpoint(get_settings().models_dir / "tiny", train=False)
    app = visit("prune")
    app.selectbox(key="checkpoint").set_value("tiny").run()
    next(box for box in app.selectbox if box.label == "Task").set_value("csv").run()
    content = b"text,label\ngood,positive\n"
    app.file_uploader(key="train_file").upload("../../evil name.csv", content, "text/csv").run()
    press(app, "Prune")
    kept = Path(submitted[0].train_file or "")
    assert kept.read_bytes() == content
    assert kept.parent == get_settings().cache_dir / "uploads"
    assert "evil" not in kept.name
    assert submitted[0].eval_file is None


def test_a_table_over_the_limit_is_not_taken_from_any_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(st, "error", (told := []).append)
    limit = get_settings().max_upload_megabytes * 2**20
    whole, larger = SimpleNamespace(size=limit), SimpleNamespace(size=limit + 2**20)
    assert uploads.within_limit(whole) is whole
    assert not told
    assert uploads.within_limit(larger) is None
    assert told == ["This file has 51 MB, the limit is 50 MB; take less, or raise PGB_MAX_UPLOAD_MEGABYTES."]


def test_uploads_are_removed_after_their_time() -> None:
    old = uploads.keep(io.BytesIO(b"old"), "a.csv")
    past = time.time() - 3600 * get_settings().upload_hours - 60
    os.utime(old, (past, past))
    new = uploads.keep(io.BytesIO(b"new"), "b.parquet")
    healthy(AppTest.from_file(str(APP), default_timeout=TIMEOUT).run())
    assert not old.exists()
    assert (new.suffix, new.read_bytes()) == (".parquet", b"new")


def test_an_upload_stays_while_a_run_waits_for_it() -> None:
    train, evaluation, other = (uploads.keep(io.BytesIO(b"text"), "a.csv") for _ in range(3))
    past = time.time() - 3600 * get_settings().upload_hours - 60
    for file in (train, evaluation, other):
        os.utime(file, (past, past))
    run = make_unfinished_run(get_settings().runs_dir, status("queued"))
    spec = PruneSpec("demo", "csv", 0.5, train_file=str(train), eval_file=str(evaluation))
    store.write_json(run / "spec.json", spec.to_dict())
    uploads.sweep()
    assert (train.exists(), evaluation.exists(), other.exists()) == (True, True, False)
    store.write_status(run, status("done"))
    uploads.sweep()
    assert not train.exists()
    assert not evaluation.exists()


def test_a_hub_id_must_look_like_one(submitted: list[PruneSpec], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "asked", lambda name: Future())  # the Hub has not answered yet
    app = visit("prune")
    app.selectbox(key="checkpoint").set_value(sources.HUB).run()
    app.selectbox(key="hub_known").set_value(sources.OTHER).run()
    app.text_input(key="hub_id").set_value("../etc/passwd").run()
    assert "owner/name" in healthy(app).warning[0].value
    assert next(button for button in app.button if button.label == "Prune").disabled
    app.text_input(key="hub_id").set_value("someone/bert-sst2").run()
    assert not healthy(app).warning
    next(box for box in app.selectbox if box.label == "Task").set_value("sst2").run()
    press(app, "Prune")
    assert (submitted[0].checkpoint, submitted[0].task) == ("hub:someone/bert-sst2", "sst2")


def test_a_running_run_shows_stage_layer_time_left_and_cancel(monkeypatch: pytest.MonkeyPatch) -> None:
    now = status("running", stage="compensation", fraction=0.6, message="layer 3 of 6", eta_seconds=48.0)
    run = make_unfinished_run(get_settings().runs_dir, now)
    app = visit("prune", run=run.name)
    assert app.title[0].value == "Pruning"
    assert "**Refit** · layer 3 of 6" in [bar.proto.text for bar in app.get("progress")]
    assert "60% done" in words(app)
    assert "about 48 s" in words(app)
    cancelled: list[Path] = []
    monkeypatch.setattr(jobs, "cancel", lambda path, session: cancelled.append(path))
    press(app, "Cancel")
    assert cancelled == [run]


def test_only_the_owner_has_a_cancel_button_where_the_server_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGB_CANCEL", "owner")
    run = make_unfinished_run(get_settings().runs_dir, status("running", stage="importance"))
    tickets.issue(run, tickets.digest("secret"))
    others, owners = visit("prune", run=run.name), visit("prune", run=run.name, key="secret")
    assert "Cancel" not in [button.label for button in others.button]
    assert "Only the session that started this may cancel it." in words(others)
    cancelled: list[str] = []
    monkeypatch.setattr(jobs, "cancel", lambda path, session: cancelled.append(session))
    press(owners, "Cancel")
    assert cancelled == ["secret"]


def test_the_page_follows_a_run_from_waiting_to_its_end() -> None:
    run = make_unfinished_run(get_settings().runs_dir, status("queued"))
    app = visit("prune", run=run.name)
    titles = []
    for state in ("running", "failed"):
        titles.append(app.title[0].value)
        store.write_status(run, status(state))
        healthy(app.run())
    assert [*titles, app.title[0].value] == ["Waiting", "Pruning", "Failed"]


def test_a_waiting_run_tells_its_place() -> None:
    folder = get_settings().runs_dir
    make_unfinished_run(folder, status("running"), run_id="20250101-000000-00000a")
    parent = psutil.Process(os.getppid())
    waiting = replace(status("queued"), pid=parent.pid, pid_created=parent.create_time())
    run = make_unfinished_run(folder, waiting, run_id="20250101-000001-00000b")
    app = visit("prune", run=run.name)
    assert app.title[0].value == "Waiting"
    assert "Waiting: 1 run before this one." in [bar.proto.text for bar in app.get("progress")]


@pytest.mark.parametrize(
    ("state", "message", "line"),
    [
        ("failed", "The label 'x' is unknown.", "This run failed. The label 'x' is unknown."),
        ("cancelled", "Cancelled.", "This run was cancelled."),
    ],
)
def test_a_run_that_ended_early_says_why_and_shows_its_log(state: store.State, message: str, line: str) -> None:
    run = make_unfinished_run(get_settings().runs_dir, status(state, message=message), log="one\ntwo\n")
    app = visit("prune", run=run.name)
    assert line in words(app)
    assert app.code[0].value == "one\ntwo"


def test_a_run_whose_process_died_is_told_as_failed() -> None:
    dead = store.Status("running", created=1.0, pid=2**22 + 1, pid_created=1.0)
    run = make_unfinished_run(get_settings().runs_dir, dead)
    assert "failed" in visit("prune", run=run.name).error[0].value


def test_a_result_shows_further_metrics_and_what_is_to_be_said_of_the_labels() -> None:
    run = make_sample_run(get_settings().runs_dir)
    result = store.read_json(run / "result.json")
    result["score"]["metric"] = "f1"
    errors = dict.fromkeys(("dense", "compensated"), 0.01)
    result["score"]["secondary"] = {"exact_match": {"dense": 0.8, "compensated": 0.75, "standard_error": errors}}
    result["note"] = "the labels have no names"
    store.write_json(run / "result.json", result)
    app = visit("prune", run=run.name)
    assert "F1" in [metric.label for metric in app.metric]
    assert "Exact match: dense 80.0% ± 1.0%, after the refit 75.0% ± 1.0%." in words(app)
    assert "The labels have no names." in [info.value for info in app.info]


@pytest.mark.parametrize(("recovered", "latency"), [(True, True), (False, False)])
def test_a_result_shows_score_size_and_speed(recovered: bool, latency: bool) -> None:
    run = make_sample_run(get_settings().runs_dir, recovered=recovered, latency=latency)
    result = store.read_run(run).result
    assert result is not None
    app = visit("prune", "scores_twin", run=run.name)
    metrics = {metric.label: metric.value for metric in app.metric}
    step = "recovered" if recovered else "compensated"
    assert metrics["Accuracy"] == f"{100 * result['score'][step]:.1f}%"
    assert metrics["Weights removed"] == f"{100 * result['sparsity']['achieved']:.1f}%"
    assert ("Speed-up" in metrics) == latency
    assert ("not measured" in words(app)) != latency
    costs = {row[0] for table in app.table for row in table.value.to_numpy().tolist()}
    assert ("Memory of a pass" in costs) == latency
    assert len(charts(app)) == 2 + recovered
    assert ("After recovery" in charts(app)[0].alt) == recovered
    assert len(app.dataframe[0].value) == 3 + recovered


def test_a_result_shows_what_the_other_methods_tables_predict() -> None:
    run = make_sample_run(get_settings().runs_dir, method="structured")
    app = visit("prune", run=run.name)
    table = next(frame.value for frame in app.dataframe if "ratio" in frame.value)
    assert table["method"].tolist() == ["pgb", "pgb-mixed", "structured"]
    assert table["ratio"].tolist() == pytest.approx([1.1, 0.8, 1.0])
    assert "pgb-mixed is predicted best" in words(app)
    assert "pgb-mixed 80%" in charts(app)[1].alt


@pytest.mark.parametrize("method", ["pgb-paper", *BASELINES])
def test_a_method_with_a_table_of_its_own_or_none_says_that_there_is_nothing_to_compare(method: str) -> None:
    app = visit("prune", run=make_sample_run(get_settings().runs_dir, method=method).name)
    assert "What the other methods' tables predict" in words(app)
    assert method in words(app)
    assert len(charts(app)) == 1


def test_a_recovery_shows_its_looks_and_which_state_was_kept() -> None:
    run = make_sample_run(get_settings().runs_dir, recovered=True)
    app = visit("prune", "recovery_twin", run=run.name)
    table = next(frame.value for frame in app.dataframe if "dev_score" in frame.value)
    assert table["kept"].tolist() == [False, False, True, False, False]
    assert "the state after 1 epoch was kept" in charts(app)[2].alt
    assert "168 training examples were set aside" in words(app)


def test_latency_at_several_shapes_is_a_table() -> None:
    run = make_sample_run(get_settings().runs_dir)
    app = visit("prune", run=run.name)
    (shown,) = (table.value for table in app.dataframe if "speedup" in table.value)
    assert shown[["batch", "length"]].to_numpy().tolist() == [[1, 32], [8, 128]]
    found = store.read_json(run / "result.json")["latency"]
    assert shown["share"].iloc[1] == pytest.approx(found["speedup"] / found["ideal_speedup"])
    delta = next(metric.delta for metric in app.metric if metric.label == "Speed-up")
    assert delta == f"{100 * shown['share'].iloc[1]:.0f}% of ideal {found['ideal_speedup']:.2f} ×"
    result = store.read_json(run / "result.json")
    store.write_json(run / "result.json", {**result, "latencies": result["latencies"][:1]})
    assert not any("speedup" in table.value for table in visit("prune", run=run.name).dataframe)


def test_a_result_of_the_first_version_is_shown_as_well() -> None:
    run = make_sample_run(get_settings().runs_dir, recovered=True)
    result = store.read_json(run / "result.json")
    store.write_json(
        run / "result.json",
        {k: v for k, v in result.items() if k not in ("predictions", "recovery", "budget", "latencies")},
    )
    app = visit("prune", run=run.name)
    assert len(charts(app)) == 1
    assert "predict" not in words(app)


def test_a_target_in_flops_is_told_as_such_and_pins_in_words() -> None:
    run = make_sample_run(get_settings().runs_dir)
    spec = {**store.read_json(run / "spec.json"), "budget": "flops", "pins": ["1.attention:2"]}
    store.write_json(run / "spec.json", spec)
    result = {**store.read_json(run / "result.json"), "budget": {"unit": "flops", "achieved": 0.512}}
    store.write_json(run / "result.json", result)
    app = visit("prune", run=run.name)
    metric = next(metric for metric in app.metric if metric.label == "FLOPs removed")
    assert (metric.value, metric.delta) == ("51.2%", "target 50.0%")
    assert "50% of FLOPs removed" in app.text[0].value
    settings = {row[0]: row[1] for table in app.table for row in table.value.to_numpy().tolist()}
    assert settings["never dropped"] == "layer 2 attention, 2 heads"


@pytest.mark.parametrize("value", ["nonsense", "20200101-000000-000000", "../..", ""])
def test_a_bad_run_gets_a_friendly_line_and_the_form(value: str) -> None:
    app = visit("prune", run=value)
    assert "There is no run" in app.warning[0].value
    assert app.title[0].value == "Prune a BERT"
    assert query(app, "run") is None


def test_recent_runs_are_listed_whatever_became_of_them() -> None:
    folder = get_settings().runs_dir
    make_sample_run(folder, run_id="20250101-000000-00000a")
    make_unfinished_run(folder, status("failed", message="Why."), run_id="20250101-000001-00000b")
    table = visit("prune").dataframe[0].value
    assert table["state"].tolist() == ["failed", "done"]


def test_new_run_leads_back_to_the_form() -> None:
    run = make_sample_run(get_settings().runs_dir)
    app = press(visit("prune", run=run.name), "New run")
    assert app.title[0].value == "Prune a BERT"
    assert query(app, "run") is None

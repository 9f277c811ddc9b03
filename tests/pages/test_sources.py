"""Where a checkpoint comes from on the Prune page: models folder, Hub, upload; what is said of it; fine-tuning."""

from __future__ import annotations

import io
import os
import shutil
import time
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from huggingface_hub import constants
from streamlit.testing.v1 import AppTest

from pgb_core import card, hub, jobs, spectra, store
from pgb_core.curated import curated
from pgb_core.errors import CheckpointError, JobRejected
from pgb_core.finetune_spec import FinetuneSpec
from pgb_core.hub import HubModel
from pgb_core.settings import get_settings
from pgb_core.spec import PruneSpec
from pgb_core.weights import fingerprint_of
from tests.pages.visit import charts, healthy, query, visit, words
from tests.sample_run import make_unfinished_run
from tests.test_finetuning import make_raw
from tests.test_hub import listening, point_to
from tests.tiny import make_tiny_checkpoint
from ui import runs, sources, units, uploads

KNOWN = "distilbert/distilbert-base-uncased-finetuned-sst-2-english"


@pytest.fixture(autouse=True)
def _asked_anew() -> None:
    sources.asked.clear()


def choose(app: AppTest, checkpoint: str) -> AppTest:
    return healthy(app.selectbox(key="checkpoint").set_value(checkpoint).run())


def box(app: AppTest, label: str) -> Any:
    return next(box for box in app.selectbox if box.label == label)


def labels_of_buttons(app: AppTest) -> list[str]:
    return [button.label for button in app.button]


def facts(app: AppTest) -> dict[str, str]:
    """The table of what a checkpoint is."""
    rows = app.table[0].value
    return dict(zip(rows.iloc[:, 0], rows.iloc[:, 1], strict=True))


# --- the models folder ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "title"), [("bert", "BERT"), ("distilbert", "DistilBERT"), ("roberta", "RoBERTa")])
def test_the_panel_says_what_a_checkpoint_is(family: str, title: str) -> None:
    folder = make_tiny_checkpoint(get_settings().models_dir / "tiny", family=family, train=False)
    (folder / card.FILE).write_text("---\nlicense: mit\nbase_model: owner/base\n---\n")
    found = facts(choose(visit("prune"), "tiny"))
    assert found["Family"] == f"{title}, sequence classifier"
    assert found["Encoder"] == "2 layers, hidden 32, 4 heads, 64 neurons"
    assert "16.4 k encoder weights" in found["Parameters"]
    assert (found["Labels"], found["License"], found["From"]) == ("negative, positive", "mit", "owner/base")
    assert found["Weights"].startswith("SHA-256 ")


def test_what_a_stranger_wrote_is_not_read_as_markdown() -> None:
    labels = ("**bold** [x](javascript:alert(1))", "$a$ :red[b] <b>")
    make_tiny_checkpoint(get_settings().models_dir / "tiny", labels=labels, train=False)
    shown = facts(choose(visit("prune"), "tiny"))["Labels"]
    assert r"\*\*bold\*\* \[x\]\(javascript\:alert\(1\)\)" in shown
    assert r"\$a\$ \:red\[b\] \<b\>" in shown


def test_an_estimate_says_what_it_rests_on(monkeypatch: pytest.MonkeyPatch) -> None:
    make_tiny_checkpoint(get_settings().models_dir / "tiny", train=False)
    assert "A run here" not in words(choose(visit("prune"), "tiny"))
    monkeypatch.setenv("PGB_SHOW_SAMPLES", "1")
    told = words(choose(visit("prune"), "tiny"))
    assert "A run here" in told
    assert "not on this server" in told


@pytest.mark.parametrize(("most", "drawn"), [(32, 3), (31, 1)])
def test_the_weights_are_measured_when_somebody_looks_and_kept(
    most: int, drawn: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spectra, "MOST_DIRECTIONS", most)
    folder = make_tiny_checkpoint(get_settings().models_dir / "tiny", train=False)
    app = choose(visit("prune"), "tiny")
    assert charts(app) == []
    kept = get_settings().cache_dir / "spectra" / f"{fingerprint_of(folder)}.json"
    assert not kept.exists()

    def page(place: str) -> None:
        from pathlib import Path

        from pgb_core.inspection import describe
        from pgb_core.weights import fingerprint_of
        from ui import inside

        inside.draw(Path(place), describe(Path(place)), fingerprint_of(Path(place)))

    opened = healthy(AppTest.from_function(page, kwargs={"place": str(folder)}, default_timeout=30).run())
    assert len(charts(opened)) == drawn
    assert ("Not computed: there are more than 31" in words(opened)) == (drawn == 1)
    assert kept.is_file()
    (folder / "model.safetensors").unlink()  # what is kept needs no weights
    assert spectra.find(get_settings().cache_dir, kept.stem) is not None


# --- the Hub -------------------------------------------------------------------------------------------------------


def model(**changes: Any) -> HubModel:
    values: dict[str, Any] = {
        "name": KNOWN,
        "revision": "0" * 40,
        "files": {"config.json": 600, "model.safetensors": 267_000_000},
        "license": "apache-2.0",
        "family": "distilbert",
        "architecture": "DistilBertForSequenceClassification",
        "parameters": 66_955_010,
    }
    return HubModel(**values | changes)


def answered(monkeypatch: pytest.MonkeyPatch, answer: HubModel | Exception) -> None:
    def asked(name: str) -> Future[HubModel]:
        future: Future[HubModel] = Future()
        future.set_exception(answer) if isinstance(answer, Exception) else future.set_result(answer)
        return future

    monkeypatch.setattr(sources, "asked", asked)
    asked.clear = lambda: None  # type: ignore[attr-defined]


def test_well_known_models_come_with_their_task(monkeypatch: pytest.MonkeyPatch) -> None:
    answered(monkeypatch, model())
    app = choose(visit("prune"), sources.HUB)
    assert len(app.selectbox(key="hub_known").options) == len(curated()) + 1
    for entry in curated():
        app.selectbox(key="hub_known").set_value(entry.name).run()
        assert box(healthy(app), "Task").value == entry.task
        assert not any("lacks" in warning.value for warning in app.warning)


def test_the_panel_says_what_the_hub_says(monkeypatch: pytest.MonkeyPatch) -> None:
    answered(monkeypatch, model())
    found = facts(choose(visit("prune"), sources.HUB))
    assert found["Family"] == "DistilBERT"
    assert found["Download"] == "267.0 MB in 2 files, 67 M parameters"
    assert found["License"] == "apache-2.0"


def test_a_raw_encoder_of_the_hub_is_to_be_fine_tuned_first(monkeypatch: pytest.MonkeyPatch) -> None:
    answered(monkeypatch, model(architecture="DistilBertForMaskedLM"))
    app = choose(visit("prune"), sources.HUB)
    assert "Fine-tune" in labels_of_buttons(app)
    assert "Prune" not in labels_of_buttons(app)


def test_a_refusal_is_told_when_the_model_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    answered(monkeypatch, CheckpointError("x/y has no model.safetensors: pytorch_model.bin is refused."))
    app = choose(visit("prune"), sources.HUB)
    assert app.error[0].value == units.plain("X/y has no model.safetensors: pytorch_model.bin is refused.")


@pytest.mark.parametrize("silent", [True, False], ids=["a hub that never answers", "a hub that refuses"])
def test_out_of_reach_is_told_in_seconds_and_the_rest_stays_usable(
    monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with listening(None) as endpoint:
        point_to(monkeypatch, endpoint if silent else "http://127.0.0.1:9")
        app = visit("prune")
        started = time.monotonic()
        choose(app, sources.HUB)
        while not app.error and time.monotonic() - started < 10:
            time.sleep(0.2)
            app.run()
        assert time.monotonic() - started < 5
        (error,) = healthy(app).error
        assert error.value.startswith("The Hugging Face Hub is out of reach and")
        assert next(button for button in app.button if button.label == "Prune").disabled
        assert "\n" not in error.value
        choose(app, "demo")
        assert not app.error
        assert "Prune" in labels_of_buttons(app)


def fetched(folder: Path) -> None:
    """The model in `folder` as one that was fetched from the Hub before."""
    home = get_settings().cache_dir / "hub" / KNOWN.replace("/", "--") / ("a" * 40)
    shutil.copytree(folder, home)
    (home / hub.RECORD).write_text(f'{{"name": "{KNOWN}", "revision": "{"a" * 40}", "license": "apache-2.0"}}')


def test_what_was_fetched_before_is_described(tiny_checkpoint: Path) -> None:
    fetched(tiny_checkpoint)
    found = facts(choose(visit("prune"), sources.HUB))
    assert found["Family"] == "BERT, sequence classifier"
    assert found["From"].endswith("revision aaaaaaaa")


def test_a_well_known_model_that_is_another_is_told(tiny_checkpoint: Path) -> None:
    fetched(tiny_checkpoint)
    (warning,) = choose(visit("prune"), sources.HUB).warning
    assert warning.value.startswith("The list of well-known models is wrong about distilbert/")
    assert warning.value.endswith("family bert, 2 layers.")


# --- uploads -------------------------------------------------------------------------------------------------------


def files_of(folder: Path) -> list[tuple[str, io.BytesIO]]:
    return [(file.name, io.BytesIO(file.read_bytes())) for file in sorted(folder.iterdir())]


def test_an_upload_is_inspected_kept_and_can_be_pruned(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    submitted: list[PruneSpec] = []

    def submit(spec: PruneSpec, *, session: str) -> str:
        submitted.append(spec)
        return make_unfinished_run(get_settings().runs_dir, status("queued")).name

    monkeypatch.setattr(jobs, "submit", submit)
    app = choose(visit("prune"), sources.UPLOAD)
    assert next(button for button in app.button if button.label == "Use these files").disabled
    uploader = app.file_uploader(key="checkpoint_files")
    for name, content in files_of(tiny_checkpoint):
        uploader.upload("my model.safetensors" if name == "model.safetensors" else name, content.read(), "")
    app.run()
    healthy(next(button for button in app.button if button.label == "Use these files").click().run())
    assert facts(app)["Labels"] == "negative, positive"
    chosen = app.selectbox(key="checkpoint")
    assert "Your upload: my model.safetensors" in chosen.options
    place = Path(chosen.value)
    assert place.parent == get_settings().cache_dir / "uploads"
    assert "my model" not in place.name
    assert {file.name for file in place.iterdir()} == {file.name for file in tiny_checkpoint.iterdir()}
    box(app, "Task").set_value("sst2").run()
    healthy(next(button for button in app.button if button.label == "Prune").click().run())
    assert submitted[0].checkpoint == str(place)
    run = SimpleNamespace(spec=submitted[0].to_dict())
    assert runs.checkpoint_name(run) == f"upload {place.name[:6]}"  # type: ignore[arg-type]
    assert "my model" not in str(visit("prune").selectbox(key="checkpoint").options), "seen by another session"


def test_uploads_with_one_name_can_be_told_apart(tiny_checkpoint: Path) -> None:
    app = choose(visit("prune"), sources.UPLOAD)
    for _ in range(2):
        uploader = app.file_uploader(key="checkpoint_files")
        for name, content in files_of(tiny_checkpoint):
            uploader.upload(name, content.read(), "")
        app.run()
        healthy(next(button for button in app.button if button.label == "Use these files").click().run())
        app = choose(app, sources.UPLOAD)
    labels = [option for option in app.selectbox(key="checkpoint").options if option.startswith("Your upload")]
    assert labels == ["Your upload: model.safetensors (1)", "Your upload: model.safetensors (2)"]


def test_uploads_have_a_limit_together(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = sum(file.stat().st_size for file in tiny_checkpoint.iterdir())
    monkeypatch.setenv("PGB_UPLOADS_GIGABYTES", str(1.5 * size / 1e9))
    uploads.keep_checkpoint(files_of(tiny_checkpoint))
    with pytest.raises(JobRejected, match="PGB_UPLOADS_GIGABYTES"):
        uploads.keep_checkpoint(files_of(tiny_checkpoint))
    uploads.keep(io.BytesIO(b"text,label\n"), "small.csv")
    with pytest.raises(JobRejected):
        uploads.keep(io.BytesIO(bytes(size)), "large.csv")


def test_what_strangers_wrote_is_no_markdown(monkeypatch: pytest.MonkeyPatch) -> None:
    answered(monkeypatch, CheckpointError("x/y has a tensor ![x](http://evil.example/i.png)."))
    app = choose(visit("prune"), sources.HUB)
    assert "![" not in app.error[0].value
    assert "](" not in app.error[0].value


def test_folders_that_cannot_be_pruned_are_told(tiny_checkpoint: Path) -> None:
    assert not any("cannot be pruned" in folded.label for folded in visit("prune").expander)
    shutil.copytree(tiny_checkpoint, get_settings().models_dir / "damaged")
    (get_settings().models_dir / "damaged" / "config.json").write_text("{}")
    (folded,) = [folded for folded in visit("prune").expander if "cannot be pruned" in folded.label]
    assert folded.label == "1 folder of the models folder cannot be pruned"
    assert folded.markdown[0].value.startswith("- **damaged**")


def test_an_upload_that_is_refused_leaves_nothing(tiny_checkpoint: Path) -> None:
    app = choose(visit("prune"), sources.UPLOAD)
    app.file_uploader(key="checkpoint_files").upload("model.safetensors", b"\x80\x04pickle", "").run()
    healthy(next(button for button in app.button if button.label == "Use these files").click().run())
    assert app.error[0].value.startswith(units.plain("These files cannot be used: the upload has no config.json"))
    assert list((get_settings().cache_dir / "uploads").iterdir()) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda files: [*files, ("evil.py.json", io.BytesIO(b"{}"))], "evil.py.json is no file of a checkpoint"),
        (lambda files: [*files, ("../config.json", io.BytesIO(b"{}"))], "../config.json is no file"),
        (lambda files: [*files, ("b.safetensors", io.BytesIO(b""))], "two files for model.safetensors"),
        (lambda files: [file for file in files if file[0] != "tokenizer.json"], "neither tokenizer.json"),
        (lambda files: [file for file in files if file[0] != "config.json"], "no config.json"),
    ],
)
def test_only_the_files_of_one_checkpoint_are_taken(tiny_checkpoint: Path, change: Any, words: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        uploads.keep_checkpoint(change(files_of(tiny_checkpoint)))
    assert words in str(caught.value)
    kept = get_settings().cache_dir / "uploads"
    assert not kept.exists() or list(kept.iterdir()) == []


def test_an_upload_over_the_limit_is_refused(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGB_MAX_CHECKPOINT_MEGABYTES", "1")
    files = [*files_of(tiny_checkpoint), ("vocab.txt", io.BytesIO(b"a\n" * 600_000))]
    with pytest.raises(CheckpointError, match=r"limit is 1 MB; .* raise PGB_MAX_CHECKPOINT_MEGABYTES"):
        uploads.keep_checkpoint(files)


def test_uploaded_checkpoints_are_removed_after_their_time_unless_a_run_reads_them(tiny_checkpoint: Path) -> None:
    old, read, new = (uploads.keep_checkpoint(files_of(tiny_checkpoint)) for _ in range(3))
    past = time.time() - 3600 * get_settings().upload_hours - 60
    for place in (old, read):
        os.utime(place, (past, past))
    run = make_unfinished_run(get_settings().runs_dir, status("queued"))
    store.write_json(run / "spec.json", PruneSpec(str(read), "sst2", 0.5).to_dict())
    uploads.sweep()
    assert (old.exists(), read.exists(), new.exists()) == (False, True, True)


# --- fine-tuning ---------------------------------------------------------------------------------------------------


def status(state: store.State, **values: Any) -> store.Status:
    """A status whose process, this one, lives."""
    mine = {"pid": os.getpid(), "pid_created": psutil.Process().create_time()}
    return store.Status(state, created=time.time() - 60, started=time.time() - 50, **mine, **values)


def job_folder(state: store.State, **values: Any) -> Path:
    folder = make_unfinished_run(get_settings().runs_dir, status(state, job="finetune", **values))
    spec = FinetuneSpec("raw", "tweets", epochs=2).to_dict()
    store.write_json(folder / "spec.json", {**spec, "name": "raw-tweets"})
    return folder


def test_a_raw_encoder_is_recognized_and_fine_tuned(monkeypatch: pytest.MonkeyPatch) -> None:
    make_raw(get_settings().models_dir / "raw")
    submitted: list[tuple[FinetuneSpec, str]] = []

    def submit(spec: FinetuneSpec, name: str, *, session: str) -> str:
        submitted.append((spec, name))
        return job_folder("queued").name

    monkeypatch.setattr(jobs, "submit_finetune", submit)
    app = choose(visit("prune"), "raw")
    assert facts(app)["Family"] == "BERT, raw encoder without a trained head"
    assert "Prune" not in labels_of_buttons(app)
    box(app, "Task").set_value("tweets").run()
    app.number_input(key="finetune_epochs").set_value(2)
    healthy(next(button for button in app.button if button.label == "Fine-tune").click().run())
    ((spec, name),) = submitted
    assert (spec.checkpoint, spec.task, spec.epochs, spec.learning_rate) == ("raw", "tweets", 2, None)
    assert name == "raw-tweets"
    assert query(app, "finetune") is not None
    assert app.title[0].value == "Fine-tuning"


@pytest.mark.parametrize(
    ("values", "line", "complete"),
    [
        (["good", "bad", "so"], "30 rows. The new head learns 3 labels, bad, good, so.", True),
        (["1.5", "2", "3"], "30 rows. The new head learns the numbers, as a regression.", True),
        (["good"], "Column 'verdict' has fewer than 2 different labels", False),
    ],
)
def test_a_new_head_learns_the_labels_of_a_file(values: list[str], line: str, complete: bool) -> None:
    make_raw(get_settings().models_dir / "raw")
    app = choose(visit("prune"), "raw")
    box(app, "Task").set_value("csv").run()
    rows = "".join(f"text {n},{values[n % len(values)]}\n" for n in range(30))
    app.file_uploader(key="train_file").upload("a.csv", f"text,verdict\n{rows}".encode(), "text/csv").run()
    box(app, "Label column").set_value("verdict").run()
    assert line in words(healthy(app)) + " ".join(warning.value for warning in app.warning)
    assert next(button for button in app.button if button.label == "Fine-tune").disabled != complete


def test_a_fine_tuning_shows_its_stages_and_can_be_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = job_folder("running", stage="training", fraction=0.4, message="epoch 1 of 2, loss 0.500")
    app = visit("prune", finetune=folder.name)
    assert "**Fine-tune** · epoch 1 of 2" in app.get("progress")[0].proto.text
    assert ":green[✓ Load] → **Fine-tune** → :gray[Evaluate]" in words(app)
    cancelled: list[Path] = []
    monkeypatch.setattr(jobs, "cancel", lambda path, session: cancelled.append(path))
    healthy(next(button for button in app.button if button.label == "Cancel").click().run())
    assert cancelled == [folder]


def test_what_came_out_is_offered_for_pruning() -> None:
    make_tiny_checkpoint(get_settings().models_dir / "raw-tweets", train=False)
    folder = job_folder("done")
    result = {"metric": "accuracy", "score": 0.81, "standard_error": 0.01, "samples": 80, "seconds": {"total": 65.0}}
    store.write_json(folder / "result.json", result)
    app = visit("prune", finetune=folder.name)
    assert "Accuracy 81.0% ± 1.0% on 80 held-out examples, in 1 min 5 s." in app.success[0].value
    healthy(next(button for button in app.button if button.label == "Prune raw-tweets").click().run())
    assert query(app, "finetune") is None
    assert app.selectbox(key="checkpoint").value == "raw-tweets"


def test_a_fine_tuning_that_failed_says_why_and_leads_back() -> None:
    folder = job_folder("failed", message="task tweets cannot be fetched.")
    app = visit("prune", finetune=folder.name)
    assert "task tweets cannot be fetched." in app.error[0].value
    healthy(next(button for button in app.button if button.label == "Back").click().run())
    assert app.title[0].value == "Prune a BERT"


def test_a_link_to_a_fine_tuning_that_is_gone_is_told() -> None:
    app = visit("prune", finetune="20260101-000000-abcdef")
    assert "is not here any more" in app.warning[0].value
    assert app.title[0].value == "Prune a BERT"

"""A raw encoder is told apart, gets a head and learns a task; what comes out is a checkpoint like any other."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
import torch
from transformers import BertForMaskedLM

from pgb_core import __main__ as command_line
from pgb_core import card, checkpoints, jobs, store
from pgb_core.architectures import dense_class, dense_config
from pgb_core.checkpoints import describe, load_model, load_tokenizer, resolve
from pgb_core.errors import CheckpointError, JobCancelled, JobRejected, PGBError, SpecError
from pgb_core.finetune_spec import FinetuneSpec
from pgb_core.finetuning import finetune_checkpoint, with_new_head
from pgb_core.inspection import read_config
from pgb_core.progress import Progress
from pgb_core.settings import get_settings
from tests.tiny import make_tiny_checkpoint, save_tiny, tiny_model

FAMILIES = ("bert", "distilbert", "roberta")
HEADS = ("classification", "regression", "question_answering")
RATE = 3e-3


def make_raw(folder: Path, family: str = "bert") -> Path:
    """A tiny encoder without a head, as its base model saves it, with its tokenizer."""
    save_tiny(tiny_model(family), folder)
    model = load_model(folder).base_model
    model.config.architectures = None
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_raw(tmp_path_factory.mktemp("raw") / "encoder")


def spec_of(raw: Path, csv: Path, **changes: object) -> FinetuneSpec:
    values = {"epochs": 2, "learning_rate": RATE, "device": "cpu", "train_file": str(csv), **changes}
    return FinetuneSpec(str(raw), "csv", **values)  # type: ignore[arg-type]


def test_a_raw_encoder_is_recognized_and_the_refusal_says_what_to_do(raw: Path) -> None:
    assert not describe(raw).head_trained
    assert resolve(str(raw), "csv").source == "folder"
    with pytest.raises(CheckpointError, match="raw encoder, its head is not trained; fine-tune it") as caught:
        load_model(raw)
    assert "\n" not in str(caught.value)


def test_heads_of_pretraining_are_left_in_the_file(tmp_path: Path) -> None:
    folder = save_tiny(tiny_model("bert"), tmp_path / "masked")
    config = dense_config("bert", read_config(folder / "config.json"))
    BertForMaskedLM(config).save_pretrained(folder)
    assert not describe(folder).head_trained
    model = with_new_head(folder, "classification", ("a", "b", "c"), seed=0)
    assert model.config.id2label == {0: "a", 1: "b", 2: "c"}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("head", HEADS)
def test_every_encoder_takes_every_head(tmp_path: Path, family: str, head: str) -> None:
    folder = make_raw(tmp_path / "raw", family)
    labels = ("a",) if head == "regression" else ("a", "b")
    first, again, other = (with_new_head(folder, head, labels, seed) for seed in (0, 0, 1))  # type: ignore[arg-type]
    assert type(first) is dense_class(family, head)  # type: ignore[arg-type]
    differing = set()
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
        if not torch.equal(tensor, other.state_dict()[name]):
            differing.add(name)
    assert differing
    assert not any(name.startswith(f"{family}.") for name in differing), "the encoder does not depend on the seed"
    first.save_pretrained(folder)
    info = describe(folder)
    assert (info.head_trained, info.head, info.family) == (True, head, family)


def test_it_learns_the_task_and_can_be_used(raw: Path, tiny_csv: Path, tmp_path: Path) -> None:
    told: list[Progress] = []
    found = finetune_checkpoint(spec_of(raw, tiny_csv, epochs=5), tmp_path / "out", on_progress=told.append)
    assert found["score"] > 0.8
    assert found["labels"] == ["negative", "positive"]
    assert found["samples"] == 80
    assert [progress.stage for progress in told] == sorted(
        (progress.stage for progress in told), key=["loading", "training", "evaluation", "saving"].index
    )
    assert describe(tmp_path / "out").labels == ("negative", "positive")
    assert load_model(tmp_path / "out").config.num_labels == 2
    assert load_tokenizer(tmp_path / "out")("win")["input_ids"]
    assert card.read_origin(tmp_path / "out").source == "encoder"
    assert (found["base_revision"], found["base_fingerprint"]) == (None, checkpoints.fingerprint(raw))
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def test_the_same_seed_gives_the_same_weights(raw: Path, tiny_csv: Path, tmp_path: Path) -> None:
    spec = spec_of(raw, tiny_csv, epochs=1)
    for name in ("first", "second"):
        finetune_checkpoint(spec, tmp_path / name)
    first, second = (checkpoints.fingerprint(tmp_path / name) for name in ("first", "second"))
    assert first == second


def test_nothing_is_written_over_or_left_behind(raw: Path, tiny_csv: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(SpecError, match="full exists already"):
        finetune_checkpoint(spec_of(raw, tiny_csv), tmp_path / "full")

    def cancel(progress: Progress) -> None:
        if progress.stage == "training" and progress.stage_fraction > 0:
            raise JobCancelled("The run was cancelled.")

    with pytest.raises(JobCancelled):
        finetune_checkpoint(spec_of(raw, tiny_csv), tmp_path / "out", on_progress=cancel)
    assert {path.name for path in tmp_path.iterdir()} == {"full"}


def test_a_pruned_model_is_refused(tiny_checkpoint: Path, tiny_csv: Path, tmp_path: Path, raw: Path) -> None:
    pruned = Path(shutil.copytree(tiny_checkpoint, tmp_path / "pruned"))
    (pruned / "pgb.json").write_text("{}")
    with pytest.raises(CheckpointError, match="is pruned already"):
        finetune_checkpoint(spec_of(pruned, tiny_csv), tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": 0}, "epochs 0"),
        ({"epochs": 1000}, "epochs 1000"),
        ({"learning_rate": 0.0}, "learning rate 0.0"),
        ({"learning_rate": 1.0}, "learning rate 1.0"),
        ({"seed": -1}, "seed -1"),
        ({"label_map": ["good"]}, "label map"),
    ],
)
def test_what_is_out_of_range_is_told(raw: Path, tiny_csv: Path, changes: dict[str, object], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        spec_of(raw, tiny_csv, **changes)


# --- command line and jobs -----------------------------------------------------------------------------------------


def test_the_command_line_answers_in_json(
    raw: Path, tiny_csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["finetune", "--checkpoint", str(raw), "--task", "csv", "--train-file", str(tiny_csv), "--json"]
    arguments += ["--out", str(tmp_path / "out"), "--epochs", "1", "--learning-rate", str(RATE), "--device", "cpu"]
    assert command_line.main(arguments) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["checkpoint"], answer["task"], answer["samples"]) == (str(tmp_path / "out"), "csv", 80)
    assert command_line.main(arguments) == 2
    output = capsys.readouterr()
    assert (output.out, output.err.count("\n")) == ("", 1)
    assert "exists already" in output.err


def test_a_job_writes_into_the_models_folder(tiny_csv: Path) -> None:
    models = get_settings().models_dir
    make_raw(models / "raw")
    job = jobs.submit_finetune(FinetuneSpec("raw", "csv", 1, RATE, device="cpu", train_file=str(tiny_csv)), "tuned")
    folder = get_settings().runs_dir / job
    deadline = time.monotonic() + 100
    while store.read_status(folder).active and time.monotonic() < deadline:
        time.sleep(0.2)
    run = store.find_run(get_settings().runs_dir, job, "finetune")
    assert run.status.state == "done", run.status.message
    assert run.result is not None
    assert run.result["task"] == "csv"
    assert run.spec["name"] == "tuned"
    assert checkpoints.list_checkpoints(get_settings()) == ["demo", "raw", "tuned"]
    assert store.list_own(get_settings().runs_dir) == []
    with pytest.raises(JobRejected, match="already"):
        jobs.submit_finetune(FinetuneSpec("raw", "csv", train_file=str(tiny_csv)), "tuned")


@pytest.mark.parametrize("name", ["", "../out", "a/b", ".hidden", "demo", "x" * 200])
def test_a_job_takes_no_path_for_a_name(name: str, tiny_csv: Path) -> None:
    with pytest.raises(PGBError):
        jobs.submit_finetune(FinetuneSpec("raw", "csv", train_file=str(tiny_csv)), name)
    assert list(get_settings().runs_dir.iterdir()) == []


def test_a_trained_checkpoint_gets_another_head(tmp_path: Path, tiny_csv: Path) -> None:
    folder = make_tiny_checkpoint(tmp_path / "four", labels=("a", "b", "c", "d"), train=False)
    found = finetune_checkpoint(spec_of(folder, tiny_csv, epochs=1), tmp_path / "out")
    assert found["labels"] == ["negative", "positive"]

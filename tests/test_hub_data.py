"""Tasks of the Hub, through the real `datasets`, from copies with the same schema."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
from huggingface_hub import constants

from pgb_core.errors import JobCancelled, TaskError
from pgb_core.settings import get_settings
from pgb_core.tasks import TASKS, load_task
from tests.hub_copy import ROWS, sentences, write_glue, write_squad

GLUE = [task.name for task in TASKS.values() if task.source and task.source.repository == "nyu-mll/glue"]
SST2 = {0: "negative", 1: "positive"}
SQUAD = {
    "question": ["Who won?", "When?", "Where?"] * 4,
    "context": ["The team won.", "It was a day in May.", "At the house."] * 4,
    "answers": [
        {"text": ["The team", "team"], "answer_start": [0, 4]},
        {"text": ["May"], "answer_start": [16]},
        {"text": [], "answer_start": []},
    ]
    * 4,
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGB_DATA_DIR", str(tmp_path_factory.mktemp("glue")))
        return write_glue()


@pytest.fixture
def glue(written: Path) -> Path:
    """A copy of all of GLUE that the test may change."""
    return Path(shutil.copytree(written, get_settings().data_dir / "nyu-mll" / "glue"))


def refused(words: str, name: str, id2label: dict[int, str]) -> None:
    with pytest.raises(TaskError) as caught:
        load_task(name, id2label=id2label)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", GLUE)
def test_every_task_of_glue_has_its_texts_labels_and_splits(glue: Path, name: str) -> None:
    task = TASKS[name]
    labels = task.labels or ("similarity",)
    data = load_task(name, id2label=dict(enumerate(labels)))
    paired = len(task.text_columns) > 1
    assert data.train.column_names == (["text", "text_pair", "label"] if paired else ["text", "label"])
    # the copy has other sentences in each column and split; a third split, without labels, is never read
    splits = {"mnli": 10, "mnli_mismatched": 10}
    assert data.train["text"][:] == sentences(ROWS, 0)
    assert data.evaluation["text"][:] == sentences(ROWS, splits.get(name, 10))
    if paired:
        assert data.train["text_pair"][:] == sentences(ROWS, 1)
    if task.labels:
        assert data.train["label"][:3] == [0, 1, 2 % len(labels)]
    else:
        assert data.train["label"][:3] == pytest.approx([0.0, 0.2, 0.4])
    assert data.note is None


def test_glue_names_what_the_literature_reports() -> None:
    metrics = {name: (TASKS[name].metric, *TASKS[name].secondary) for name in (*GLUE, "squad", "squad_v2")}
    assert metrics["cola"][0] == "matthews"
    assert metrics["stsb"] == ("pearson_spearman", "pearson", "spearman")
    assert metrics["mrpc"] == metrics["qqp"] == ("f1", "accuracy")
    assert metrics["squad"] == metrics["squad_v2"] == ("f1", "exact_match")
    assert all(metrics[name] == ("accuracy",) for name in ("sst2", "qnli", "rte", "mnli", "mnli_mismatched"))
    sources = [TASKS[name].source for name in metrics]
    assert all(source is not None and len(source.revision) == 40 for source in sources)


def test_mismatched_is_the_evaluation_split_alone(glue: Path) -> None:
    file = glue / "mnli" / "validation_mismatched-00000-of-00001.parquet"
    changed = pd.read_parquet(file).assign(premise="other genre")
    datasets.Dataset.from_pandas(changed, preserve_index=False).to_parquet(file)
    names = dict(enumerate(("entailment", "neutral", "contradiction")))
    matched, mismatched = (load_task(name, id2label=names) for name in ("mnli", "mnli_mismatched"))
    assert set(mismatched.evaluation["text"]) == {"other genre"}
    assert "other genre" not in [*matched.evaluation["text"], *mismatched.train["text"]]
    assert matched.train["text"][:] == mismatched.train["text"][:]


def test_labels_follow_the_checkpoint(glue: Path) -> None:
    assert load_task("sst2", id2label={0: "POSITIVE", 1: "NEGATIVE"}).train["label"][:3] == [1, 0, 1]
    assert load_task("mrpc", id2label={0: "not_equivalent", 1: "equivalent"}).task.positive == 1
    assert load_task("mrpc", id2label={0: "equivalent", 1: "not_equivalent"}).task.positive == 0
    backwards = {0: "CONTRADICTION", 1: "NEUTRAL", 2: "ENTAILMENT"}  # roberta-large-mnli's
    assert load_task("mnli", id2label=backwards).train["label"][:3] == [2, 1, 0]
    refused("do not include 'not_entailment' of task qnli", "qnli", {0: "entailment", 1: "neutral"})


def test_labels_without_names_are_taken_in_order_and_that_is_said(glue: Path) -> None:
    data = load_task("mnli", id2label={0: "LABEL_0", 1: "LABEL_1", 2: "label_2"})
    assert data.train["label"][:3] == [0, 1, 2]
    assert data.label_names == ("LABEL_0", "LABEL_1", "label_2")
    assert "0 is entailment, 1 is neutral, 2 is contradiction" in (data.note or "")
    refused("do not include 'negative'", "sst2", {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"})
    refused("do not include 'entailment'", "mnli", {0: "LABEL_0", 1: "LABEL_1"})


def test_the_order_of_the_names_in_the_data_decides_what_its_numbers_mean(glue: Path) -> None:
    for file in (glue / "sst2").iterdir():
        rows = pd.read_parquet(file)
        features = datasets.Features(
            sentence=datasets.Value("string"),
            label=datasets.ClassLabel(names=["positive", "negative"]),
            idx=datasets.Value("int32"),
        )
        datasets.Dataset.from_pandas(rows, features=features, preserve_index=False).to_parquet(file)
    assert load_task("sst2", id2label=SST2).train["label"][:2] == [1, 0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"label": -1}, "without a label"),
        ({"sentence": None}, "has no column 'sentence'"),
    ],
)
def test_data_of_another_form_is_refused(glue: Path, change: dict[str, Any], words: str) -> None:
    for file in (glue / "sst2").iterdir():
        rows = pd.read_parquet(file)
        for column, value in change.items():
            rows = rows.drop(columns=column) if value is None else rows.assign(**{column: value})
        rows.to_parquet(file)  # without the names of the labels, too
    refused(words, "sst2", SST2)


def test_a_damaged_copy_says_where_it_is_wrong(glue: Path) -> None:
    (glue / "sst2" / "train-00000-of-00001.parquet").write_bytes(b"no parquet")
    refused("cannot be loaded from the server's copy", "sst2", SST2)


@pytest.mark.parametrize(("task", "answerable"), [("squad", [1, 1]), ("squad_v2", [1, 1, 0])])
def test_squad_has_questions_paragraphs_and_answers(task: str, answerable: list[int]) -> None:
    rows = {
        name: [value for n, value in enumerate(values) if n % 3 < len(answerable)] for name, values in SQUAD.items()
    }
    write_squad(rows, rows, task)
    data = load_task(task, id2label={0: "LABEL_0", 1: "LABEL_1"}, head="question_answering")
    assert data.train["label"][: len(answerable)] == answerable
    assert data.evaluation[0] == {
        "text": "Who won?",
        "text_pair": "The team won.",
        "answers": ["The team", "team"],
        "starts": [0, 4],
        "label": 1,
    }
    assert data.note is None


# --- the Hub itself ------------------------------------------------------------------------------------------------


@pytest.fixture
def silent_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", endpoint)
        yield


@pytest.mark.parametrize("task", ["sst2", "squad"])
def test_out_of_reach_is_one_line(task: str) -> None:
    refused("cannot be loaded from the Hub", task, SST2)


def test_a_hub_that_never_answers_is_given_up_within_five_seconds(silent_hub: None) -> None:
    begin = time.monotonic()
    refused("cannot be loaded from the Hub", "sst2", SST2)
    assert time.monotonic() - begin < 5.0
    assert not constants.HF_HUB_OFFLINE  # only meanwhile


def test_a_copy_is_read_without_asking_the_hub(glue: Path, silent_hub: None) -> None:
    begin = time.monotonic()
    load_task("rte", id2label={0: "entailment", 1: "not_entailment"})
    assert time.monotonic() - begin < 3.0


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_cancel_while_a_data_set_is_loaded_is_a_cancel(monkeypatch: pytest.MonkeyPatch, wrapped: bool) -> None:
    def load(*arguments: Any, **options: Any) -> None:
        try:
            raise JobCancelled("The run was cancelled.")
        except JobCancelled as error:
            if wrapped:  # as `datasets` does when it is interrupted while it prepares a split
                raise datasets.exceptions.DatasetGenerationError("while generating") from error
            raise

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(JobCancelled):
        load_task("sst2", id2label=SST2)


def test_the_pinned_revision_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def load(path: str, config: str, **options: Any) -> None:
        asked.append((path, config, options["revision"]))
        raise ConnectionError

    monkeypatch.setattr(datasets, "load_dataset", load)
    refused("from the Hub (ConnectionError)", "squad", SST2)
    assert asked == [("rajpurkar/squad", "plain_text", "7b6d24c440a36b6815f21b70d25016731768db1f")]
    assert not (get_settings().data_dir / "rajpurkar").exists()

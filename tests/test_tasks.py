from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pgb_core import demo
from pgb_core.data_files import Columns
from pgb_core.errors import TaskError
from pgb_core.families import Head
from pgb_core.tasks import TASKS, load_task
from tests.tiny import make_tiny_csv

NAMES = {0: "negative", 1: "positive"}
QNLI = {0: "entailment", 1: "not_entailment"}


def table(tmp_path: Path, rows: dict[str, list[Any]], name: str = "data.csv") -> Path:
    file = tmp_path / name
    frame = pd.DataFrame(rows)
    frame.to_parquet(file) if file.suffix == ".parquet" else frame.to_csv(file, index=False)
    return file


def refused(words: str, **arguments: Any) -> None:
    with pytest.raises(TaskError) as caught:
        load_task(arguments.pop("name", "csv"), id2label=arguments.pop("id2label", NAMES), **arguments)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_the_module_is_light() -> None:
    heavy = "('torch', 'transformers', 'datasets', 'pandas', 'sklearn', 'scipy')"
    code = f"import sys, pgb_core.tasks; sys.exit(sum(name in sys.modules for name in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_tasks_are_named_by_their_key() -> None:
    glue = ["sst2", "qnli", "mnli", "mnli_mismatched", "qqp", "mrpc", "rte", "cola", "stsb"]
    assert list(TASKS) == ["bbc-news", "tweets", "csv", *glue, "squad", "squad_v2"]
    assert all(key == task.name and task.title and task.description.endswith(".") for key, task in TASKS.items())


def test_a_file_is_split_in_stratified_fifths(tiny_csv: Path) -> None:
    data = load_task("csv", id2label=NAMES, train_file=tiny_csv)
    assert (len(data.train), len(data.evaluation)) == (320, 80)
    assert Counter(data.evaluation["label"]) == {0: 40, 1: 40}
    assert data.label_names == ("negative", "positive")
    assert data.train.column_names == ["text", "label"]
    whole = pd.read_csv(tiny_csv)
    both = [*data.train["text"], *data.evaluation["text"]]
    assert sorted(both) == sorted(whole["text"])
    named = dict(zip(whole["text"], whole["label"], strict=True))
    assert all(NAMES[row["label"]] == named[row["text"]] for row in [*data.train, *data.evaluation])


def test_the_split_depends_on_the_seed_alone(tiny_csv: Path) -> None:
    parts = [
        load_task("csv", id2label=NAMES, train_file=tiny_csv, seed=seed).evaluation["text"][:] for seed in (1, 1, 2)
    ]
    assert parts[0] == parts[1] != parts[2]


def test_an_evaluation_file_is_taken_whole(tiny_csv: Path, tmp_path: Path) -> None:
    other = make_tiny_csv(tmp_path / "other.csv", rows=10, seed=3)
    data = load_task("csv", id2label=NAMES, train_file=tiny_csv, eval_file=other)
    assert (len(data.train), len(data.evaluation)) == (400, 10)


@pytest.mark.parametrize(
    ("labels", "id2label", "expected"),
    [
        (["negative", "positive"], NAMES, [0, 1]),
        (["Positive", " NEGATIVE "], NAMES, [1, 0]),
        ([1, 0], NAMES, [1, 0]),
        (["0", "1"], {0: "1", 1: "0"}, [1, 0]),  # names go before ids
        (["Not-Entailment", "entailment"], QNLI, [1, 0]),
        (["+", "-"], {0: "-", 1: "+"}, [1, 0]),
        (["-1", "0", "1"], {0: "-1", 1: "0", 2: "1"}, [0, 1, 2]),
        (["C", "C++", "C#"], {0: "C#", 1: "C", 2: "C++"}, [1, 2, 0]),
        (["us", "US", "Us "], {0: "US", 1: "us", 2: "Us"}, [1, 0, 2]),  # as they are, where case tells them apart
        (["a b", "A_B"], {0: "a_b", 1: "a b"}, [1, 0]),  # and where separators do
        (["0", "1"], {0: "x", 1: "x"}, [0, 1]),
        ([2, 0], {0: "a", 1: "b", 2: "c"}, [2, 0]),
    ],
)
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_labels_are_names_or_ids(
    tmp_path: Path, labels: list[Any], id2label: dict[int, str], expected: list[int], suffix: str
) -> None:
    file = table(tmp_path, {"text": ["words"] * 8 * len(labels), "label": labels * 8}, f"data.{suffix}")
    data = load_task("csv", id2label=id2label, train_file=file, eval_file=file)
    assert data.train["label"][:] == expected * 8


@pytest.mark.parametrize(
    ("label", "id2label"),
    [
        ("c", {0: "C++", 1: "Java"}),
        ("-1", {0: "0", 1: "1"}),
        ("Us", {0: "US", 1: "us"}),
        ("a-b", {0: "a_b", 1: "a b"}),
        ("x", {0: "x", 1: "x "}),
    ],
)
def test_a_label_that_names_none_or_several_is_refused(tmp_path: Path, label: str, id2label: dict[int, str]) -> None:
    file = table(tmp_path, {"text": ["words"] * 9, "label": [id2label[1]] * 8 + [label]})
    refused("names none, or several, of the checkpoint's labels", id2label=id2label, train_file=file)


def test_pairs_tabs_byte_order_marks_and_other_columns_are_read(tmp_path: Path) -> None:
    file = tmp_path / "data.tsv"
    rows = "7\tNA\tnull\t1\n8\té, è\tb\t0\n" * 4
    file.write_text(f"\ufeffid\ttext\ttext_pair \tlabel\n{rows}", encoding="utf-8")
    data = load_task("csv", id2label=NAMES, train_file=file, eval_file=file)
    assert data.train.column_names == ["text", "text_pair", "label"]
    assert data.train[:2] == {"text": ["NA", "é, è"], "text_pair": ["null", "b"], "label": [1, 0]}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ({"sentence": ["a"], "label": ["positive"]}, "has the columns sentence, label, but needs one called 'text'"),
        ({"text": ["a"], "target": ["positive"]}, "needs one called 'label'"),
        ({"text": ["a", "b"], "label": ["positive", "neutral"]}, "row 2 of data.csv has the label 'neutral'"),
        ({"text": ["a", "b"], "label": [0, 2]}, "row 2 of data.csv has the label '2'"),
        ({"text": ["a", "b"], "label": ["positive", None]}, "row 2 of data.csv has the label ''"),
        ({"text": ["a", " "], "label": ["positive", "positive"]}, "row 2 of data.csv has no text"),
        ({"text": [], "label": []}, "has no rows"),
        ({"text": ["a", "b"], "label": ["positive", "negative"]}, "too few rows to hold a fifth out"),
        ({"text": ["a"] * 9, "label": ["positive"] * 9}, "task csv leaves 7 rows to train on"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path: Path, rows: dict[str, list[Any]], words: str) -> None:
    refused(words, train_file=table(tmp_path, rows))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("data.txt", b"text,label\n", "neither .csv"),
        ("data.csv", b"", "cannot be read as a table"),
        ("data.csv", b"text,label\n\xff\xfe,positive\n", "is not UTF-8"),
        ("data.csv", b'text,label\n"a,positive\n', "cannot be read as a table"),
        ("data.csv", b"text,label\na,positive\na,b,c,d\n", "cannot be read as a table"),
        ("data.csv", b"text,label\na,b,positive\n" * 10, "row 1 of data.csv has more cells than the header"),
        ("data.csv", b"text,label\na,b,positive\nc,positive\n", "row 1 of data.csv has more cells than the header"),
        ("data.tsv", b"text\tlabel\na\tpositive\t\n", "row 1 of data.tsv has more cells than the header"),
        ("data.parquet", b"text,label\n", "cannot be read as a table"),
        ("data.csv", b"text,text,label\n" + b"a,b,positive\n" * 8, None),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, name: str, content: bytes, words: str | None) -> None:
    (tmp_path / name).write_bytes(content)
    if words is None:  # pandas renames the second `text`: read as another column
        assert load_task("csv", id2label=NAMES, train_file=tmp_path / name, eval_file=tmp_path / name).train["text"][0]
    else:
        refused(words, train_file=tmp_path / name)


def test_missing_files_and_unlike_files_are_refused(tmp_path: Path, tiny_csv: Path) -> None:
    refused("needs a training file")
    refused("there is no file", train_file=tmp_path / "none.csv")
    refused("there is no file", train_file=tmp_path)
    pairs = table(tmp_path, {"text": ["a"], "text_pair": ["b"], "label": ["positive"]})
    refused("only one of the two files", train_file=tiny_csv, eval_file=pairs)
    refused("unknown task 'wnli'", name="wnli")


def test_bbc_news_is_split_the_same_way_for_every_seed_and_order_of_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = TASKS["bbc-news"].labels or ()
    texts = pd.DataFrame({"text": [f"text {i}" for i in range(100)], "label": [labels[i % 5] for i in range(100)]})
    monkeypatch.setattr(demo, "load_texts", lambda name: texts.copy())
    backwards = dict(enumerate(reversed(labels)))
    first, second = (load_task("bbc-news", id2label=backwards, seed=seed) for seed in (0, 1))
    assert first.evaluation["text"][:] == second.evaluation["text"][:]
    forwards = load_task("bbc-news", id2label=dict(enumerate(labels)))
    assert first.evaluation["text"][:] == forwards.evaluation["text"][:]
    assert not set(first.evaluation["text"]) & set(first.train["text"])
    assert Counter(first.evaluation["label"]) == dict.fromkeys(range(5), 4)
    number = int(first.train["text"][0].split()[1])
    assert backwards[first.train["label"][0]] == labels[number % 5]


def test_a_regression_reads_numbers_and_holds_a_fifth_of_each_range_out(tmp_path: Path) -> None:
    values = [n / 10 for n in range(50)]
    file = table(tmp_path, {"text": ["words"] * 50, "label": values[::-1]})
    data = load_task("csv", id2label={0: "LABEL_0"}, train_file=file)
    assert (data.task.head, data.task.metric) == ("regression", "pearson_spearman")
    assert data.note is None
    assert sorted([*data.train["label"], *data.evaluation["label"]]) == values
    assert Counter(int(value) for value in data.evaluation["label"]) == dict.fromkeys(range(5), 2)
    refused(
        "whose labels are numbers",
        id2label={0: "LABEL_0"},
        train_file=table(tmp_path, {"text": ["a"], "label": ["nan"]}),
    )


@pytest.mark.parametrize(
    ("name", "head", "words"),
    [
        (
            "sst2",
            "regression",
            "but this checkpoint is a regression of one number; choose csv or stsb",
        ),
        ("stsb", "classification", "is for a regression"),
        ("squad", "classification", "is for a question answering model, but this checkpoint is a sequence"),
        ("csv", "question_answering", "this checkpoint is a question answering model; choose squad or squad_v2"),
    ],
)
def test_a_head_that_the_task_is_not_for_is_refused(name: str, head: Head, words: str) -> None:
    refused(words, name=name, head=head)


def test_columns_and_labels_are_mapped(tmp_path: Path) -> None:
    rows = {"review": ["good", "bad"] * 8, "about": ["x", "y"] * 8, "stars": [5, 1] * 8, "text": ["no", "no"] * 8}
    file = table(tmp_path, rows)
    columns = Columns("review", "about", "stars", ("5=positive", "1=NEGATIVE"))
    data = load_task("csv", id2label=NAMES, train_file=file, eval_file=file, columns=columns)
    assert data.train[:2] == {"text": ["good", "bad"], "text_pair": ["x", "y"], "label": [1, 0]}

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from pgb_core.data_files import Columns, preview, read_table
from pgb_core.errors import SpecError, TaskError

NAMES = {0: "negative", 1: "positive"}


def write(file: Path, rows: list[dict[str, Any]]) -> Path:
    table = pd.DataFrame(rows)
    if file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif file.suffix == ".parquet":
        table.to_parquet(file)
    else:
        table.to_csv(file, index=False, sep="\t" if file.suffix == ".tsv" else ",")
    return file


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.parquet", "a.jsonl"])
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    rows = [{"text": "NA", "other": 1, "label": 1}, {"text": "2020", "other": 2, "label": 0}]
    found = read_table(write(tmp_path / name, rows), Columns(), NAMES)[0]
    assert found.to_dict(orient="list") == {"text": ["NA", "2020"], "label": [1, 0]}


@pytest.mark.parametrize("label", [True, "positive", "1", 1, 1.0])
def test_labels_of_jsonl_may_be_of_any_kind(tmp_path: Path, label: object) -> None:
    file = write(tmp_path / "a.jsonl", [{"text": "a", "label": label}])
    columns = Columns(labels=("True=positive",)) if label is True else Columns()
    assert read_table(file, columns, NAMES)[0]["label"].tolist() == [1]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"text": "a", "label": 1}\n{"text": "a"', "cannot be read as a table"),
        ('{"text": "a", "label": 1}\n{"text": "a"}\n', "row 2 of a.jsonl has the label ''"),
        ('{"text": 7, "label": 1}\n', "row 1 of a.jsonl has a text that is no text"),
        ('{"text": null, "label": 1}\n', "row 1 of a.jsonl has no text"),
        ("", "needs one called 'text'"),
        ("[1, 2]\n", "needs one called 'text'"),
    ],
)
def test_broken_lines_are_told_in_one_line(tmp_path: Path, content: str, words: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(content)
    with pytest.raises(TaskError) as caught:
        read_table(file, Columns(), NAMES)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_label_names_inside_a_parquet_file_decide(tmp_path: Path) -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["positive", "negative"])})
    Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]}, features=features).to_parquet(tmp_path / "a.parquet")
    found, note = read_table(tmp_path / "a.parquet", Columns(), NAMES)
    assert (found["label"].tolist(), note) == ([1, 0], None)


@pytest.mark.parametrize(
    "said",
    [
        b"{",
        b"[]",
        b"\xff",
        b'{"info": {"features": {"label": {"_type": "ClassLabel"}}}}',
        b'{"info": {"features": {"absent": {"_type": "ClassLabel", "names": ["a"]}}}}',
        b'{"info": {"features": {"lists": {"_type": "ClassLabel", "names": ["a"]}}}}',
    ],
)
def test_what_a_parquet_file_says_otherwise_is_left_alone(tmp_path: Path, said: bytes) -> None:
    table = pa.table({"text": ["a", "b"], "label": [0, 1], "lists": [[0], [1]]}).replace_schema_metadata(
        {b"huggingface": said}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet", Columns(), NAMES)[0]["label"].tolist() == [0, 1]


def test_a_missing_label_is_none_and_not_a_name(tmp_path: Path) -> None:
    labels = pd.array([1, None, 0], dtype="Int64")
    pd.DataFrame({"text": ["a", "b", "c"], "label": labels}).to_parquet(tmp_path / "a.parquet")
    assert {value for value, _ in preview(tmp_path / "a.parquet").values["label"]} == {"1", "", "0"}
    with pytest.raises(TaskError, match=r"row 2 of a\.parquet has the label ''"):
        read_table(tmp_path / "a.parquet", Columns(), NAMES)


def test_columns_go_by_the_users_names(tmp_path: Path) -> None:
    rows = [{"premise": "a", "text_pair": "b", "hypothesis": "c", "gold": "yes"}] * 2
    file = write(tmp_path / "a.csv", rows)
    yes = ("yes=positive",)
    pair, _ = read_table(file, Columns("premise", "hypothesis", "gold", yes), NAMES)
    assert pair.iloc[0].to_dict() == {"text": "a", "text_pair": "c", "label": 1}
    assert read_table(file, Columns("premise", None, "gold", yes), NAMES)[0]["text_pair"].tolist() == ["b", "b"]
    assert "text_pair" not in read_table(file, Columns("premise", "", "gold", yes), NAMES)[0]
    assert "text_pair" not in read_table(file, Columns("text_pair", None, "gold", yes), NAMES)[0]
    for wrong, name in ((Columns("body", label="gold"), "body"), (Columns("premise", "more", "gold"), "more")):
        with pytest.raises(TaskError, match=f"needs one called '{name}'"):
            read_table(file, wrong, NAMES)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"text": "a", "pair": "a"}, "cannot be two of"),
        ({"text": "label"}, "cannot be two of"),
        ({"labels": ("a",)}, "is not VALUE=LABEL"),
        ({"labels": ("=a",)}, "is not VALUE=LABEL"),
        ({"labels": ("a=b", "a=c")}, "names 'a' twice"),
    ],
)
def test_columns_that_cannot_be_meant_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        Columns(**values)


def test_the_last_sign_divides_value_from_label() -> None:
    assert Columns(labels=("a=b=positive",)).renamed == {"a=b": "positive"}


def test_a_regression_reads_finite_numbers(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", [{"text": "a", "label": "3.75"}, {"text": "b", "label": " -1 "}])
    assert read_table(file, Columns(), {0: "LABEL_0"})[0]["label"].tolist() == [3.75, -1.0]
    for wrong in ("high", "inf", ""):
        with pytest.raises(TaskError, match=r"row 1 of b\.csv"):
            read_table(write(tmp_path / "b.csv", [{"text": "a", "label": wrong}]), Columns(), {0: "LABEL_0"})


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"text": "t", "label": "l"}, ("text", "", "label")),
        ({"label": "l", "text": "t", "text_pair": "p"}, ("text", "text_pair", "label")),
        ({"Premise": "t", "Hypothesis": "p", "Class": "l"}, ("Premise", "Hypothesis", "Class")),
        ({"question1": "t", "question2": "p", "label": "l"}, ("question1", "question2", "label")),
        ({"id": "1", "body": "words", "verdict": "l"}, ("body", "", "verdict")),
        ({"only": "t"}, ("text", "", "label")),
    ],
)
def test_columns_are_guessed_by_name_or_by_what_they_hold(
    tmp_path: Path, row: dict[str, str], expected: tuple[str, str, str]
) -> None:
    rows = [{name: value if value == "l" else f"{value}{n}" for name, value in row.items()} for n in range(150)]
    guess = preview(write(tmp_path / "a.csv", rows)).guess()
    assert (guess.text or "text", guess.pair or "", guess.label or "label") == expected


def test_a_column_that_never_varies_is_no_label(tmp_path: Path) -> None:
    rows = [{"stars": n % 3, "review": "quite a long text", "text_pair": "more"} for n in range(9)]
    guess = preview(write(tmp_path / "a.csv", rows)).guess()
    assert guess == Columns("review", "text_pair", "stars")


def test_a_preview_counts_values(tmp_path: Path) -> None:
    rows = [{"text": f"words {n}", "label": "b" if n % 3 else "a"} for n in range(150)]
    found = preview(write(tmp_path / "a.csv", rows))
    assert (found.columns, found.rows) == (("text", "label"), 150)
    assert found.values == {"label": (("b", 100), ("a", 50))}

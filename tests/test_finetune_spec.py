"""What head a task needs, and which labels in which order."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgb_core.data_files import Columns, preview
from pgb_core.errors import TaskError
from pgb_core.finetune_spec import labels_for


def test_labels_and_their_order_come_from_the_task() -> None:
    assert labels_for("tweets", None, Columns()) == ("classification", ("negative", "neutral", "positive"))
    assert labels_for("stsb", None, Columns()) == ("regression", ("value",))
    assert labels_for("squad", None, Columns())[0] == "question_answering"
    with pytest.raises(TaskError, match="unknown task"):
        labels_for("nothing", None, Columns())


@pytest.mark.parametrize(
    ("values", "head", "labels"),
    [
        (["b", "a", "b"], "classification", ("a", "b")),
        (["10", "9", "1"], "classification", ("1", "9", "10")),
        (["1.5", "2", "3"], "regression", ("value",)),
        ([str(number) for number in range(150)], "regression", ("value",)),
    ],
)
def test_labels_of_a_file_are_its_values(tmp_path: Path, values: list[str], head: str, labels: tuple[str, ...]) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("text,verdict\n" + "\n".join(f"t{n},{value}" for n, value in enumerate(values)))
    found = preview(file)
    assert labels_for("csv", found, Columns(label="verdict")) == (head, labels)
    with pytest.raises(TaskError, match="no column 'label'"):
        labels_for("csv", found, Columns())


def test_a_column_of_many_texts_is_no_label(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("text,label\n" + "".join(f"t,{n}\n" for n in range(150)) + "t,many\n")
    with pytest.raises(TaskError, match="column 'label' has more than 100 different values, not all of them numbers"):
        labels_for("csv", preview(file), Columns())


def test_values_can_be_given_names(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("text,label\na,1\nb,2\nc,5\n")
    columns = Columns(labels=("1=bad", "2=bad", "5=good"))
    assert labels_for("csv", preview(file), columns) == ("classification", ("bad", "good"))
    with pytest.raises(TaskError, match="fewer than 2"):
        labels_for("csv", preview(file), Columns(labels=("1=x", "2=x", "5=x")))

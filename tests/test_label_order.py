from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgb_core.errors import TaskError
from pgb_core.label_order import ids_of_task, ids_of_values, nameless, order_note

NLI = ("entailment", "neutral", "contradiction")


@given(st.permutations(range(3)), st.sampled_from([str.lower, str.upper, str.title]))
def test_names_decide_in_whatever_order(order: list[int], spelled: object) -> None:
    id2label = {index: spelled(NLI[label]) for index, label in enumerate(order)}  # type: ignore[operator]
    ids = ids_of_task("mnli", NLI, id2label)
    assert [ids[label].__index__() for label in NLI] == [order.index(n) for n in range(3)]
    assert order_note(NLI, id2label) is None


@pytest.mark.parametrize("name", ["LABEL_{}", "label_{}", "{}"])
def test_numbers_are_taken_in_the_tasks_order(name: str) -> None:
    id2label = {index: name.format(index) for index in range(3)}
    assert nameless(id2label)
    assert ids_of_task("mnli", NLI, id2label) == {"entailment": 0, "neutral": 1, "contradiction": 2}
    assert "1 is neutral" in str(order_note(NLI, id2label))
    with pytest.raises(TaskError, match="do not include 'entailment'"):
        ids_of_task("mnli", NLI, {0: "LABEL_0", 1: "LABEL_1"})


@pytest.mark.parametrize("names", [("LABEL_1", "LABEL_0"), ("no", "LABEL_1"), ()])
def test_what_is_not_numbered_in_order_is_a_name(names: tuple[str, ...]) -> None:
    assert not nameless(dict(enumerate(names)))


def test_values_are_renamed_and_the_others_matched() -> None:
    names = {0: "negative", 1: "neutral", 2: "positive"}
    values = ["1", "Negative", "5", "neutral"]
    assert ids_of_values("f.csv", values, names, {"1": "negative", "5": "2"}) == ([0, 0, 2, 1], None)
    # a map may swap what names would say
    assert ids_of_values("f.csv", ["positive", "negative"], names, {"positive": "negative"}) == ([0, 0], None)


def test_numbers_taken_as_ids_are_told_where_labels_have_names() -> None:
    names = {0: "positive", 1: "negative"}
    told = "the labels of f.csv are numbers, taken as the checkpoint's: 0 is positive, 1 is negative"
    assert ids_of_values("f.csv", ["1", "0", "1"], names) == ([1, 0, 1], told)
    assert ids_of_values("f.csv", ["1", "0"], {0: "LABEL_0", 1: "LABEL_1"}) == ([1, 0], None)
    assert ids_of_values("f.csv", ["1", "0"], names, {"1": "positive", "0": "negative"}) == ([0, 1], None)


def test_labels_that_the_task_has_not_are_told() -> None:
    note = order_note(("negative", "positive"), {0: "negative", 1: "neutral", 2: "positive"})
    assert note is not None
    assert "also answers neutral, which this task has not" in note
    assert order_note((), {0: "any"}) is None


@pytest.mark.parametrize(
    ("renamed", "words"),
    [
        ({"4": "glad"}, "label '4' of f.csv is to stand for 'glad', which is none"),
        ({"7": "negative"}, "row 1 of f.csv has the label '4', which names none"),
        ({"4": "negative"}, "row 2 of f.csv has the label '5', which names none"),
    ],
)
def test_a_map_that_does_not_fit_is_told_in_one_line(renamed: dict[str, str], words: str) -> None:
    with pytest.raises(TaskError) as caught:
        ids_of_values("f.csv", ["4", "5"], {0: "negative", 1: "positive", 2: "neutral"}, renamed)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)

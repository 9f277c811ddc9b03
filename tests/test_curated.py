"""The list of well-known checkpoints fits our tasks and families."""

from __future__ import annotations

import pytest

from pgb_core import hub
from pgb_core.curated import Curated, curated, find
from pgb_core.families import FAMILIES
from pgb_core.label_order import ids_of_task
from pgb_core.tasks import TASKS


@pytest.mark.parametrize("entry", curated(), ids=lambda entry: entry.name)
def test_every_entry_is_of_a_family_and_for_a_task(entry: Curated) -> None:
    assert hub.split(entry.name) == (entry.name, None)
    assert entry.family in FAMILIES
    task = TASKS[entry.task]
    assert bool(entry.labels) == (task.head == "classification")
    if task.labels:
        names = dict(enumerate(entry.labels))
        assert sorted(ids_of_task(entry.task, task.labels, names).values()) == list(names)


def test_every_family_has_one_and_none_is_there_twice() -> None:
    names = [entry.name.casefold() for entry in curated()]
    assert len(set(names)) == len(names) >= 10
    assert {entry.family for entry in curated()} == set(FAMILIES)


def test_an_order_that_is_not_the_tasks_is_known() -> None:
    found = find("TextAttack/bert-base-uncased-mnli")
    assert found is not None
    assert found.labels == ("contradiction", "entailment", "neutral")
    assert found.labels != TASKS["mnli"].labels
    assert find("owner/name") is None

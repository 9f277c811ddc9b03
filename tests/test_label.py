"""A user's words on a run: bounded, plain, and read back as written."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgb_core.label import NAME_LENGTH, NOTES_LENGTH, Label

ANY_TEXT = st.text(st.characters(), max_size=300)


@given(ANY_TEXT, ANY_TEXT, st.booleans())
def test_any_text_becomes_a_label_that_stays_as_it_is(name: str, notes: str, pinned: bool) -> None:
    label = Label(name, notes, pinned)
    assert len(label.name) <= NAME_LENGTH
    assert len(label.notes) <= NOTES_LENGTH
    assert not {unicodedata.category(c) for c in label.name} & {"Cc", "Cs"}
    assert not {unicodedata.category(c) for c in label.notes.replace("\n", "")} & {"Cc", "Cs"}
    assert Label.from_dict(json.loads(json.dumps(asdict(label)))) == label


def test_words_of_every_script_stay() -> None:
    for text in ("Über 3 Köpfe", "网络剪枝", "می‌خواهم", "👩‍🔬 first", "a = b_c * **d** <b>"):
        assert Label(name=text).name == text


def test_text_cannot_disguise_itself() -> None:
    assert Label("safe\u202egnp.exe\x00\x1b[31m\u2066").name == "safegnp.exe[31m"
    assert Label("one\ntwo\tthree").name == "one two three"
    assert Label(notes="one\r\ntwo\rthree\x07\n").notes == "one\ntwo\nthree"


def test_long_text_is_cut() -> None:
    assert Label("x" * 5000).name == "x" * NAME_LENGTH
    assert Label(notes="x" * 50_000).notes == "x" * NOTES_LENGTH


@pytest.mark.parametrize(
    "values", [{}, {"name": 7, "notes": None, "pinned": "yes"}, {"name": ["a"], "notes": {}, "pinned": 1}, {"x": 1}]
)
def test_what_a_hand_broke_counts_as_not_given(values: dict[str, object]) -> None:
    assert Label.from_dict(values) == Label()

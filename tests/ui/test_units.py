"""Texts of strangers on a page."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ui import units


@given(st.text())
def test_what_strangers_wrote_is_one_printable_line(text: str) -> None:
    assert units.plain(text).isprintable()


def test_what_strangers_wrote_is_no_markdown() -> None:
    assert units.plain("![x](http://e.example)\n# red \x1b[31m\u202e") == (
        r"\!\[x\]\(http\://e.example\) \# red ?\[31m?"
    )


def test_of_what_a_link_says_the_beginning_is_quoted() -> None:
    assert units.quoted("<b>" + 100 * "x") == rf"“\<b\>{37 * 'x'}”"

"""An error is one line that can be printed, whatever strangers wrote into what it tells of."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgb_core.errors import CheckpointError, explain, one_line


@given(st.text(st.characters(), max_size=50))
def test_any_text_becomes_one_printable_line(text: str) -> None:
    line = str(CheckpointError(f"a tensor called {text}"))
    assert line.isprintable()
    assert line == one_line(line) == explain(CheckpointError(line))
    line.encode()


def test_what_can_be_printed_stays() -> None:
    line = "model.safetensors: “größe” is 5 × 3, not 漢字."
    assert str(CheckpointError(line)) == line


def test_lines_colors_and_directions_do_not() -> None:
    assert one_line("evil\nsecond\x1b[2J\u202etxt.exe\ud800") == "evil second?[2J?txt.exe?"

"""Pins and limits on groups."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgb_core.constraints import Constraints, Pin
from pgb_core.errors import SpecError
from pgb_core.layout import Kind

UNITS: dict[tuple[int, Kind], int] = {(layer, "attention"): 4 for layer in range(2)}
UNITS |= {(layer, "feed_forward"): 64 for layer in range(2)}


@given(st.builds(Pin, st.integers(0, 9999), st.sampled_from(["attention", "feed_forward"]), st.integers(1, 10**8)))
def test_a_pin_survives_its_text(pin: Pin) -> None:
    assert Pin.parse(str(pin)) == pin


def test_how_pins_can_be_written() -> None:
    assert Pin.parse("0.attention") == Pin.parse("0.attention:1") == Pin(0, "attention")
    assert Pin.parse("11.feed-forward:64") == Pin.parse("11.feed_forward:64") == Pin(11, "feed_forward", 64)


@pytest.mark.parametrize(
    "text", ["", "attention", "0.heads", "-1.attention", "0.attention:", "0.attention:0", "0.attention:-2", "0.5", "0"]
)
def test_what_is_no_pin_is_refused_with_examples(text: str) -> None:
    with pytest.raises(SpecError, match=r"examples: 0\.attention, 3\.attention:4") as caught:
        Pin.parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("pin", "message"),
    [
        ("2.attention", r"pin 2.attention: the model has layers 0\.\.1"),
        ("1.attention:5", "pin 1.attention:5: the sublayer has 4 heads"),
        ("1.feed_forward:65", "pin 1.feed_forward:65: the sublayer has 64 neurons"),
    ],
)
def test_pins_must_fit_the_model(pin: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Constraints(pins=(Pin.parse(pin),)).check(UNITS)
    Constraints(pins=(Pin(1, "attention", 4), Pin(0, "feed_forward", 64))).check(UNITS)


def test_what_is_admitted() -> None:
    constraints = Constraints(3, 4, (Pin(0, "attention"), Pin(1, "attention", 2), Pin(1, "attention", 3)))
    assert not constraints.admit(0, "attention", (0, 0, 0, 0), 0)
    assert constraints.admit(0, "feed_forward", (0, 0), 0)
    assert [constraints.admit(1, "attention", (1,) * 4, units) for units in (2, 3)] == [False, True]
    assert [constraints.admit(0, "feed_forward", (g, g), 8) for g in range(7)] == [True, True, False] + [True] * 2 + [
        False
    ] * 2
    assert not constraints.admit(0, "feed_forward", (1, 2), 8)  # one matrix is enough

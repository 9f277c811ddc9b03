"""Every sentence agrees with the numbers that it is made of, whatever matrix they come from."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgb_core.lesson import SIZE, STRUCTURED, Lesson, learn, preset
from pgb_core.narration import EVEN, STEPS, explain, look, title
from tests.test_lesson import few, lessons

NUMBERS = range(1, len(STEPS) + 1)


def percents(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"([\d.]+)%", text)]


@few
@given(lessons())
def test_the_winner_is_the_one_with_the_least_error(found: Lesson) -> None:
    verdict, *_ = explain(found)
    errors = {method: found.outcomes[method].error_after for method in STRUCTURED}
    least = min(errors.values())
    close = [method for method, error in errors.items() if error - least <= EVEN * error]
    assert percents(verdict)[0] == pytest.approx(100 * least, abs=0.051)
    if len(close) > 1:
        assert verdict.startswith("**Even")
        return
    (winner,) = close
    name = title(found, winner).replace("PGB,", "PGB with")
    assert re.match(rf"\*\*{name} wins?\*\* among", verdict)
    assert sorted(percents(verdict)) == pytest.approx(sorted(100 * error for error in errors.values()), abs=0.051)


@few
@given(lessons())
def test_the_reason_names_the_shares_of_importance_that_are_kept(found: Lesson) -> None:
    _, reason, *_ = explain(found)
    units = min((found.outcomes["rows"], found.outcomes["heads"]), key=lambda outcome: outcome.error_after)
    shares = sorted(round(100 * outcome.kept_importance) for outcome in (found.pgb, units))
    assert sorted(round(number) for number in percents(reason))[:2] == pytest.approx(shares, abs=1)
    if found.pgb.error_after < 0.9 * units.error_after:
        assert ("otherwise" in reason) == (found.pgb.kept_importance < units.kept_importance)
        assert "cut through" not in reason


def test_the_explanation_follows_the_numbers_not_the_preset() -> None:
    """The same matrix gets the same text, and scaled rows that are edited into blocks another one."""
    rows, blocks = preset("rows", 0), preset("planted", 0)
    ways = {"groups": 4, "density": 0.25, "correlation": 0.6}
    assert "**Whole rows win**" in explain(learn(rows, **ways))[0]
    assert "cut through these rows" in explain(learn(rows, **ways))[1]
    edited = rows.copy()
    edited[:] = blocks
    assert explain(learn(edited, **ways)) == explain(learn(blocks, **ways))
    assert "**PGB with 4 groups wins**" in explain(learn(edited, **ways))[0]


@few
@given(lessons(), st.sampled_from(NUMBERS))
def test_every_step_says_something_that_is_finished(found: Lesson, step: int) -> None:
    text = look(found, step)
    assert text.endswith(".")
    assert "nan" not in text
    assert "-" not in re.sub(r"[A-Za-z]-[a-z]", "", text)  # a minus is a minus, not a hyphen


@few
@given(lessons())
def test_steps_tell_their_numbers(found: Lesson) -> None:
    pgb = found.pgb
    largest = np.abs(found.matrix).max()
    assert f"{largest:.1f}" in look(found, 1)
    assert f"{pgb.kept_importance:.0%} of the importance in {found.density:.0%}" in look(found, 3)
    assert str(SIZE * SIZE - pgb.layout.kept) in look(found, 4)
    assert f"{pgb.layout.kept} multiplications" in look(found, 5)
    assert percents(look(found, 6))[:2] == pytest.approx([100 * pgb.error_before, 100 * pgb.error_after], abs=0.051)


def test_rows_in_no_group_are_mentioned_where_there_are_some() -> None:
    matrix = preset("random", 0)
    assert "6 least important rows" in look(learn(matrix, groups=2, density=0.25), 3)
    assert "no group" not in look(learn(matrix, groups=4, density=0.25), 3)


def test_independent_inputs_are_given_as_the_reason_why_the_refit_does_nothing() -> None:
    matrix = preset("random", 0)
    assert "independent" in look(learn(matrix, groups=4, density=0.25), 6)
    assert "makes up for" in look(learn(matrix, groups=4, density=0.25, correlation=0.9), 6)
    assert not any("refit lowers" in reason for reason in explain(learn(matrix, groups=4, density=0.25)))


def test_a_matrix_of_zeros_is_said_to_be_one() -> None:
    found = learn(np.zeros((SIZE, SIZE)), groups=4, density=0.25)
    assert {look(found, step)[:21] for step in NUMBERS} == {"All weights are zero,"}
    assert len(explain(found)) == 1


def test_equal_weights_are_even() -> None:
    verdict, *_ = explain(learn(np.ones((SIZE, SIZE)), groups=2, density=0.5))
    assert verdict.startswith("**Even")

"""The price at the margin against a search over all prices; ratings of the options of a table."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgb_core.budget import frontier
from pgb_core.what_if import CLOSE, multiplier, nearest, rate

Problem = tuple[list[list[int]], list[list[float]], list[int]]


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """One to four sublayers with one to five options each, and a choice among them: the best one, or any."""
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    sizes = rng.integers(1, 6, rng.integers(1, 5))
    costs = [[0, *(int(c) for c in rng.integers(0, 30, n - 1))] for n in sizes]
    losses = [rng.random(n).tolist() for n in sizes]
    if draw(st.booleans()):
        return costs, losses, [int(rng.integers(n)) for n in sizes]
    budget = round(draw(st.floats(0, 1)) * sum(map(max, costs)))
    return costs, losses, list(frontier(costs, losses, [budget], slack=1000)[0].options)


def total_regret(problem: Problem, price: float) -> float:
    """By how much the choice falls behind if every sublayer pays `price`."""
    return sum(
        losses[pick] + price * costs[pick] - min(x + price * c for c, x in zip(costs, losses, strict=True))
        for costs, losses, pick in zip(*problem, strict=True)
    )


@given(problems())
def test_no_price_has_a_smaller_total_regret(problem: Problem) -> None:
    price = multiplier(*problem)
    # the regret is piecewise linear: it is least at 0, or where two options of a sublayer are worth the same
    crossings = [
        (b[1] - a[1]) / (a[0] - b[0])
        for costs, losses, _ in zip(*problem, strict=True)
        for a, b in combinations(zip(costs, losses, strict=True), 2)
        if a[0] != b[0]
    ]
    assert price >= 0
    least = min(total_regret(problem, p) for p in [0.0, *(p for p in crossings if p > 0)])
    assert total_regret(problem, price) == pytest.approx(least, abs=1e-9)


@given(problems(), st.floats(0.01, 2))
def test_where_everyone_takes_the_best_at_one_price_nobody_regrets(problem: Problem, price: float) -> None:
    costs, losses, _ = problem
    picks = [int(np.argmin(np.add(x, np.multiply(price, c)))) for c, x in zip(costs, losses, strict=True)]
    assert total_regret((costs, losses, picks), multiplier(costs, losses, picks)) == pytest.approx(0, abs=1e-9)


def test_between_two_prices_that_do_the_middle_is_taken() -> None:
    """Down from 10 is worth 0.1 a unit, up from there 0.02."""
    assert multiplier([[0, 10, 20]], [[1.2, 0.2, 0.0]], [1]) == pytest.approx((0.1 + 0.02) / 2)


def option(cost: int, loss: float, **values: Any) -> dict[str, Any]:
    return {"cost": cost, "loss": loss, "groups": 2, "units": 4, "flops": 2 * cost, **values}


ALL = {"methods": ["pgb", "pgb-mixed"], "admitted": True}
TABLE = {
    "layer": 0,
    "kind": "attention",
    "chosen": 1,
    "options": [
        option(0, 1.2, **ALL),
        option(10, 0.2, **ALL),
        option(20, 0.0, **ALL),
        option(10, 0.1, methods=["pgb-mixed"], admitted=True),
        option(5, 0.3, methods=["pgb", "pgb-mixed"], admitted=False),
    ],
}


def test_an_option_is_allowed_by_the_method_and_the_constraints() -> None:
    assert [r.allowed for r in rate([TABLE], "pgb")[0]] == [True, True, True, False, False]
    assert [r.allowed for r in rate([TABLE], "pgb-mixed")[0]] == [True, True, True, True, False]


def test_regrets_are_shares_of_the_total_at_the_price_of_what_is_allowed() -> None:
    regrets = [r.regret for r in rate([TABLE], "pgb")[0]]
    # the price is 0.06 a unit
    assert regrets == pytest.approx([(1.0 - 0.6) / 0.2, 0.0, (-0.2 + 0.6) / 0.2, -0.1 / 0.2, (0.1 - 0.3) / 0.2])


def test_in_flops_the_ratings_are_those_of_the_weights_where_one_is_twice_the_other() -> None:
    assert rate([TABLE], "pgb", "flops") == rate([TABLE], "pgb")
    dearer = {**TABLE, "options": [{**o, "flops": o["cost"] ** 2} for o in TABLE["options"]]}
    assert rate([dearer], "pgb", "flops") != rate([dearer], "pgb")


def test_a_table_of_the_first_version_belongs_to_the_run_s_own_method() -> None:
    old = {**TABLE, "options": [{k: o[k] for k in ("cost", "loss", "groups", "units")} for o in TABLE["options"][:3]]}
    assert [r.allowed for r in rate([old], "structured")[0]] == [True] * 3


def test_where_nothing_is_lost_there_is_no_regret_and_no_alternative() -> None:
    ratings = rate([{**TABLE, "chosen": 2}], "pgb")[0]
    assert [r.regret for r in ratings] == [None] * 5
    assert not any(r.close for r in ratings)
    assert nearest(ratings, 2) is None


def test_the_nearest_is_the_allowed_one_of_least_regret() -> None:
    assert nearest(rate([TABLE], "pgb")[0], 1) in (0, 2)
    assert nearest(rate([TABLE], "pgb-mixed")[0], 1) == 3
    close = {**TABLE, "options": [*TABLE["options"][:2], option(10, 0.2 * (1 + CLOSE / 2), **ALL)]}
    ratings = rate([close], "pgb")[0]
    assert (nearest(ratings, 1), [r.close for r in ratings]) == (2, [False, True, True])

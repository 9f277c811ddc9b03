"""The knapsack against enumeration."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgb_core.budget import choose
from pgb_core.errors import SpecError

Tables = tuple[list[list[int]], list[list[float]]]


@st.composite
def tables(draw: st.DrawFn) -> Tables:
    """Two to four sublayers with two to five options each; the first option is free."""
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    unit = draw(st.sampled_from([1, 6, 64]))
    sizes = rng.integers(2, 6, rng.integers(2, 5))
    costs = [[0, *(int(c) * unit for c in rng.integers(1, 30, n - 1))] for n in sizes]
    losses = [rng.random(n).tolist() for n in sizes]
    return costs, losses


def _total(values: list[list[float]], chosen: tuple[int, ...] | list[int]) -> float:
    return sum(option[i] for option, i in zip(values, chosen, strict=True))


@given(tables(), st.floats(0, 1), st.floats(0, 0.3))
def test_choose_finds_the_least_loss_in_the_window(problem: Tables, share: float, width: float) -> None:
    costs, losses = problem
    most = sum(max(c) for c in costs)
    budget, slack = round(share * most), round(width * most)
    chosen = choose(costs, losses, budget, slack)
    spent = _total(costs, chosen)
    assert spent <= budget
    affordable = [c for c in product(*(range(len(o)) for o in costs)) if _total(costs, c) <= budget]
    inside = [c for c in affordable if _total(costs, c) >= budget - slack]
    if inside:
        assert _total(losses, chosen) == pytest.approx(min(_total(losses, c) for c in inside))
    else:  # nothing hits the window: as near to the target as there is
        assert spent == max(_total(costs, c) for c in affordable)


@given(tables())
def test_more_budget_never_raises_the_least_loss(problem: Tables) -> None:
    costs, losses = problem
    most = sum(max(c) for c in costs)
    found = [_total(losses, choose(costs, losses, round(most * s), most)) for s in (0, 0.25, 0.5, 0.75, 1)]
    assert all(later <= earlier + 1e-12 for earlier, later in zip(found, found[1:], strict=False))


def test_costs_without_a_common_divisor_stay_within_the_budget() -> None:
    rng = np.random.default_rng(0)
    costs = [[0, *(int(c) for c in rng.integers(1, 10_000_000, 30))] for _ in range(24)]
    losses = [rng.random(31).tolist() for _ in costs]
    budget = sum(max(c) for c in costs) // 2
    spent = _total(costs, choose(costs, losses, budget, budget // 100))
    assert 0.99 * budget <= spent <= budget


def test_a_target_below_the_cheapest_choice_is_refused() -> None:
    with pytest.raises(SpecError, match="out of reach"):
        choose([[4, 8], [4, 8]], [[1, 0], [1, 0]], budget=7)

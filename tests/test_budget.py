"""The knapsack against enumeration."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgb_core.budget import TOLERANCE, choose
from pgb_core.errors import SpecError
from pgb_core.layout import SublayerShape
from pgb_core.options import GROUP_COUNTS, unit_counts

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


def test_a_budget_that_covers_everything_leaves_everything_untouched() -> None:
    costs = [[0, 3_000_001, 9_999_991]] * 48  # costs that no grid divides
    assert choose(costs, [[1.0, 0.5, 0.0]] * 48, budget=48 * 9_999_991) == [2] * 48


def test_a_target_below_the_cheapest_choice_is_refused() -> None:
    with pytest.raises(SpecError, match="out of reach"):
        choose([[4, 8], [4, 8]], [[1, 0], [1, 0]], budget=7)


@pytest.mark.parametrize(("layers", "hidden", "heads", "inner"), [(6, 384, 12, 1536), (12, 768, 12, 3072)])
@pytest.mark.parametrize("groups", [(1,), GROUP_COUNTS])
@given(seed=st.integers(0, 2**20), sparsity=st.floats(0.05, 0.97))
def test_targets_are_met_within_half_a_point_on_real_shapes(
    layers: int, hidden: int, heads: int, inner: int, groups: tuple[int, ...], seed: int, sparsity: float
) -> None:
    """MiniLM's and BERT-base's options, `structured` (1,) and `pgb`, at losses that fall with the density."""
    rng = np.random.default_rng(seed)
    shapes = [
        SublayerShape("attention", hidden, heads, hidden // heads),
        SublayerShape("feed_forward", hidden, inner, 1),
    ]
    costs: list[list[int]] = []
    losses: list[list[float]] = []
    for shape in shapes * layers:
        counts = [(g, n) for g in groups for n in unit_counts(shape, g)]
        costs.append([0, shape.weights, *(shape.weights * n // (shape.units * g) for g, n in counts)])
        scale, power = rng.lognormal(0, 2), rng.uniform(1, 4)
        losses.append([scale * (1 - cost / shape.weights) ** power for cost in costs[-1]])
    total = sum(shape.weights for shape in shapes * layers)
    spent = _total(costs, choose(costs, losses, round(total * (1 - sparsity)), round(total * TOLERANCE)))
    assert abs(1 - spent / total - sparsity) <= 0.005

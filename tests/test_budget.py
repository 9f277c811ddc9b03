"""The knapsack against enumeration; prices against the modules that run; constraints."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pgb_core import budget as budget_module
from pgb_core import evaluation
from pgb_core.budget import TOLERANCE, Choice, Table, admitted, allot, cost_of, frontier, table_of
from pgb_core.constraints import Constraints, Pin
from pgb_core.errors import SpecError
from pgb_core.grouped import cut, install
from pgb_core.layout import SublayerShape, untouched_layout
from pgb_core.options import SPLITS, candidate_layouts, unit_counts
from tests.network import Network

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


def choose(costs: list[list[int]], losses: list[list[float]], budget: int, slack: int = 0) -> list[int]:
    """The choice for one budget."""
    return list(frontier(costs, losses, [budget], slack)[0].options)


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


@given(tables(), st.lists(st.floats(0, 1), min_size=1, max_size=6), st.floats(0, 0.3))
def test_one_pass_over_many_budgets_finds_what_each_budget_alone_does(
    problem: Tables, shares: list[float], width: float
) -> None:
    costs, losses = problem
    most = sum(max(c) for c in costs)
    budgets, slack = [round(share * most) for share in shares], round(width * most)
    for budget, choice in zip(budgets, frontier(costs, losses, budgets, slack), strict=True):
        alone = frontier(costs, losses, [budget], slack)[0]
        assert choice.loss == pytest.approx(alone.loss)
        assert choice.cost == _total(costs, choice.options)
        assert choice.loss == pytest.approx(_total(losses, choice.options))
    assert frontier(costs, losses, []) == []


@given(st.integers(0, 2**20), st.floats(0.05, 1))
def test_rounded_costs_lose_no_more_than_the_rounding(seed: int, share: float) -> None:
    """The best of the window that is narrower by the rounding error is found; the real costs keep to the window."""
    rng = np.random.default_rng(seed)
    costs = [[0, *(int(c) for c in rng.integers(1, 10_000_000, 6))] for _ in range(4)]
    losses = [rng.random(7).tolist() for _ in costs]
    most = sum(max(c) for c in costs)
    budget, slack = round(share * most), round(0.1 * most)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(budget_module, "_MOST_STEPS", 300)
        choice = frontier(costs, losses, [budget], slack)[0]
    assert choice.cost <= budget
    error = len(costs) * budget / 300
    combinations = list(product(*(range(7) for _ in costs)))
    totals = np.array([(_total(costs, c), _total(losses, c)) for c in combinations])
    window = (totals[:, 0] <= budget) & (totals[:, 0] >= budget - slack)
    narrow = (totals[:, 0] <= budget - error) & (totals[:, 0] >= budget - slack + error)
    if narrow.any():
        assert choice.cost >= budget - slack
        assert totals[window, 1].min() - 1e-9 <= choice.loss <= totals[narrow, 1].min() + 1e-9


@settings(max_examples=20)
@given(st.integers(0, 2**20))
def test_more_budget_never_raises_the_least_loss_on_a_grid_that_rounds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    costs = [[0, *(int(c) for c in rng.integers(1, 10_000_000, 20))] for _ in range(12)]
    losses = [rng.random(21).tolist() for _ in costs]
    most = sum(max(c) for c in costs)
    budgets = [round(most * share) for share in np.linspace(0, 1, 41)]
    found = [choice.loss for choice in frontier(costs, losses, budgets, slack=most)]
    assert all(later <= earlier + 1e-12 for earlier, later in zip(found, found[1:], strict=False))


def test_costs_without_a_common_divisor_stay_within_the_budget() -> None:
    rng = np.random.default_rng(0)
    costs = [[0, *(int(c) for c in rng.integers(1, 10_000_000, 30))] for _ in range(24)]
    losses = [rng.random(31).tolist() for _ in costs]
    budget = sum(max(c) for c in costs) // 2
    spent = _total(costs, choose(costs, losses, budget, budget // 1000))
    assert 0.999 * budget <= spent <= budget


def test_a_budget_that_covers_everything_leaves_everything_untouched() -> None:
    costs = [[0, 3_000_001, 9_999_991]] * 48  # costs that no grid divides
    assert choose(costs, [[1.0, 0.5, 0.0]] * 48, budget=48 * 9_999_991) == [2] * 48


def test_a_target_below_the_cheapest_choice_is_refused() -> None:
    with pytest.raises(SpecError, match="out of reach"):
        choose([[4, 8], [4, 8]], [[1, 0], [1, 0]], budget=7)


@pytest.mark.parametrize(("layers", "hidden", "heads", "inner"), [(6, 384, 12, 1536), (12, 768, 12, 3072)])
@pytest.mark.parametrize("groups", [(1,), tuple(len(shares) for shares in SPLITS)])
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


# --- prices and constraints ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("pick", [0, 1, 5, -1])
def test_flops_are_those_of_the_modules_that_run(network: Network, pick: int) -> None:
    layouts = [candidates[pick] for candidates in network.candidates]
    modules = [cut(sub, layout) for sub, layout in zip(network.sublayers, layouts, strict=True)]
    model = install(network.model, network.sublayers, modules)
    whole = sum(cost_of(untouched_layout(sub.shape), "flops") for sub in network.sublayers)
    removed = whole - sum(cost_of(layout, "flops") for layout in layouts)
    assert removed == evaluation.flops(network.model) - evaluation.flops(model)
    assert sum(cost_of(layout, "weights") for layout in layouts) == evaluation.encoder_weights(model)
    # the rest is the head, which sees one token
    head = network.model.bert.pooler.dense.weight.numel() + network.model.classifier.weight.numel()
    assert evaluation.flops(network.model) - whole == 2 * head


@pytest.fixture(scope="module")
def offers() -> dict[str, list[Table]]:
    """Tables of a small model in both units: 2 layers of hidden 24, 12 heads of width 2 and 48 neurons, all options."""
    rng = np.random.default_rng(0)
    tables: dict[str, list[Table]] = {"weights": [], "flops": []}
    for layer in range(2):
        for shape in (SublayerShape("attention", 24, 12, 2), SublayerShape("feed_forward", 24, 48, 1)):
            scores = {name: torch.tensor(rng.random((shape.inner, 24))) for name in shape.matrices[:-1]}
            scores["output"] = torch.tensor(rng.random((24, shape.inner)))
            layouts = candidate_layouts(shape, scores, rng.permutation(shape.units))
            priced = [(layout, (1 - layout.density) ** 2 * rng.lognormal()) for layout in layouts]
            for unit, found in tables.items():
                found.append(table_of(layer, priced, unit))
    return tables


@pytest.mark.parametrize("unit", ["weights", "flops"])
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.8, 1.0])
def test_the_target_is_a_share_of_the_unit(offers: dict[str, list[Table]], unit: str, sparsity: float) -> None:
    tables = offers[unit]
    total = sum(table.dense for table in tables)
    assert all(max(offer.cost for offer in table.offers) == table.dense for table in tables)
    choice = allot(tables, [sparsity], Constraints())[0]
    assert sparsity - 1e-9 <= 1 - choice.cost / total <= sparsity + 0.02
    chosen = [table.offers[i] for table, i in zip(tables, choice.options, strict=True)]
    assert choice.cost == sum(offer.cost for offer in chosen)
    assert choice.loss == pytest.approx(sum(offer.loss for offer in chosen))


def test_the_units_choose_differently(offers: dict[str, list[Table]]) -> None:
    """At 128 tokens and this width most of an attention's FLOPs are q k^T, which groups do not thin out."""
    chosen = {unit: allot(tables, [0.5], Constraints())[0].options for unit, tables in offers.items()}
    assert chosen["weights"] != chosen["flops"]


@given(
    low=st.none() | st.integers(2, 6),
    more=st.none() | st.integers(0, 4),
    pins=st.lists(
        st.builds(Pin, st.integers(0, 1), st.sampled_from(["attention", "feed_forward"]), st.integers(1, 12)),
        max_size=3,
    ),
    sparsity=st.floats(0, 1),
)
def test_what_is_chosen_meets_the_constraints(
    offers: dict[str, list[Table]], low: int | None, more: int | None, pins: list[Pin], sparsity: float
) -> None:
    tables = offers["weights"]
    high = None if more is None else (low or 2) + more
    constraints = Constraints(low, high, tuple(pins))
    try:
        choice = allot(tables, [sparsity], constraints)[0]
    except SpecError:
        allowed = admitted(tables, constraints)
        least = sum(min(t.offers[i].cost for i in indices) for t, indices in zip(tables, allowed, strict=True))
        assert least > (1 - sparsity) * sum(table.dense for table in tables) - 1
        return
    for table, option in zip(tables, choice.options, strict=True):
        offer = table.offers[option]
        for count in offer.groups:
            assert count <= 1 or (low or 2) <= count <= (high or 99)
        for pin in pins:
            if (pin.layer, pin.kind) == (table.layer, table.kind):
                assert offer.units >= pin.keep


def test_constraints_leave_everything_else_on_offer(offers: dict[str, list[Table]]) -> None:
    tables = offers["weights"]
    assert admitted(tables, Constraints()) == [list(range(len(table.offers))) for table in tables]
    constraints = Constraints(3, 4, (Pin(1, "attention", 5),))
    for table, indices in zip(tables, admitted(tables, constraints), strict=True):
        for i, offer in enumerate(table.offers):
            pinned = (table.layer, table.kind) == (1, "attention") and offer.units < 5
            assert (i in indices) == (not pinned and set(offer.groups) <= {0, 1, 3, 4})


def test_a_target_that_the_constraints_forbid_is_refused_with_what_is_in_reach(
    offers: dict[str, list[Table]],
) -> None:
    tables = offers["weights"]
    pins = tuple(Pin(layer, "feed_forward", 24) for layer in range(2))
    with pytest.raises(SpecError, match=r"sparsity 0.99 is out of reach; .* can be 0 to 0\.\d+\.") as caught:
        allot(tables, [0.5, 0.99], Constraints(max_groups=2, pins=pins))
    reachable = float(str(caught.value).removesuffix(".").rsplit(" ", 1)[1])
    assert allot(tables, [reachable], Constraints(max_groups=2, pins=pins))
    with pytest.raises(SpecError, match="out of reach"):
        allot(tables, [reachable + 0.002], Constraints(max_groups=2, pins=pins))


def test_a_sublayer_without_an_option_left_is_named(offers: dict[str, list[Table]]) -> None:
    table = offers["weights"][0]
    grouped = replace(table, offers=tuple(offer for offer in table.offers if max(offer.groups, default=0) == 2))
    with pytest.raises(SpecError, match=r"no option .* sublayer 0\.attention"):
        allot([grouped], [0.5], Constraints(min_groups=3))
    assert isinstance(allot([grouped], [0.9], Constraints())[0], Choice)

"""`pgb-paper`: blocks that tile every matrix, and the combinations of them that a sublayer offers."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pgb_core.grouped import cut
from pgb_core.layout import SublayerShape
from pgb_core.matrixwise import matrix_sizes, whole_matrix
from pgb_core.pricing import markets, price
from pgb_core.untied import (
    GROUP_COUNTS,
    Choice,
    combinations,
    pareto_front,
    price_untied,
    tiled_matrices,
    tiled_matrix,
)
from tests.network import Network

SHAPES = [SublayerShape("attention", 12, 6, 2), SublayerShape("feed_forward", 12, 26, 1)]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.kind)
def test_every_matrix_is_tiled_by_equal_blocks_on_its_own(shape: SublayerShape) -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = matrix_sizes(shape)
    importance = {name: torch.rand(*size, generator=generator) for name, size in sizes.items()}
    found = tiled_matrices(shape, importance)
    assert list(found) == list(shape.matrices)
    for name, layouts in found.items():
        assert layouts[0].mask().all()
        assert [len(layout.row_groups) for layout in layouts] == [1, *(g for g in GROUP_COUNTS if g <= 12)]
        for layout in layouts:
            for groups, size in zip((layout.row_groups, layout.column_groups), sizes[name], strict=True):
                assert sorted(np.concatenate(groups)) == list(range(size))
                assert max(map(len, groups)) - min(map(len, groups)) <= 1
            if all(size % len(layout.row_groups) == 0 for size in sizes[name]):
                assert layout.density == pytest.approx(1 / len(layout.row_groups))
    orders = {tuple(layouts[1].column_order()) for name, layouts in found.items() if name != "output"}
    assert len(orders) == len(shape.matrices) - 1  # untied: no two matrices share their permutation


def test_planted_blocks_are_found_and_the_most_important_comes_first() -> None:
    rng = np.random.default_rng(1)
    rows, columns = rng.permutation(np.arange(24) % 3), rng.permutation(np.arange(18) % 3)
    scores = rng.random((24, 18)) + 10 * (rows[:, None] == columns) * (1 + rows[:, None])
    layout = tiled_matrix("query", scores, 3)
    assert [set(rows[r]) for r in layout.row_groups] == [{2}, {1}, {0}]
    assert [set(columns[c]) for c in layout.column_groups] == [{2}, {1}, {0}]
    for r, c in zip(layout.row_groups, layout.column_groups, strict=True):
        block = scores[np.ix_(r, c)]
        assert (np.diff(block.sum(axis=1)) <= 0).all()
        assert (np.diff(block.sum(axis=0)) <= 0).all()


# --- combinations --------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=20))
def test_the_front_holds_what_nothing_beats(points: list[tuple[int, int]]) -> None:
    costs, losses = (np.array(values) for values in zip(*points, strict=True))
    front = pareto_front(costs, losses.astype(float))
    assert (np.diff(costs[front]) > 0).all()
    assert (np.diff(losses[front]) < 0).all()
    for cost, loss in points:  # everything is beaten, or equalled, by a point of the front
        assert any(costs[n] <= cost and losses[n] <= loss for n in front)


def some_choices(shape: SublayerShape, seed: int) -> list[list[Choice]]:
    rng = np.random.default_rng(seed)
    choices: list[list[Choice]] = []
    for name, size in matrix_sizes(shape).items():
        tiled = [tiled_matrix(name, rng.random(size), groups) for groups in (2, 3, 4)]
        losses = np.sort(rng.random(3))
        choices.append([Choice(whole_matrix(name, *size), 0.0)])
        choices[-1] += [Choice(layout, float(loss)) for layout, loss in zip(tiled, losses, strict=True)]
    return choices


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.kind)
def test_combinations_are_the_front_of_all_that_can_be_combined(shape: SublayerShape) -> None:
    choices = some_choices(shape, 3)
    found = combinations(shape, choices, most=10**6)
    every = [(sum(c.layout.kept for c in pick), sum(c.loss for c in pick)) for pick in product(*choices)]
    every.remove((shape.weights, 0.0))
    best = {cost: min(loss for c, loss in every if c <= cost) for cost, _ in every}
    front = sorted({cost for cost, loss in every if loss == best[cost] and (cost, loss) in every})
    front = [cost for n, cost in enumerate(front) if n == 0 or best[cost] < best[front[n - 1]]]
    assert [layout.cost for layout in found] == front
    few = combinations(shape, choices, most=5)
    costs = [layout.cost for layout in few]
    assert 2 <= len(few) <= 5
    assert set(costs) <= set(front)
    assert (costs[0], costs[-1]) == (front[0], front[-1])


def test_a_choice_that_costs_the_same_and_loses_more_is_never_taken() -> None:
    shape = SHAPES[1]
    choices = some_choices(shape, 5)
    scores = np.random.default_rng(6).random((26, 12))
    worse = [Choice(tiled_matrix("intermediate", scores, len(c.layout.row_groups)), c.loss + 1) for c in choices[0][1:]]
    assert [choice.layout.kept for choice in worse] == [choice.layout.kept for choice in choices[0][1:]]
    found = combinations(shape, [[*choices[0], *worse], choices[1]], most=10**6)
    good = [choice.layout for choice in choices[0]]
    assert all(any(layout.per_matrix[0] is one for one in good) for layout in found)


def test_tables_hold_dropped_untouched_and_combinations_at_their_joint_price(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgb_core.untied.GROUP_COUNTS", (2, 4))
    monkeypatch.setattr("pgb_core.untied.MOST_COMBINATIONS", 5)
    subs, stats = network.sublayers, network.statistics
    candidates = [tiled_matrices(s.shape, i) for s, i in zip(subs, network.importance, strict=True)]
    fit, test = network.batches[:4], network.batches[4:]
    tables = price_untied(network.model, subs, stats, candidates, fit, test)
    for sub, table in zip(subs, tables, strict=True):
        assert [option.cost for option in table] == sorted(option.cost for option in table)
        assert (table[0].label, table[-1].label) == ("dropped", "untouched")
        assert 3 <= len(table) <= 2 + 5
        for option in table[1:-1]:
            assert option.label.startswith("groups: ")
            pruned = cut(sub, option.layout)
            assert pruned.entry is not None
            held = [w.numel() for linear in (*pruned.entry.linears, pruned.exit) for w in linear.weights]
            assert option.cost == sum(held)
    first = next(markets(network.model, subs, stats, fit, test))
    option = tables[0][1]
    assert option.loss == pytest.approx(price(first, option.layout))
    assert option.loss > 0

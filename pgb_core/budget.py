"""Stage 3b, the budget: one option per sublayer, least total loss within the target. A multiple-choice knapsack.

Solved by dynamic programming over the budget (Kellerer, Pferschy, Pisinger, Knapsack Problems, 2004, section 11.5), in
steps of the greatest common divisor of the costs where that is not too fine. One pass answers every target, in some
ten milliseconds, so a what-if is solved anew each time. A sublayer for which nothing is worth its cost comes out as
dropped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pgb_core.constraints import Constraints
from pgb_core.errors import SpecError
from pgb_core.layout import Kind, MatrixLayout, SublayerShape

TOLERANCE = 0.004
"""How far below the budget a choice may stay, relative to the total cost."""
LENGTH = 128
"""Tokens of the one sequence whose FLOPs are counted, as in result.json."""
_MOST_STEPS = 8_192
"""Of the grid of budgets: a cost is rounded by 1/16384 of the largest budget at most. The errors of 24 sublayers are
independent and come to 0.02 % of it (standard deviation), a twentieth of `TOLERANCE`."""
_TRACED = 64
"""Combinations, the best by rounded costs, whose exact costs are looked at where the grid rounds."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


# --- what options cost ---------------------------------------------------------------------------------------------


class Layout(Protocol):
    """What a layout must tell for its price."""

    @property
    def shape(self) -> SublayerShape: ...
    @property
    def cost(self) -> int: ...
    @property
    def kept_units(self) -> int: ...
    def matrices(self) -> tuple[MatrixLayout, ...]: ...


def cost_of(layout: Layout, unit: str) -> int:
    """What `layout` keeps, in `unit`: encoder `weights`, or `flops` of one sequence of `LENGTH` tokens.

    FLOPs are two for each multiply-add, as in `evaluation.flops`: every kept weight meets every token, and an attention
    computes q k^T and the weighted sum of v over the rows of its kept heads.
    """
    return _cost(layout.shape, layout.cost, layout.kept_units, unit)


def _cost(shape: SublayerShape, weights: int, units: int, unit: str) -> int:
    if unit == "weights":
        return weights
    attention = 2 * LENGTH * LENGTH * units * shape.width if shape.kind == "attention" else 0
    return 2 * (LENGTH * weights + attention)


@dataclass(frozen=True)
class Offer:
    """What the budget knows of an option."""

    cost: int
    loss: float
    groups: tuple[int, ...]
    """Of each matrix."""
    units: int
    """Heads or neurons kept."""


@dataclass(frozen=True)
class Table:
    """The offers of one sublayer; `dense` is the cost of the whole of it, `units` its heads or neurons."""

    layer: int
    kind: Kind
    units: int
    dense: int
    offers: tuple[Offer, ...]


def table_of(layer: int, options: Iterable[tuple[Layout, float]], unit: str) -> Table:
    """The table of the sublayer that all of `options`, pairs of a layout and its loss, belong to; at least one."""
    pairs = list(options)
    shape = pairs[0][0].shape
    offers = tuple(
        Offer(cost_of(layout, unit), loss, tuple(len(m.row_groups) for m in layout.matrices()), layout.kept_units)
        for layout, loss in pairs
    )
    return Table(layer, shape.kind, shape.units, _cost(shape, shape.weights, shape.units, unit), offers)


# --- the choice ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """One option per sublayer, by index, with the sums of their costs and losses."""

    options: tuple[int, ...]
    cost: int
    loss: float


def allot(tables: Sequence[Table], sparsities: Sequence[float], constraints: Constraints) -> list[Choice]:
    """The best choice for each of `sparsities`, shares of the total cost to remove; indices are into `offers`.

    Raises:
        SpecError: a pin does not fit the model, or a target is out of reach; then the message says what is in reach.
    """
    allowed = admitted(tables, constraints)
    costs = [[table.offers[i].cost for i in indices] for table, indices in zip(tables, allowed, strict=True)]
    losses = [[table.offers[i].loss for i in indices] for table, indices in zip(tables, allowed, strict=True)]
    total = sum(table.dense for table in tables)
    budgets = [round(total * (1 - sparsity)) for sparsity in sparsities]
    low, high = (1 - sum(end(c) for c in costs) / total for end in (max, min))
    for sparsity, budget in zip(sparsities, budgets, strict=True):
        if sum(min(c) for c in costs) > budget:
            raise SpecError(
                f"sparsity {sparsity:g} is out of reach; with this method, model and these constraints it can be "
                f"{math.ceil(low * 1000) / 1000:g} to {math.floor(high * 1000) / 1000:g}."
            )
    return [
        replace(choice, options=tuple(indices[i] for indices, i in zip(allowed, choice.options, strict=True)))
        for choice in frontier(costs, losses, budgets, slack=round(total * TOLERANCE))
    ]


def admitted(tables: Sequence[Table], constraints: Constraints) -> list[list[int]]:
    """Per sublayer, the indices of the offers that `constraints` admit.

    Raises:
        SpecError: a pin does not fit the model, or a sublayer has no offer left.
    """
    constraints.check({(table.layer, table.kind): table.units for table in tables})
    found: list[list[int]] = []
    for table in tables:
        offers = enumerate(table.offers)
        found.append([i for i, o in offers if constraints.admit(table.layer, table.kind, o.groups, o.units)])
        if not found[-1]:
            raise SpecError(
                f"no option of this method for sublayer {table.layer}.{table.kind} meets the constraints; loosen them."
            )
    return found


def frontier(
    costs: Sequence[Sequence[int]], losses: Sequence[Sequence[float]], budgets: Sequence[int], slack: int = 0
) -> list[Choice]:
    """For each budget the choice of least total loss with total cost in [budget - slack, budget], in one pass.

    Where no choice falls into that window, the costliest one below the budget is taken. The least loss is exact where
    the greatest common divisor of the costs is at least 1/8192 of the largest budget. On a coarser grid costs are
    rounded to the nearest step: the choice is then the best of those that stand out there, and its exact cost is what
    counts for the window.

    Args:
        costs: per sublayer, the cost of each option; not negative.
        losses: per sublayer, the loss of each option.

    Raises:
        SpecError: even the cheapest options together exceed a budget.
    """
    if not budgets:
        return []
    problem = [(np.array(c, dtype=np.int64), np.array(x, dtype=np.float64)) for c, x in zip(costs, losses, strict=True)]
    cheapest = np.array([c.argmin() for c, _ in problem])
    if sum(int(c.min()) for c, _ in problem) > min(budgets):
        raise SpecError("The target sparsity is out of reach for this method and model; choose a lower one.")
    exact = math.gcd(*(cost for option in costs for cost in option)) or 1
    grid = max(exact, -(-max(budgets) // _MOST_STEPS))
    error = 0 if grid == exact else (len(problem) + 1) // 2  # each cost is off by half a step at most
    rounded = [((c + grid // 2) // grid, x) for c, x in problem]
    best = _least(rounded, max(budgets) // grid + error + 1)
    # whatever the rounding did, these two are always looked at
    known = np.stack([cheapest, np.array([x.argmin() for _, x in problem])])

    choices: list[Choice] = []
    for budget in budgets:
        ends = _ends(best[-1], (budget - slack) / grid, budget / grid, error)
        picks = np.concatenate([known, _trace(best, rounded, ends)])
        spent = sum(c[pick] for (c, _), pick in zip(problem, picks.T, strict=True))
        lost = sum(x[pick] for (_, x), pick in zip(problem, picks.T, strict=True))
        inside = np.flatnonzero((spent <= budget) & (spent >= budget - slack))
        if len(inside):
            row = inside[lost[inside].argmin()]
        else:
            below = np.flatnonzero(spent <= budget)
            row = below[np.lexsort((lost[below], -spent[below]))[0]]
        choices.append(Choice(tuple(picks[row].tolist()), int(spent[row]), float(lost[row])))
    return choices


def _ends(last: Floats, low: float, high: float, error: int) -> Ints:
    """The budgets, in steps, at which the choices that matter for the window [low, high] may end."""
    reachable = np.flatnonzero(np.isfinite(last))
    near = reachable[(reachable >= low - error) & (reachable <= high + error)]
    sure = reachable[(reachable >= low + error) & (reachable <= high - error)]
    below = reachable[reachable <= high - error]
    return np.concatenate([near[np.argsort(last[near])][:_TRACED], sure[np.argsort(last[sure])][:1], below[-1:]])


def _least(problem: Sequence[tuple[Ints, Floats]], size: int) -> list[Floats]:
    """[k][s]: least loss of spending exactly s = 0..size-1 steps on the first k sublayers; infinite if none does."""
    best = [np.full(size, np.inf)]
    best[0][0] = 0.0
    reach, total = 1, np.empty(size)  # beyond `reach` nothing can have been spent yet
    for steps, losses in problem:
        following = np.full(size, np.inf)
        order = np.lexsort((losses, steps))
        order = order[np.diff(steps[order], prepend=-1) > 0]  # of options with the same cost, the best
        for step, loss in zip(steps[order].tolist(), losses[order].tolist(), strict=True):
            count = min(reach, size - step)
            if count > 0:  # two passes without a temporary: half the time of one that notes the option as well
                np.add(best[-1][:count], loss, out=total[:count])
                np.minimum(following[step : step + count], total[:count], out=following[step : step + count])
        reach = min(size, reach + int(steps.max()))
        best.append(following)
    return best


def _trace(best: Sequence[Floats], problem: Sequence[tuple[Ints, Floats]], ends: Ints) -> Ints:
    """(E, sublayers): the options that spend exactly `ends` (E,) steps at the least loss, found backwards."""
    left = ends.copy()
    picks = np.empty((len(ends), len(problem)), dtype=np.int64)
    for k in reversed(range(len(problem))):
        steps, losses = problem[k]
        before = left[:, None] - steps  # (E, options)
        picks[:, k] = np.where(before >= 0, best[k][np.maximum(before, 0)] + losses, np.inf).argmin(axis=1)
        left -= steps[picks[:, k]]
    return picks

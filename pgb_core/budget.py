"""Stage 3b, the budget: one option per sublayer, least total loss within the target. A multiple-choice knapsack.

Solved exactly by dynamic programming on the greatest common divisor of the costs, in milliseconds. A sublayer for which
nothing is worth its cost comes out as dropped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pgb_core.errors import SpecError

TOLERANCE = 0.004
"""How far below the budget a choice may stay, relative to the total cost."""
_MOST_STEPS = 50_000


def choose(costs: Sequence[Sequence[int]], losses: Sequence[Sequence[float]], budget: int, slack: int = 0) -> list[int]:
    """Index of the chosen option of each sublayer: least total loss with total cost in [budget - slack, budget].

    Where no choice falls into that window, the costliest ones below the budget are taken.

    Args:
        costs: per sublayer, the cost of each option.
        losses: per sublayer, the loss of each option.

    Raises:
        SpecError: even the cheapest options together exceed the budget.
    """
    total_least = sum(min(c) for c in costs)
    if total_least > budget:
        raise SpecError("The target sparsity is out of reach for this method and model; choose a lower one.")
    least = [min(range(len(loss)), key=loss.__getitem__) for loss in losses]
    if budget - slack <= sum(c[option] for c, option in zip(costs, least, strict=True)) <= budget:
        return least  # nothing has to be given up; a grid that rounds might say otherwise
    grid = math.gcd(*(int(c) for option in costs for c in option)) or 1
    # rounding costs up to a coarser grid keeps the budget and bounds the work
    grid = max(grid, math.ceil(budget / _MOST_STEPS))
    steps = [np.array([-(-int(c) // grid) for c in option]) for option in costs]
    size = max(budget // grid, sum(int(s.min()) for s in steps)) + 1
    best, picks = _solve(steps, [np.asarray(option, dtype=np.float64) for option in losses], size)

    window = max(0, -(-(budget - slack) // grid))
    reachable = np.flatnonzero(np.isfinite(best))
    inside = reachable[reachable >= window]
    spent = int(inside[best[inside].argmin()]) if len(inside) else int(reachable[-1])
    chosen: list[int] = []
    for pick, step in zip(picks[::-1], steps[::-1], strict=True):
        option = int(pick[spent])
        chosen.append(option)
        spent -= int(step[option])
    return chosen[::-1]


def _solve(
    steps: Sequence[NDArray[np.int64]], losses: Sequence[NDArray[np.float64]], size: int
) -> tuple[NDArray[np.float64], list[NDArray[np.int64]]]:
    """Least loss of spending exactly s = 0..size-1, and per sublayer the option that reaches it."""
    best = np.full(size, np.inf)
    best[0] = 0.0
    picks: list[NDArray[np.int64]] = []
    for cost, loss in zip(steps, losses, strict=True):
        following = np.full(size, np.inf)
        pick = np.full(size, -1, dtype=np.int64)
        for option in range(len(cost)):
            if cost[option] >= size:
                continue
            reached = best[: size - cost[option]] + loss[option]
            target = following[cost[option] :]
            better = reached < target
            target[better] = reached[better]
            pick[cost[option] :][better] = option
        best = following
        picks.append(pick)
    return best, picks

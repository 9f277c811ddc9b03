"""What if: what other options would have meant in place of the chosen ones.

At the margin of a choice a weight has a price, the Lagrange multiplier of the knapsack: what the total loss falls by
when one more may be kept. At that price an option is worth its loss plus what it costs, and its regret is how much
worse than the chosen one it does. Options of small regret were close: another calibration sample might have taken them.

Everything here reads the tables of options.json, so that a page can ask without torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CLOSE = 0.01
"""Regret below which an option was close, as a share of the total predicted loss."""


def multiplier(costs: Sequence[Sequence[int]], losses: Sequence[Sequence[float]], chosen: Sequence[int]) -> float:
    """The price of one unit of cost, at least 0, at which the total regret of the `chosen` options is least.

    The total regret, sum_s [(l + price c) of the chosen - min over its options of (l + price c)], is convex and
    piecewise linear in the price, and its least value is the duality gap of the knapsack: this is the multiplier of
    the Lagrange relaxation (Kellerer, Pferschy, Pisinger, Knapsack Problems, 2004, sections 3.8 and 11.2). It is found
    by walking down the lower convex hulls of all sublayers, cheapest step first, until what is left costs no more than
    the chosen options. Between two steps any price does; the middle is taken.

    Args:
        costs: per sublayer, the cost of each option.
        losses: per sublayer, the loss of each option.
        chosen: per sublayer, the index of an option.
    """
    spent = sum(options[pick] for options, pick in zip(costs, chosen, strict=True))
    hulls = [_hull(c, x) for c, x in zip(costs, losses, strict=True)]
    left = sum(hull[0][0] for hull in hulls)  # at price 0 everybody takes the option of least loss
    steps = sorted(
        ((loss - before_loss) / (before - cost), before - cost)
        for hull in hulls
        for (before, before_loss), (cost, loss) in zip(hull, hull[1:], strict=False)
    )
    price = 0.0
    for step_price, saved in steps:
        if left <= spent:
            return (price + step_price) / 2 if left == spent else price
        price, left = step_price, left - saved
    return price


def _hull(costs: Sequence[int], losses: Sequence[float]) -> list[tuple[int, float]]:
    """(cost, loss) of the options that are best at some price of at least 0, by falling cost."""
    hull: list[tuple[int, float]] = []
    for cost, loss in sorted(zip(costs, losses, strict=True)):
        if hull and loss >= hull[-1][1]:
            continue  # a cheaper one is as good
        while len(hull) > 1 and _above(hull[-1], hull[-2], (cost, loss)):
            hull.pop()
        hull.append((cost, loss))
    return hull[::-1]


def _above(middle: tuple[int, float], first: tuple[int, float], last: tuple[int, float]) -> bool:
    """Whether `middle` lies on or above the line from `first` to `last`, all (cost, loss), by rising cost."""
    return (middle[1] - first[1]) * (last[0] - first[0]) >= (last[1] - first[1]) * (middle[0] - first[0])


@dataclass(frozen=True)
class Rating:
    """What an option of a sublayer would have meant in place of the chosen one."""

    allowed: bool
    """Whether the run's method and constraints admit it."""
    regret: float | None
    """Rise of the total predicted loss at the margin's price, as a share of it; None where nothing was predicted lost.

    Of an allowed option it is negative where the chosen one only came in because the total cost must come out even.
    """

    @property
    def close(self) -> bool:
        """Whether it might as well have been taken."""
        return self.regret is not None and self.regret <= CLOSE


def rate(tables: Sequence[Mapping[str, Any]], method: str, budget: str = "weights") -> list[list[Rating]]:
    """Per sublayer, the rating of each of its options.

    Args:
        tables: of options.json, as `store.read_options` gives them; the run's `method` and `budget` are in its spec.
        budget: `weights`, or the name of what else every option costs.
    """
    unit = _unit(budget)
    chosen = [table["options"][table["chosen"]] for table in tables]
    price = margin(tables, method, budget)
    total = float(sum(pick["loss"] for pick in chosen))

    def regret(option: Mapping[str, Any], pick: Mapping[str, Any]) -> float | None:
        if total <= 0:
            return None
        return float(option["loss"] - pick["loss"] + price * (option[unit] - pick[unit])) / total

    return [
        [Rating(_allowed(option, method), regret(option, pick)) for option in table["options"]]
        for table, pick in zip(tables, chosen, strict=True)
    ]


def margin(tables: Sequence[Mapping[str, Any]], method: str, budget: str = "weights") -> float:
    """The price of one unit of cost at the margin of the choice that `tables` hold; arguments as of `rate`."""
    unit = _unit(budget)
    offered = [[(n, o) for n, o in enumerate(table["options"]) if _allowed(o, method)] for table in tables]
    return multiplier(
        [[option[unit] for _, option in options] for options in offered],
        [[option["loss"] for _, option in options] for options in offered],
        [
            next(place for place, (n, _) in enumerate(options) if n == table["chosen"])
            for options, table in zip(offered, tables, strict=True)
        ],
    )


def _unit(budget: str) -> str:
    return "cost" if budget == "weights" else budget


def _allowed(option: Mapping[str, Any], method: str) -> bool:
    # the tables of the first version hold nothing but what the run's own method may choose
    return bool(option.get("admitted", True)) and method in option.get("methods", [method])


def nearest(ratings: Sequence[Rating], chosen: int) -> int | None:
    """Place of the allowed option of least regret beside the `chosen` one; None where there is no other."""
    others = [(r.regret, n) for n, r in enumerate(ratings) if n != chosen and r.allowed and r.regret is not None]
    return min(others)[1] if others else None

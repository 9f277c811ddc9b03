"""Plans without a model: the budget solved anew on a scored record, for any method, goal and constraints.

The tables, the knapsack and so the choice are those of a run (`planning.choose_options`); what a run adds is that it
looks at the model again. A goal is a share of weights or FLOPs to remove, or a predicted latency not to exceed.
Nothing here imports torch, and a plan takes some ten milliseconds at the size of BERT-base.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pgb_core.budget import Choice, Offer, Table, admitted, allot, frontier
from pgb_core.constraints import Constraints
from pgb_core.errors import SpecError
from pgb_core.latency_table import LatencyTable
from pgb_core.layout import ENTRY_NAMES
from pgb_core.scored import Record, Sublayer

LATENCY = "latency"
"""The goal that is no budget of a run: milliseconds, predicted."""
STEP = 0.01
"""Between the targets of a curve, as a share of the budget."""
_INDEX_BYTES = 8
"""Of each place of a gather or a scatter."""
MICROSECONDS = 1000
"""In a millisecond: the knapsack counts whole units."""


@dataclass(frozen=True, eq=False)
class Market:
    """What one method may choose from, priced in the unit of one goal; the same for all targets and constraints."""

    record: Record
    method: str
    goal: str
    """A budget of `spec.BUDGETS`, or `LATENCY`."""
    tables: tuple[Table, ...]
    """Per sublayer the offers of the method, in the order of `places`."""
    places: tuple[tuple[int, ...], ...]
    """Per sublayer, which options of the record these are."""
    latency: LatencyTable | None

    @property
    def total(self) -> int:
        """Cost of the dense encoder: weights, FLOPs, or microseconds without the base."""
        return sum(table.dense for table in self.tables)

    def target(self, cost: float) -> float:
        """The target that a cost meets: a share to remove, or milliseconds of the whole model."""
        if self.goal != LATENCY or self.latency is None:
            return 1 - cost / self.total
        return cost / MICROSECONDS + self.latency.base_ms

    def budget(self, target: float) -> int:
        """The cost that may be spent at a target."""
        if self.goal != LATENCY or self.latency is None:
            return round(self.total * (1 - target))
        return math.floor((target - self.latency.base_ms) * MICROSECONDS)


def market_of(record: Record, method: str, goal: str, latency: LatencyTable | None = None) -> Market:
    """What `method` may choose from.

    Raises:
        SpecError: a latency is the goal and there is no table of it, or the record does not know the method.
    """
    if goal == LATENCY and latency is None:
        raise SpecError("latency has not been measured on this server; choose a sparsity, or measure it first.")
    if method not in record.methods:
        raise SpecError(
            f"method {method!r} does not choose from this table; choose one of {', '.join(record.methods)}."
        )
    tables, places = [], []
    for sub in record.sublayers:
        mine = [n for n, option in enumerate(sub.options) if method in option["methods"]]
        offers = tuple(_offer(sub, sub.options[n], goal, latency) for n in mine)
        whole = next(o for o in sub.options if o["cost"] == sub.shape.weights and o["groups"] == 1)
        dense = _offer(sub, whole, goal, latency).cost
        tables.append(Table(sub.layer, sub.shape.kind, sub.shape.units, dense, offers))
        places.append(tuple(mine))
    return Market(record, method, goal, tuple(tables), tuple(places), latency)


def _offer(sub: Sublayer, option: Mapping[str, Any], goal: str, latency: LatencyTable | None) -> Offer:
    if goal == LATENCY and latency is not None:
        cost = round(MICROSECONDS * latency.option_ms(sub.shape.kind, sub.shape.units, option))
    else:
        cost = option["flops" if goal == "flops" else "cost"]
    return Offer(cost, option["loss"], (option["groups"],) * len(sub.shape.matrices), option["units"])


# --- the choice ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """One option of the record per sublayer, and their total predicted loss in nats."""

    options: tuple[int, ...]
    target: float
    """What was asked for: a share to remove, or milliseconds."""
    loss: float


def solve(market: Market, targets: Sequence[float], constraints: Constraints) -> list[Plan]:
    """The plan of least loss for each target, in one pass.

    A share is met as a run meets it (`budget.allot`); a latency is never exceeded, and what is faster will do.

    Raises:
        SpecError: a pin does not fit the model, or a target is out of reach.
    """
    if market.goal == LATENCY:
        choices = _within(market, targets, constraints)
    else:
        choices = allot(market.tables, targets, constraints)
    return [
        Plan(tuple(n[option] for n, option in zip(market.places, choice.options, strict=True)), target, choice.loss)
        for choice, target in zip(choices, targets, strict=True)
    ]


def _within(market: Market, targets: Sequence[float], constraints: Constraints) -> list[Choice]:
    """The choice of least loss that takes no longer, for each target in milliseconds."""
    allowed = admitted(market.tables, constraints)
    costs = [[t.offers[i].cost for i in indices] for t, indices in zip(market.tables, allowed, strict=True)]
    losses = [[t.offers[i].loss for i in indices] for t, indices in zip(market.tables, allowed, strict=True)]
    least, most = (sum(end(options) for options in costs) for end in (min, max))
    budgets = [min(market.budget(target), most) for target in targets]
    if min(budgets, default=least) < least:
        raise SpecError(
            f"{min(targets):.3g} ms is out of reach; with this method, model and these constraints the fastest is "
            f"predicted to take {math.ceil(10 * market.target(least)) / 10:.1f} ms."
        )
    return [
        replace(choice, options=tuple(indices[i] for indices, i in zip(allowed, choice.options, strict=True)))
        for budget in budgets
        for choice in frontier(costs, losses, [budget], slack=budget)
    ]


def reach(market: Market, constraints: Constraints) -> tuple[float, float]:
    """The least and the largest target that can be met.

    Raises:
        SpecError: a pin does not fit the model, or a sublayer has no option left.
    """
    allowed = admitted(market.tables, constraints)
    ends = [
        sum(end(t.offers[i].cost for i in indices) for t, indices in zip(market.tables, allowed, strict=True))
        for end in (min, max)
    ]
    low, high = sorted(market.target(min(cost, market.total)) for cost in ends)
    return low, high


def curve(market: Market, constraints: Constraints) -> list[Plan]:
    """Plans over all that is in reach, by rising target: what a slider has on its way.

    Raises:
        SpecError: as `reach`.
    """
    low, high = reach(market, constraints)
    if market.goal == LATENCY:
        targets = np.linspace(low + 0.01, high, 40).tolist()
    else:
        first, last = math.ceil(low / STEP - 1e-9), math.floor(min(high, 1 - STEP) / STEP + 1e-9)
        targets = [n * STEP for n in range(max(0, first), last + 1)]
    return solve(market, targets, constraints)


# --- what a plan is ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Totals:
    """What a pruned model of a plan would be, counted as in result.json; milliseconds are predicted."""

    sparsity: float
    encoder: int
    parameters: int
    flops: int
    bytes: int
    milliseconds: float | None
    heads: int
    neurons: int
    groups: int
    """In all sublayers that have several."""
    grouped: int
    """Sublayers, as the next."""
    dropped: int


def totals(record: Record, options: Sequence[int], latency: LatencyTable | None = None) -> Totals:
    """What choosing `options`, by place in the record's tables, comes to.

    Parameters lose the weights that go and the entry biases of the units that go. Bytes change by four for each, and by
    what the gathers and scatters of groups take; a few kilobytes of the file's header are left out.
    """
    picks = [(sub, sub.options[n]) for sub, n in zip(record.sublayers, options, strict=True)]
    encoder = sum(option["cost"] for _, option in picks)
    biases = sum(
        (sub.shape.units - option["units"]) * sub.shape.width * len(ENTRY_NAMES[sub.shape.kind])
        for sub, option in picks
    )
    removed = record.weights - encoder + biases
    indices = sum(2 * sub.shape.hidden for sub, option in picks if option["groups"] > 1)
    dense_flops = sum(max(option["flops"] for option in sub.options) for sub, _ in picks)
    milliseconds = None
    if latency is not None:
        times = (latency.option_ms(sub.shape.kind, sub.shape.units, option) for sub, option in picks)
        milliseconds = latency.base_ms + sum(times)
    kept = {
        kind: sum(option["units"] for sub, option in picks if sub.shape.kind == kind)
        for kind in ("attention", "feed_forward")
    }
    return Totals(
        1 - encoder / record.weights,
        encoder,
        record.dense["parameters"] - removed,
        record.dense["flops"] - dense_flops + sum(option["flops"] for _, option in picks),
        record.dense["bytes"] - 4 * removed + _INDEX_BYTES * indices,
        milliseconds,
        kept["attention"],
        kept["feed_forward"],
        sum(option["groups"] for _, option in picks if option["groups"] > 1),
        sum(option["groups"] > 1 for _, option in picks),
        sum(option["groups"] == 0 for _, option in picks),
    )


Offered = tuple[list[dict[str, Any]], ...]
"""Per sublayer the options of a record, each with its `latency` in microseconds and whether it is `admitted`."""


def offered(market: Market, constraints: Constraints) -> Offered:
    """All options of the record as options.json would have them under `constraints`, whatever the plan."""
    return tuple(
        [
            {
                **option,
                LATENCY: MICROSECONDS * _ms(market, sub, option),
                "admitted": constraints.admit(
                    sub.layer, sub.shape.kind, (option["groups"],) * len(sub.shape.matrices), option["units"]
                ),
            }
            for option in sub.options
        ]
        for sub in market.record.sublayers
    )


def tables_of(market: Market, plan: Plan, options: Offered) -> list[dict[str, Any]]:
    """A plan as options.json would have it, for `what_if.rate` and the figures of options."""
    return [
        {"layer": sub.layer, "kind": sub.shape.kind, "chosen": chosen, "options": entries}
        for sub, chosen, entries in zip(market.record.sublayers, plan.options, options, strict=True)
    ]


def _ms(market: Market, sub: Sublayer, option: Mapping[str, Any]) -> float:
    return market.latency.option_ms(sub.shape.kind, sub.shape.units, option) if market.latency else 0.0


@dataclass(frozen=True)
class Return:
    """When a dropped sublayer would be kept."""

    target: float | None
    """The nearest target of the curve at which something of it is kept; None: at no target."""
    label: str
    """The option that it comes back with, at the price below."""
    price: float
    """Nats per unit of cost at which that option and dropping it are worth the same."""


def comes_back(
    market: Market, path: Sequence[Plan], place: int, target: float, constraints: Constraints
) -> Return | None:
    """What brings back the dropped sublayer at `place`; None where no option of the method would keep any of it.

    At a price per unit of cost, an option is worth its loss plus its cost. Dropping is the best until the price falls
    to the largest ratio of what an option saves in loss and what it costs: then that option comes in.

    Args:
        path: the curve of the market, under the same constraints.
        target: where the sublayer is dropped.
    """
    sub, table = market.record.sublayers[place], market.tables[place]
    dropped = next(offer.loss for offer in table.offers if offer.units == 0)
    kept = [
        ((dropped - offer.loss) / offer.cost, n)
        for n, offer in zip(market.places[place], table.offers, strict=True)
        if offer.units and offer.cost and constraints.admit(sub.layer, sub.shape.kind, offer.groups, offer.units)
    ]
    if not kept:
        return None
    price, best = max(kept)
    sign = -1 if market.goal != LATENCY else 1  # less sparse, or slower
    back = [
        plan.target for plan in path if sign * (plan.target - target) > 0 and sub.options[plan.options[place]]["units"]
    ]
    nearest = min(back, key=lambda value: abs(value - target), default=None)
    return Return(nearest, sub.options[best]["label"], price)

"""Joint drops: tried together, and restored one by one where they cannot do without each other."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pgb_core.budget import Choice
from pgb_core.compensation import compensate
from pgb_core.constraints import Constraints, Pin
from pgb_core.errors import SpecError
from pgb_core.joint import Together, divergence_of_drops, settle
from pgb_core.layout import dropped_layout, untouched_layout
from pgb_core.options import Option
from tests.network import Network

PRICE = 0.01


@pytest.fixture(scope="module")
def together(network: Network) -> Together:
    fit, test = (network.batches_of(range(half, len(network.examples), 2)) for half in (0, 1))
    return divergence_of_drops(network.model, network.sublayers, weights_of(network), fit, test)


def weights_of(network: Network) -> list:
    return [stats.weights for stats in network.statistics]


def test_drops_lose_the_divergence_of_the_network_without_them(network: Network, together: Together) -> None:
    fit, test = (network.batches_of(range(half, len(network.examples), 2)) for half in (0, 1))
    dropped = frozenset({0, 3})
    layouts = [
        (dropped_layout if i in dropped else untouched_layout)(sub.shape) for i, sub in enumerate(network.sublayers)
    ]
    refitted = compensate(network.model, network.sublayers, layouts, weights_of(network), fit)
    assert together(dropped) == pytest.approx(network.divergence(refitted, test), rel=1e-4)
    assert together(frozenset()) == pytest.approx(0, abs=1e-9)
    assert together(frozenset(range(4))) > together(dropped) > 0


# --- restoring, with losses made up --------------------------------------------------------------------------------


def tables_of(network: Network) -> list[list[Option]]:
    """Drop at `PRICE`, or keep all."""
    return [
        [Option(dropped_layout(sub.shape), PRICE), Option(untouched_layout(sub.shape), 0.0)]
        for sub in network.sublayers
    ]


def dropping(network: Network, most: int = 4) -> Callable[[Constraints], Choice]:
    """Drops all that is not pinned; with more than `most` pins the target is out of reach."""

    def choose(constraints: Constraints) -> Choice:
        if len(constraints.pins) > most:
            raise SpecError("out of reach")
        kept = {(pin.layer, pin.kind) for pin in constraints.pins}
        options = tuple(int(sub.key in kept) for sub in network.sublayers)
        return Choice(options, 0, PRICE * options.count(0))

    return choose


def test_drops_that_add_up_are_left_alone(network: Network) -> None:
    choice, restored = settle(
        dropping(network),
        network.sublayers,
        tables_of(network),
        Constraints(),
        lambda dropped: 1.9 * PRICE * len(dropped),  # the sum of the prices, and not yet as much again
    )
    assert choice.options == (0, 0, 0, 0)
    assert restored == []


def test_one_of_two_that_stand_in_for_each_other_is_restored(network: Network) -> None:
    def lost(dropped: frozenset[int]) -> float:
        return PRICE * len(dropped) + (1.0 if {0, 2} <= dropped else 0.0) + (0.001 if 2 in dropped else 0.0)

    choice, restored = settle(dropping(network), network.sublayers, tables_of(network), Constraints(), lost)
    assert choice.options == (0, 0, 1, 0)  # without 2 the others lose a little less than without 0
    (entry,) = restored
    assert entry.pin == Pin(*network.sublayers[2].key)
    assert (entry.alone, entry.together, entry.without) == pytest.approx((0.04, 1.041, 0.03))


def test_restoring_goes_on_until_what_is_left_adds_up(network: Network) -> None:
    choice, restored = settle(
        dropping(network),
        network.sublayers,
        tables_of(network),
        Constraints(pins=(Pin(*network.sublayers[3].key),)),
        lambda dropped: PRICE * len(dropped) if len(dropped) < 2 else 1.0,
    )
    assert choice.options.count(0) == 1
    assert choice.options[3] == 1  # the caller's pin holds
    assert len(restored) == 2


def test_a_single_drop_is_not_tried_again(network: Network) -> None:
    def never(dropped: frozenset[int]) -> float:
        raise AssertionError(dropped)

    pins = tuple(Pin(*sub.key) for sub in network.sublayers[1:])
    choice, restored = settle(dropping(network), network.sublayers, tables_of(network), Constraints(pins=pins), never)
    assert (choice.options, restored) == ((0, 1, 1, 1), [])


def test_a_target_that_needs_the_drops_keeps_them(network: Network) -> None:
    choose = dropping(network, most=1)
    choice, restored = settle(choose, network.sublayers, tables_of(network), Constraints(), lambda d: float(len(d)))
    assert choice.options.count(0) == 3
    assert len(restored) == 1


def test_a_target_out_of_reach_is_an_error(network: Network) -> None:
    with pytest.raises(SpecError):
        settle(dropping(network, most=-1), network.sublayers, tables_of(network), Constraints(), lambda _: 0.0)

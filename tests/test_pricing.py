"""Prices: the error one would measure by hand."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from pgb_core.grouped import PrunedSublayer, cut
from pgb_core.layout import dropped_layout, rectangle_layout, untouched_layout
from pgb_core.pricing import (
    Market,
    markets,
    price,
    price_by_running,
    price_candidates,
    price_rectangle,
    pricing_batches,
)
from tests.network import Network


@pytest.fixture(scope="module")
def places(network: Network) -> list[Market]:
    """The market of every sublayer: half of the samples to refit on, half to measure; the next one writes over it."""
    halves = [network.batches_of(range(half, len(network.examples), 2)) for half in (0, 1)]
    return [copy.deepcopy(market) for market in markets(network.model, network.sublayers, network.statistics, *halves)]


@pytest.mark.parametrize("index", range(4))
def test_prices_of_rectangles_order_as_they_should(places: list[Market], index: int) -> None:
    shape = places[index].sub.shape
    units = np.arange(shape.units)
    dropped, some, most = (
        price(places[index], layout)
        for layout in (
            dropped_layout(shape),
            rectangle_layout(shape, units[: len(units) // 2]),
            rectangle_layout(shape, units[:-1]),
        )
    )
    assert dropped > some > most > 0
    assert price(places[index], untouched_layout(shape)) == 0
    assert price_rectangle(places[index], untouched_layout(shape)) < 1e-4 * dropped


@pytest.mark.parametrize("index", range(4))
def test_both_ways_to_price_agree_where_both_apply(places: list[Market], index: int) -> None:
    shape = places[index].sub.shape
    for units in (1, shape.units // 2):
        layout = rectangle_layout(shape, np.arange(units))
        assert price_rectangle(places[index], layout) == pytest.approx(
            price_by_running(places[index], layout), rel=1e-2
        )


def test_the_price_is_the_divergence_that_a_small_change_causes(network: Network, places: list[Market]) -> None:
    """The KL divergence of the predictions, for an error at the output of each sublayer, by running the network on."""
    test = network.batches_of(range(1, len(network.examples), 2))
    for index, market in enumerate(places):
        sub = market.sub
        generator = torch.Generator().manual_seed(index)
        change = 3e-3 * torch.randn(sub.exit.weight.shape, generator=generator)
        untouched = [cut(s, untouched_layout(s.shape)) for s in network.sublayers]
        with torch.no_grad():
            untouched[index].exit.weights[0].add_(change)  # type: ignore[union-attr]
        expected = network.divergence(untouched, test)
        assert market.probe.loss(market.test.hidden @ change.T) == pytest.approx(expected, rel=0.1)


def test_dearer_options_hurt_more(network: Network, places: list[Market]) -> None:
    """Every sublayer dropped alone: the prices order the divergences."""
    prices = [price(market, dropped_layout(market.sub.shape)) for market in places]
    divergences: list[float] = []
    for index, sub in enumerate(network.sublayers):
        pruned: list[PrunedSublayer] = [cut(s, untouched_layout(s.shape)) for s in network.sublayers]
        pruned[index] = cut(sub, dropped_layout(sub.shape))
        with torch.no_grad():
            pruned[index].exit.bias.copy_(places[index].fit.targets.mean(dim=0))
        divergences.append(network.divergence(pruned, network.batches))
    assert np.argsort(prices)[-1] == np.argsort(divergences)[-1]


def test_tables_are_sorted_by_cost_and_cost_what_the_modules_hold(network: Network) -> None:
    tables = price_candidates(
        network.model,
        network.sublayers,
        network.statistics,
        network.candidates,
        network.batches[:4],
        network.batches[4:],
    )
    for sub, table in zip(network.sublayers, tables, strict=True):
        assert [option.cost for option in table] == sorted(option.cost for option in table)
        assert table[0].label == "dropped"
        assert any(option.label == "untouched" and option.loss == 0 for option in table)
        for option in table[1:]:
            pruned = cut(sub, option.layout)
            assert pruned.entry is not None
            linears = [*pruned.entry.linears, pruned.exit]
            assert option.cost == sum(w.numel() for linear in linears for w in linear.weights)  # type: ignore[union-attr]


def test_the_two_samples_share_no_text(network: Network) -> None:
    fit, test = pricing_batches(network.examples, 3, 16)
    first, second = ({int(i) for batch in part for i in batch.indices} for part in (fit, test))
    assert first
    assert second
    assert not first & second
    assert first | second <= set(range(len(network.examples)))

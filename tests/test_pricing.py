"""Prices: the error one would measure by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pgb_core.compensation import advance, compensate, first_states
from pgb_core.grouped import cut
from pgb_core.layout import dropped_layout, rectangle_layout, untouched_layout
from pgb_core.pricing import price_by_running, price_candidates, price_rectangle, pricing_batches, sample_of
from tests.network import Network


@pytest.mark.parametrize("index", range(4))
def test_prices_of_rectangles_order_as_they_should(network: Network, index: int) -> None:
    sub, stats = network.sublayers[index], network.statistics[index]
    units = np.arange(sub.shape.units)
    dropped, some, most = (
        price_rectangle(sub, layout, stats)
        for layout in (
            dropped_layout(sub.shape),
            rectangle_layout(sub.shape, units[: len(units) // 2]),
            rectangle_layout(sub.shape, units[:-1]),
        )
    )
    assert dropped > some > most > 0
    assert price_rectangle(sub, untouched_layout(sub.shape), stats) < 1e-6 * dropped


@pytest.mark.parametrize("index", range(4))
def test_both_ways_to_price_agree_where_both_apply(network: Network, index: int) -> None:
    """A rectangle, refitted on one half of the samples by its Gram matrix or by running it, measured on the other."""
    sub, stats = network.sublayers[index], network.statistics[index]
    folds = []
    for fold in (0, 1):
        states = first_states(network.model, network.batches_of(range(fold, len(network.examples), 2)))
        for earlier in network.sublayers[:index]:
            states = advance(earlier, cut(earlier, untouched_layout(earlier.shape)), states)
        folds.append(sample_of(sub, states))
    for units in (1, sub.shape.units // 2):
        layout = rectangle_layout(sub.shape, np.arange(units))
        both = [price_by_running(sub, layout, stats, *pair) for pair in (folds, folds[::-1])]
        assert price_rectangle(sub, layout, stats) == pytest.approx(sum(both) / 2, rel=2e-2)


def test_the_price_of_dropping_is_the_weighted_variance_of_the_output(network: Network) -> None:
    sub, stats = network.sublayers[1], network.statistics[1]
    states = first_states(network.model, network.batches)
    states = advance(
        network.sublayers[0], cut(network.sublayers[0], untouched_layout(network.sublayers[0].shape)), states
    )
    outputs = torch.cat([target for _, target in sample_of(sub, states).targets()]).double()
    weights = torch.cat([s.weights_of(stats.weights.exit) for s in states]).double()
    mean = weights @ outputs / weights.sum()
    variance = weights @ (outputs - mean).square() / weights.sum()
    expected = 0.5 * float((stats.exit_sensitivity * variance).sum())
    assert price_rectangle(sub, dropped_layout(sub.shape), stats) == pytest.approx(expected, rel=2e-2)  # two halves


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
            held = sum(w.numel() for w in [*pruned.entry.weights, *pruned.exit.weights])
            assert option.cost == held


def test_prices_predict_which_of_two_layouts_hurts_more(network: Network) -> None:
    """Dropping one sublayer at a time: the logits move most where dropping is dearest."""
    prices, moved = [], []
    whole = [untouched_layout(sub.shape) for sub in network.sublayers]
    for index, (sub, stats) in enumerate(zip(network.sublayers, network.statistics, strict=True)):
        dropped = dropped_layout(sub.shape)
        prices.append(price_rectangle(sub, dropped, stats))
        layouts = [*whole[:index], dropped, *whole[index + 1 :]]
        pruned = compensate(network.model, network.sublayers, layouts, network.weights, network.batches)
        moved.append(network.divergence(pruned))
    assert np.argsort(prices)[-1] == np.argsort(moved)[-1]


def test_the_two_samples_share_no_text(network: Network) -> None:
    fit, test = pricing_batches(network.examples, 3, 16)
    first, second = ({int(i) for batch in part for i in batch.indices} for part in (fit, test))
    assert first
    assert second
    assert not first & second
    assert first | second <= set(range(len(network.examples)))

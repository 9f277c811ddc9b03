"""The option table: what is offered, and that its price is the error one would measure by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pgb_core.compensation import first_states
from pgb_core.grouped import cut
from pgb_core.layout import ENTRY_NAMES, SublayerShape, dropped_layout, rectangle_layout, untouched_layout
from pgb_core.options import (
    candidate_layouts,
    price,
    price_candidates,
    sample_of,
    unit_counts,
    unit_scores,
)
from tests.network import Network

SHAPES = [SublayerShape("attention", 12, 6, 2), SublayerShape("feed_forward", 12, 48, 1)]


def importance_of(shape: SublayerShape, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scores = {name: torch.rand(shape.inner, shape.hidden, generator=generator) for name in ENTRY_NAMES[shape.kind]}
    return {**scores, "output": torch.rand(shape.hidden, shape.inner, generator=generator)}


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.kind)
def test_pgb_offers_groups_that_partition_what_is_kept(shape: SublayerShape) -> None:
    layouts = candidate_layouts(shape, "pgb", importance_of(shape), np.arange(shape.units))
    assert layouts[0].dropped
    assert layouts[1].untouched
    assert {len(layout.groups) for layout in layouts[2:]} == {2, 3, 4, 6}
    for layout in layouts[2:]:
        for attribute, whole in (("columns", shape.hidden), ("rows", shape.hidden), ("units", shape.units)):
            members = np.concatenate([getattr(group, attribute) for group in layout.groups])
            assert len(set(members.tolist())) == len(members)  # disjoint
            assert len(members) == (layout.kept_units if attribute == "units" else whole)
            sizes = [len(getattr(group, attribute)) for group in layout.groups]
            assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.kind)
def test_groups_and_their_members_come_most_important_first(shape: SublayerShape) -> None:
    importance = importance_of(shape)
    scores = unit_scores(shape, importance)
    for layout in candidate_layouts(shape, "pgb", importance, np.arange(shape.units))[2:]:
        kept: list[float] = []
        for group in layout.groups:
            block = scores[np.ix_(group.units, np.concatenate([group.columns, group.rows + shape.hidden]))]
            kept.append(block.sum())
            by_unit, by_column = block.sum(axis=1), block.sum(axis=0)[: len(group.columns)]
            assert (np.diff(by_unit) <= 1e-9).all()
            assert (np.diff(by_column) <= 1e-9).all()
        assert (np.diff(kept) <= 1e-9).all()


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.kind)
def test_structured_offers_whole_units_only(shape: SublayerShape) -> None:
    layouts = candidate_layouts(shape, "structured", importance_of(shape), np.arange(shape.units))
    for layout in layouts[2:]:
        (only,) = layout.groups
        assert len(only.columns) == len(only.rows) == shape.hidden
        # those that are most missed stay
        assert only.units.tolist() == list(range(shape.units - layout.kept_units, shape.units))


def test_counts_are_multiples_of_the_groups() -> None:
    assert unit_counts(SHAPES[0], 4) == [4]
    assert unit_counts(SHAPES[0], 1) == [6, 5, 4, 3, 2, 1]
    assert all(count % 3 == 0 for count in unit_counts(SHAPES[1], 3))


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.kind)
def test_unit_scores_account_for_every_weight(shape: SublayerShape) -> None:
    importance = importance_of(shape)
    scores = unit_scores(shape, importance)
    assert scores.shape == (shape.units, 2 * shape.hidden)
    assert scores.sum() == pytest.approx(sum(float(matrix.double().sum()) for matrix in importance.values()))
    rows = slice(2 * shape.width, 3 * shape.width)  # of unit 2
    read = sum(float(importance[name][rows, 5].sum()) for name in ENTRY_NAMES[shape.kind])
    assert scores[2, 5] == pytest.approx(read)
    assert scores[2, shape.hidden + 5] == pytest.approx(float(importance["output"][5, rows].sum()))


def test_descriptions_are_words() -> None:
    shape = SHAPES[0]
    texts = [
        layout.label
        for layout in (dropped_layout(shape), untouched_layout(shape), rectangle_layout(shape, np.array([1])))
    ]
    assert texts == ["dropped", "untouched", "1 head"]


@pytest.mark.parametrize("index", range(4))
def test_prices_order_as_they_should(network: Network, index: int) -> None:
    sub, stats = network.sublayers[index], network.statistics[index]
    states = first_states(network.model, network.batches)
    sample = sample_of(sub, states)

    def loss(layout) -> float:
        return price(sub, layout, stats, sample, sample)

    units = np.arange(sub.shape.units)
    dropped, some, most = (
        loss(layout)
        for layout in (
            dropped_layout(sub.shape),
            rectangle_layout(sub.shape, units[: len(units) // 2]),
            rectangle_layout(sub.shape, units[:-1]),
        )
    )
    assert loss(untouched_layout(sub.shape)) == 0
    assert dropped > some > most > 0  # nested options, refitted and measured on the same text


def test_the_price_of_dropping_is_the_weighted_variance_of_the_output(network: Network) -> None:
    sub, stats = network.sublayers[1], network.statistics[1]
    sample = sample_of(sub, first_states(network.model, network.batches))
    outputs = torch.cat(list(sample.targets))
    expected = 0.5 * (stats.exit_sensitivity * outputs.var(dim=0, correction=0)).sum()
    assert price(sub, dropped_layout(sub.shape), stats, sample, sample) == pytest.approx(float(expected), rel=1e-4)


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
        assert table[-1].label == "untouched"
        for option in table[1:]:
            pruned = cut(sub, option.layout)
            assert pruned.entry is not None
            held = sum(w.numel() for w in [*pruned.entry.weights, *pruned.exit.weights])
            assert option.cost == held

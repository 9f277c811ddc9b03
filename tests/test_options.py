"""The option table: what is offered, and that its price is the error one would measure by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pgb_core.grouping import sizes
from pgb_core.layout import (
    ENTRY_NAMES,
    SublayerLayout,
    SublayerShape,
    dropped_layout,
    rectangle_layout,
    untouched_layout,
)
from pgb_core.options import SPLITS, TABLE_METHODS, candidate_layouts, unit_counts, unit_scores

SHAPES = [SublayerShape("attention", 12, 6, 2), SublayerShape("feed_forward", 12, 48, 1)]


def importance_of(shape: SublayerShape, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scores = {name: torch.rand(shape.inner, shape.hidden, generator=generator) for name in ENTRY_NAMES[shape.kind]}
    return {**scores, "output": torch.rand(shape.hidden, shape.inner, generator=generator)}


def offered(method: str, shape: SublayerShape) -> list[SublayerLayout]:
    layouts = candidate_layouts(shape, importance_of(shape), np.arange(shape.units))
    return [layout for layout in layouts if TABLE_METHODS[method](layout)]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.kind)
def test_pgb_offers_groups_that_partition_what_is_kept(shape: SublayerShape) -> None:
    layouts = offered("pgb", shape)
    assert layouts[0].dropped
    assert layouts[1].untouched
    assert {len(layout.groups) for layout in layouts[2:]} == {2, 3, 4}
    for layout in layouts[2:]:
        for attribute, whole in (("columns", shape.hidden), ("rows", shape.hidden), ("units", shape.units)):
            members = np.concatenate([getattr(group, attribute) for group in layout.groups])
            assert len(set(members.tolist())) == len(members)  # disjoint
            assert len(members) == (layout.kept_units if attribute == "units" else whole)
            found = sorted((len(getattr(group, attribute)) for group in layout.groups), reverse=True)
            whole_size = len(members)
            assert any(found == sorted(sizes(whole_size, shares), reverse=True) for shares in SPLITS)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.kind)
def test_groups_and_their_members_come_most_important_first(shape: SublayerShape) -> None:
    importance = importance_of(shape)
    scores = unit_scores(shape, importance)
    for layout in offered("pgb", shape)[2:]:
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
    layouts = offered("structured", shape)
    assert len(layouts) > 5
    for layout in layouts[2:]:
        (only,) = layout.groups
        assert len(only.columns) == len(only.rows) == shape.hidden
        # those that are most missed stay
        assert only.units.tolist() == list(range(shape.units - layout.kept_units, shape.units))


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.kind)
def test_mixed_offers_what_the_two_others_do_and_nothing_else(shape: SublayerShape) -> None:
    labels = {method: {layout.label for layout in offered(method, shape)} for method in TABLE_METHODS}
    assert labels["pgb-mixed"] == labels["pgb"] | labels["structured"]
    assert labels["pgb"] & labels["structured"] == {"dropped", "untouched"}


def test_every_number_of_heads_and_neurons_down_to_a_handful() -> None:
    heads = SublayerShape("attention", 768, 12, 64)
    assert unit_counts(heads, 1) == [12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1]
    assert unit_counts(heads, 2) == [12, 9, 7, 5, 4, 3, 2]
    assert unit_counts(SHAPES[0], 4) == [6, 4]
    assert unit_counts(SHAPES[0], 7) == []
    wide = SublayerShape("feed_forward", 768, 3072, 1)
    for groups in (1, 2, 3, 4, 6):
        counts = unit_counts(wide, groups)
        assert counts == sorted(counts, reverse=True)
        assert counts[0] == 3072
        assert all(count % groups == 0 for count in counts)
        assert counts[-1] < 7 * groups
        assert min(fewer / more for more, fewer in zip(counts, counts[1:], strict=False)) > 0.55


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

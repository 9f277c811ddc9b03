"""Stage 2 against scipy's assignment, against brute force, and on planted blocks."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from pgb_core.grouping import STARTS, assign, equal_shares, group, sizes


@st.composite
def transport(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Scores (n, G), with ties or without, and capacities that may leave rows over."""
    n, groups = draw(st.integers(1, 24)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    scores = rng.integers(0, 4, (n, groups)).astype(float) if draw(st.booleans()) else rng.random((n, groups))
    capacities = rng.multinomial(rng.integers(0, n + 1), np.ones(groups) / groups)
    return scores, capacities


@given(transport())
def test_assign_is_as_good_as_scipys_assignment(problem: tuple[np.ndarray, np.ndarray]) -> None:
    scores, capacities = problem
    labels = assign(scores, capacities)
    assert np.array_equal(np.bincount(labels[labels >= 0], minlength=len(capacities)), capacities)
    slots = np.repeat(np.arange(len(capacities)), capacities)
    rows, columns = linear_sum_assignment(scores[:, slots], maximize=True)
    placed = np.flatnonzero(labels >= 0)
    assert scores[placed, labels[placed]].sum() == pytest.approx(scores[rows, slots[columns]].sum())


def test_assign_refuses_more_places_than_rows() -> None:
    with pytest.raises(ValueError, match="only 2 rows"):
        assign(np.ones((2, 2)), np.array([2, 1]))


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(("units", "columns", "groups"), [(24, 36, 3), (16, 24, 4), (12, 48, 2)])
def test_planted_blocks_with_a_contrast_of_ten_are_found(start: str, units: int, columns: int, groups: int) -> None:
    rng = np.random.default_rng(3)
    rows = rng.permutation(np.repeat(np.arange(groups), sizes(units, equal_shares(groups))))
    cols = rng.permutation(np.repeat(np.arange(groups), sizes(columns, equal_shares(groups))))
    scores = np.where(rows[:, None] == cols, 10.0, 1.0) * rng.uniform(0.5, 1.5, (units, columns))
    planted = scores[rows[:, None] == cols].sum()
    assert group(scores, equal_shares(groups), starts=[start] if start != "random" else STARTS).kept == pytest.approx(
        planted
    )


@given(st.integers(2, 4), st.integers(0, 2**20))
def test_groups_partition_every_section_and_account_for_what_is_kept(groups: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    sections = [int(rng.integers(groups, 12)), int(rng.integers(groups, 12))]
    scores = rng.random((int(rng.integers(groups, 14)), sum(sections)))
    found = group(scores, equal_shares(groups), sections=sections, seed=seed)
    for labels, size in ((found.units, len(scores)), (found.columns[: sections[0]], sections[0])):
        assert np.array_equal(np.sort(np.bincount(labels, minlength=groups))[::-1], sizes(size, equal_shares(groups)))
    assert found.kept == pytest.approx(scores[found.units[:, None] == found.columns].sum())


@given(st.integers(0, 2**20))
def test_never_worse_than_its_best_start_nor_than_a_given_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.random((10, 12)) ** 3
    given_columns = rng.permutation(np.repeat(np.arange(3), 4))
    best = group(scores, equal_shares(3), columns=given_columns, seed=seed).kept
    units = assign(scores @ (given_columns[:, None] == np.arange(3)), sizes(10, equal_shares(3)))
    assert best >= scores[units[:, None] == given_columns].sum() - 1e-9
    for start in STARTS:
        assert best >= group(scores, equal_shares(3), starts=[start], seed=seed).kept - 1e-9


def test_two_groups_of_four_by_four_reach_the_optimum_by_brute_force() -> None:
    scores = np.random.default_rng(5).random((4, 4)) ** 2
    halves = [np.array(p) for p in set(permutations([0, 0, 1, 1]))]
    optimum = max(scores[r[:, None] == c].sum() for r in halves for c in halves)
    assert group(scores, equal_shares(2)).kept == pytest.approx(optimum)


def test_more_groups_than_units_are_refused() -> None:
    with pytest.raises(ValueError, match="3 groups do not fit"):
        group(np.ones((2, 8)), equal_shares(3))

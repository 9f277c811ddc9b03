"""The upper bound of the permutation benchmark: it holds, and it is close where blocks are planted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.permutation import degree_bound, measure, planted_matrices, spectral_bound, upper_bound
from pgb_core.grouping import equal_shares, group


@given(st.integers(2, 4), st.integers(0, 2**20), st.booleans())
def test_no_grouping_keeps_more_than_any_of_the_bounds(groups: int, seed: int, two_sections: bool) -> None:
    rng = np.random.default_rng(seed)
    sections = [groups * int(n) for n in rng.integers(1, 5, 1 + two_sections)]
    scores = rng.lognormal(0, rng.uniform(0, 3), (groups * int(rng.integers(1, 5)), sum(sections)))
    kept = group(scores, equal_shares(groups), sections=sections).kept * (1 - 1e-9)
    assert spectral_bound(scores, groups) >= kept
    assert degree_bound(scores, groups, sections) >= kept
    assert upper_bound(scores, groups, sections) >= kept


def test_the_degree_bound_is_reached_by_blocks_without_anything_around_them() -> None:
    scores = np.kron(np.eye(3), np.ones((4, 5)))
    assert degree_bound(scores, 3, [15]) == pytest.approx(60)
    assert spectral_bound(scores, 3) == pytest.approx(60)


def test_planted_blocks_are_found_and_nearly_meet_the_bound() -> None:
    matrix = next(planted_matrices((96, 96), (10.0,)))
    found = measure(matrix, 2, tries=False)["kept"]
    assert 0.99 * found["bound"] < found["ours"] <= found["bound"]
    assert found["random"] < found["ours"]

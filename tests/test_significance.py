"""Paired statistics against scipy and against simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, norm, ttest_rel

from pgb_core.significance import Difference, mcnemar, paired, paired_means

counts = st.integers(0, 400)


@given(counts, counts)
def test_the_exact_test_equals_scipys(gained: int, lost: int) -> None:
    expected = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert mcnemar(gained, lost) == pytest.approx(expected, rel=1e-9)


def test_the_exact_test_of_thousands_of_examples() -> None:
    assert mcnemar(1500, 1700) == pytest.approx(binomtest(1500, 3200).pvalue, rel=1e-9)
    assert mcnemar(0, 3000) == 0.0  # below the smallest float


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_value_and_error_are_those_of_the_differences_example_by_example(answers: list[tuple[bool, bool]]) -> None:
    first, second = (np.array(column) for column in zip(*answers, strict=True))
    differences = first.astype(float) - second.astype(float)
    found = paired(first, second)
    assert found.value == pytest.approx(differences.mean(), abs=1e-12)
    assert found.error == pytest.approx(differences.std() / np.sqrt(len(answers)), abs=1e-9)
    assert found.gained - found.lost == differences.sum()
    other = paired(second, first)
    assert other.value == -found.value
    assert (other.error, other.p_value) == (found.error, found.p_value)


def test_the_error_is_the_spread_of_the_difference_over_samples() -> None:
    rng = np.random.default_rng(0)
    kinds = rng.choice(4, p=[0.8, 0.1, 0.06, 0.04], size=(4000, 500))  # both right, only one, only the other, none
    found = [paired(row <= 1, (row == 0) | (row == 2)) for row in kinds]
    spread = np.std([difference.value for difference in found])
    assert np.mean([difference.error for difference in found]) == pytest.approx(spread, rel=0.03)
    assert np.mean([difference.value for difference in found]) == pytest.approx(0.04, abs=0.001)


def test_equal_classifiers_are_told_apart_as_often_as_the_level_says() -> None:
    rng = np.random.default_rng(1)
    flips = rng.binomial(60, 0.5, size=5000)
    rejected = np.mean([mcnemar(int(n), 60 - int(n)) <= 0.05 for n in flips])
    assert 0.01 < rejected <= 0.05  # exact tests keep below their level


def test_above_and_below_need_more_than_so_many_errors() -> None:
    better = Difference(0.03, 0.01, 5, 2, 0.1)
    assert better.above(2)
    assert not better.above(3)
    assert not better.below(0)
    worse = Difference(-0.03, 0.01, 2, 5, 0.1)
    assert worse.below(2)
    assert not worse.below(3)
    same = Difference(0.0, 0.0, 0, 0, 1.0)
    assert not same.above(2)
    assert not same.below(2)


def test_vectors_of_different_examples_are_refused() -> None:
    for first, second in (([True], [True, False]), ([], [])):
        with pytest.raises(ValueError, match="the same examples"):
            paired(np.array(first, dtype=bool), np.array(second, dtype=bool))
    with pytest.raises(ValueError, match="negative"):
        mcnemar(-1, 2)


def test_means_of_points_are_compared_in_pairs() -> None:
    generator = np.random.default_rng(0)
    hard = generator.random(500)  # what both find hard says nothing about the difference
    first, second = hard + 0.05 + 0.1 * generator.normal(size=500), hard + 0.1 * generator.normal(size=500)
    found = paired_means(first, second)
    gains = first - second
    assert found.value == pytest.approx(gains.mean())
    assert found.error == pytest.approx(gains.std(ddof=1) / np.sqrt(500))
    assert found.error < np.sqrt((first.var() + second.var()) / 500) / 2
    assert (found.better, found.worse) == ((gains > 0).sum(), (gains < 0).sum())
    assert found.p_value == pytest.approx(2 * norm.sf(gains.mean() / found.error))
    assert np.log10(found.p_value) == pytest.approx(np.log10(ttest_rel(first, second).pvalue), rel=0.1)


def test_means_that_are_equal_differ_by_nothing() -> None:
    same = paired_means(np.ones(5), np.ones(5))
    assert (same.value, same.error, same.p_value) == (0, 0, 1)
    assert paired_means(np.ones(5), np.zeros(5)).p_value == 0
    with pytest.raises(ValueError, match="two vectors"):
        paired_means(np.ones(5), np.ones(4))

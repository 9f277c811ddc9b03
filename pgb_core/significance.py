"""Whether two classifiers differ: paired statistics over the examples that both have answered.

Two pruned models are right and wrong on mostly the same examples. The standard errors of their two scores do not know
that and are several times too wide for the difference; what counts are the examples on which just one of them is right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """How much more often the first of two classifiers is right than the second, over N examples.

    >>> paired(np.array([True, True, False, True]), np.array([True, False, False, True]))
    Difference(value=0.25, error=0.21650635094610965, gained=1, lost=0, p_value=1.0)
    """

    value: float
    """Share of right answers of the first, less that of the second."""
    error: float
    """Standard error of `value`; 0 where both are right on the same examples."""
    gained: int
    """Examples on which only the first is right."""
    lost: int
    """Examples on which only the second is right."""
    p_value: float
    """Of the exact McNemar test."""

    def above(self, errors: float) -> bool:
        """Whether the first is better by more than so many standard errors."""
        return self.value > errors * self.error

    def below(self, errors: float) -> bool:
        """Whether the first is worse by more than so many standard errors."""
        return -self.value > errors * self.error


def paired(first: BoolArray, second: BoolArray) -> Difference:
    """Compare two (N,) vectors that say on which examples each classifier is right.

    The standard error is that of a difference of dependent proportions, sqrt((b + c)/N - ((b - c)/N)^2) / sqrt(N) with
    b and c the discordant counts (Agresti, Categorical Data Analysis, section on matched pairs).

    Raises:
        ValueError: the vectors are empty or of unequal length.
    """
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise ValueError(f"two vectors of the same examples are needed, not {first.shape} and {second.shape}")
    count = len(first)
    gained, lost = int((first & ~second).sum()), int((second & ~first).sum())
    value = (gained - lost) / count
    error = math.sqrt(((gained + lost) / count - value**2) / count)
    return Difference(value, error, gained, lost, mcnemar(gained, lost))


@dataclass(frozen=True)
class MeanDifference:
    """How many points more the first of two models has than the second, in the mean over N examples."""

    value: float
    error: float
    """Standard error of `value`; 0 where both have the same points on every example."""
    better: int
    """Examples on which the first has more."""
    worse: int
    """Examples on which it has fewer."""
    p_value: float
    """Of a two-sided z-test: the mean of hundreds of paired differences is as good as normal."""


def paired_means(first: FloatArray, second: FloatArray) -> MeanDifference:
    """Compare two (N,) vectors of points on the same examples: F1 of answers, less a squared error, and the like.

    Raises:
        ValueError: there are fewer than two examples, or the vectors are of unequal length.
    """
    if first.shape != second.shape or first.ndim != 1 or len(first) < 2:
        raise ValueError(f"two vectors of the same examples are needed, not {first.shape} and {second.shape}")
    gains = first - second
    value, error = float(gains.mean()), float(gains.std(ddof=1)) / math.sqrt(len(gains))
    p_value = math.erfc(abs(value) / error / math.sqrt(2)) if error else float(value == 0)
    return MeanDifference(value, error, int((gains > 0).sum()), int((gains < 0).sum()), p_value)


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided p-value of the exact McNemar test (1947): the discordant examples as throws of a fair coin.

    >>> mcnemar(0, 5)
    0.0625

    Raises:
        ValueError: a count is negative.
    """
    if min(gained, lost) < 0:
        raise ValueError(f"counts cannot be negative: {gained}, {lost}")
    throws, term, tail = gained + lost, 1, 0
    for heads in range(min(gained, lost) + 1):
        tail += term
        term = term * (throws - heads) // (heads + 1)  # the next binomial coefficient
    # whole numbers to the end: with thousands of throws neither factor fits a float
    return min(1.0, 2 * tail / (1 << throws))

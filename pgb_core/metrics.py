"""Metrics of classification and regression, as fractions, with standard errors over the choice of examples.

The functions are those of scikit-learn and scipy; `squad` has the metrics of question answering. Importing this module
imports neither of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgb_core.errors import TaskError

TITLES: dict[str, str] = {
    "accuracy": "Accuracy",
    "f1": "F1",
    "matthews": "Matthews correlation",
    "pearson_spearman": "Pearson/Spearman",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
    "exact_match": "Exact match",
}
"""Metrics by name, as people read them."""
DRAWS = 200
"""Bootstrap samples behind a standard error."""

Labels = NDArray[np.int64]
Values = NDArray[np.float64]


def title(metric: str) -> str:
    """What people call `metric`.

    >>> title("matthews")
    'Matthews correlation'
    """
    return TITLES.get(metric, metric.replace("_", " ").capitalize())


def phrase(metric: str) -> str:
    """The same within a sentence.

    >>> phrase("exact_match"), phrase("f1")
    ('exact match', 'F1')
    """
    name = title(metric)
    return name.lower() if metric in ("accuracy", "exact_match") else name


def compute_score(metric: str, predictions: NDArray[Any], labels: NDArray[Any], positive: int = 1) -> float:
    """`metric` of predictions (N,) where `labels` (N,) are right: label ids, or values of a regression.

    `accuracy`: share of right answers; `f1`: of the label `positive`; `matthews`: correlation of label ids; `pearson`,
    `spearman` and `pearson_spearman`, their mean (as GLUE reports STS-B): of values. Where there is nothing to
    correlate, as one of the two never varies, a correlation is 0.

    Raises:
        TaskError: unknown metric.
    """
    if metric in _OF_VALUES:
        return _OF_VALUES[metric](np.asarray(predictions, np.float64), np.asarray(labels, np.float64))
    pairs, counts = _pairs(predictions, labels)
    return _of_labels(metric, positive)(pairs, counts)


def standard_error(metric: str, predictions: NDArray[Any], labels: NDArray[Any], positive: int = 1) -> float:
    """Standard error of `compute_score` over the choice of examples: binomial for accuracy, else a seeded bootstrap.

    Raises:
        TaskError: unknown metric.
    """
    count = len(labels)
    if metric == "accuracy":
        score = compute_score(metric, predictions, labels)
        return float(np.sqrt(score * (1 - score) / count))
    return float(np.std(bootstrap(metric, predictions, labels, positive), ddof=1))


def bootstrap(metric: str, predictions: NDArray[Any], labels: NDArray[Any], positive: int = 1, seed: int = 0) -> Values:
    """(DRAWS,) `compute_score` of as many examples drawn with replacement (Efron, 1979)."""
    generator, count = np.random.default_rng(seed), len(labels)
    if metric in _OF_VALUES:
        draws = (generator.integers(0, count, count) for _ in range(DRAWS))
        return np.array([compute_score(metric, predictions[drawn], labels[drawn]) for drawn in draws])
    # examples with the same label and prediction are alike: how often each kind is drawn says all, and quickly
    pairs, counts = _pairs(predictions, labels)
    score = _of_labels(metric, positive)
    return np.array([score(pairs, drawn) for drawn in generator.multinomial(count, counts / count, DRAWS)])


def majority_score(metric: str, labels: NDArray[Any], positive: int = 1) -> float:
    """The score of always giving one answer, the commonest of `labels` (N,): what no model should fall below."""
    if metric in _OF_VALUES:
        return 0.0
    return compute_score(metric, np.full_like(labels, np.bincount(labels).argmax()), labels, positive)


# --- of label ids --------------------------------------------------------------------------------------------------


def _pairs(predictions: NDArray[Any], labels: NDArray[Any]) -> tuple[Labels, Labels]:
    """The kinds of (label, prediction) there are, (2, K), and how many examples are of each."""
    kinds, counts = np.unique(np.stack([labels, predictions]), axis=1, return_counts=True)
    return kinds, counts


def _of_labels(metric: str, positive: int) -> Callable[[Labels, Labels], float]:
    from sklearn import metrics

    functions: dict[str, Callable[..., float]] = {
        "accuracy": metrics.accuracy_score,
        "f1": lambda labels, found, **weights: metrics.f1_score(
            labels == positive, found == positive, zero_division=0.0, **weights
        ),
        "matthews": metrics.matthews_corrcoef,
    }
    if metric not in functions:
        raise TaskError(f"unknown metric {metric!r}; choose one of {', '.join((*functions, *_OF_VALUES))}.")

    def score(pairs: Labels, counts: Labels) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a sample of a single label: the score is 0 or 1 then
            return float(functions[metric](*pairs, sample_weight=counts))

    return score


# --- of values -----------------------------------------------------------------------------------------------------


def _pearson(found: Values, right: Values) -> float:
    from scipy import stats

    return float(stats.pearsonr(found, right).statistic) if _vary(found, right) else 0.0


def _spearman(found: Values, right: Values) -> float:
    from scipy import stats

    return float(stats.spearmanr(found, right).statistic) if _vary(found, right) else 0.0


def _vary(found: Values, right: Values) -> bool:
    """Whether both vary enough to be correlated: by more than rounding."""
    return len(found) > 1 and all(np.std(x) > 1e-9 * (1.0 + np.abs(x).max()) for x in (found, right))


_OF_VALUES: dict[str, Callable[[Values, Values], float]] = {
    "pearson": _pearson,
    "spearman": _spearman,
    "pearson_spearman": lambda found, right: (_pearson(found, right) + _spearman(found, right)) / 2,
}

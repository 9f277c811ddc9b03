from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgb_core.errors import TaskError
from pgb_core.metrics import TITLES, bootstrap, compute_score, majority_score, standard_error, title


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=50))
def test_accuracy_and_its_standard_error(pairs: list[tuple[int, int]]) -> None:
    predictions, labels = np.array(pairs, dtype=np.int64).T
    share = sum(a == b for a, b in pairs) / len(pairs)
    assert compute_score("accuracy", predictions, labels) == pytest.approx(share)
    assert standard_error("accuracy", predictions, labels) == pytest.approx((share * (1 - share) / len(pairs)) ** 0.5)


@pytest.fixture
def answers() -> tuple[np.ndarray, np.ndarray]:
    """Predictions that are right four times of five, and labels of which a third are 1."""
    generator = np.random.default_rng(0)
    labels = (generator.random(400) < 1 / 3).astype(np.int64)
    return np.where(generator.random(400) < 0.8, labels, 1 - labels), labels


def test_matthews_and_f1_by_their_formulas(answers: tuple[np.ndarray, np.ndarray]) -> None:
    predictions, labels = answers
    table = np.array([[np.sum((labels == a) & (predictions == b)) for b in (0, 1)] for a in (0, 1)], dtype=float)
    (tn, fp), (fn, tp) = table
    phi = (tp * tn - fp * fn) / np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    assert compute_score("matthews", predictions, labels) == pytest.approx(phi)
    assert compute_score("f1", predictions, labels) == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert compute_score("f1", predictions, labels, positive=0) == pytest.approx(2 * tn / (2 * tn + fp + fn))
    assert standard_error("matthews", predictions, labels) == pytest.approx(np.sqrt((1 - phi**2) / 400), rel=0.3)


@pytest.mark.parametrize("metric", ["f1", "matthews"])
def test_the_quick_bootstrap_is_the_ordinary_one(metric: str, answers: tuple[np.ndarray, np.ndarray]) -> None:
    predictions, labels = answers
    generator = np.random.default_rng(7)
    drawn = [generator.integers(0, 400, 400) for _ in range(400)]
    slow = np.array([compute_score(metric, predictions[d], labels[d]) for d in drawn])
    quick = bootstrap(metric, predictions, labels)
    assert quick.mean() == pytest.approx(slow.mean(), abs=3 * slow.std() / np.sqrt(200))
    assert quick.std() == pytest.approx(slow.std(), rel=0.2)
    assert np.array_equal(quick, bootstrap(metric, predictions, labels))


def test_correlations_of_values() -> None:
    generator = np.random.default_rng(1)
    right = generator.normal(size=500)
    found = 0.8 * right + 0.6 * generator.normal(size=500)  # a correlation of 0.8 but for chance
    pearson = np.corrcoef(found, right)[0, 1]
    ranks = [np.argsort(np.argsort(values)) for values in (found, right)]
    spearman = np.corrcoef(*ranks)[0, 1]
    assert compute_score("pearson", found, right) == pytest.approx(pearson)
    assert compute_score("spearman", found, right) == pytest.approx(spearman)
    assert compute_score("pearson_spearman", found, right) == pytest.approx((pearson + spearman) / 2)
    assert compute_score("spearman", np.exp(found), right) == pytest.approx(spearman)  # ranks alone count
    # the textbook's large-sample error of a correlation
    assert standard_error("pearson", found, right) == pytest.approx((1 - pearson**2) / np.sqrt(500), rel=0.3)
    assert standard_error("pearson", found, right) == standard_error("pearson", found, right)


@pytest.mark.parametrize("metric", ["pearson", "spearman", "pearson_spearman"])
def test_a_constant_correlates_with_nothing(metric: str) -> None:
    right = np.linspace(0, 5, 20)
    assert compute_score(metric, np.full(20, 2.4000000953674316, dtype=np.float32), right) == 0
    assert compute_score(metric, right, np.zeros(20)) == 0
    assert standard_error(metric, np.zeros(20), right) == 0
    assert majority_score(metric, right) == 0


def test_a_sample_of_one_label_has_a_score() -> None:
    ones = np.ones(10, dtype=np.int64)
    assert compute_score("f1", ones, ones) == 1
    assert compute_score("f1", 1 - ones, 1 - ones) == 0
    assert compute_score("matthews", ones, ones) == 0


def test_the_commonest_answer() -> None:
    labels = np.array([0, 1, 1, 1])
    assert majority_score("accuracy", labels) == 0.75
    assert majority_score("f1", labels) == pytest.approx(6 / 7)
    assert majority_score("f1", labels, positive=0) == 0
    assert majority_score("matthews", labels) == 0


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(TaskError, match="unknown metric 'charm'"):
        compute_score("charm", np.zeros(3, dtype=np.int64), np.zeros(3, dtype=np.int64))


def test_every_metric_has_a_title() -> None:
    assert title("f1") == "F1"
    assert all(title(name) == text for name, text in TITLES.items())

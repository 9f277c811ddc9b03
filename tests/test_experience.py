"""What past runs say of the score: the interval against statsmodels' formula by hand and scipy, and its limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from pgb_core import experience, store
from pgb_core.experience import COVERAGE, FEWEST, Experience, Past, learn, past_runs
from pgb_core.settings import get_settings
from pgb_core.store import Run
from tests.sample_run import make_sample_run


def past(loss: float, drop: float) -> Past:
    return Past("run", "pgb", 0.5, loss, drop, 0.004)


def points(count: int, slope: float = 0.5, noise: float = 0.002, seed: int = 0) -> list[Past]:
    rng = np.random.default_rng(seed)
    losses = np.linspace(0.005, 0.09, count)
    return [past(loss, slope * loss + rng.normal(0, noise)) for loss in losses]


def test_the_quantiles_are_those_of_the_t_distribution() -> None:
    expected = stats.t.ppf(0.5 + COVERAGE / 2, np.arange(1, len(experience._QUANTILES) + 1))
    np.testing.assert_allclose(experience._QUANTILES, expected, atol=5e-5)
    assert pytest.approx(stats.norm.ppf(0.5 + COVERAGE / 2), abs=5e-5) == experience._NORMAL


@pytest.mark.parametrize("count", [3, 6, 40])
def test_the_band_is_the_prediction_interval_of_a_line_through_the_origin(count: int) -> None:
    runs = points(count)
    x, y = np.array([p.loss for p in runs]), np.array([p.drop for p in runs])
    slope = float(np.linalg.lstsq(x[:, None], y, rcond=None)[0][0])
    learned = learn(runs)
    assert learned is not None
    band = learned.band(0.05)
    assert band is not None
    spread = math.sqrt(float(((y - slope * x) ** 2).sum()) / (count - 1))
    half = stats.t.ppf(0.9, count - 1) * spread * math.sqrt(1 + 0.05**2 / float(x @ x))
    assert band.expected == pytest.approx(slope * 0.05)
    assert (band.low, band.high) == pytest.approx((slope * 0.05 - half, slope * 0.05 + half), rel=0.04)


def test_the_band_holds_as_many_new_runs_as_it_says() -> None:
    inside = 0
    for seed in range(400):
        *known, new = points(7, seed=seed)
        learned = learn(known)
        assert learned is not None
        band = learned.band(min(new.loss, 1.1 * learned.largest))
        assert band is not None
        inside += band.low <= 0.5 * min(new.loss, 1.1 * learned.largest) + (new.drop - 0.5 * new.loss) <= band.high
    assert inside / 400 == pytest.approx(COVERAGE, abs=0.06)


def test_too_few_runs_and_losses_beyond_them_get_no_band() -> None:
    assert learn([]) is None
    assert learn(points(FEWEST - 1)) is None
    assert learn([past(0.0, 0.0)] * 5) is None  # nothing was predicted lost: no slope
    learned = learn(points(FEWEST))
    assert isinstance(learned, Experience)
    assert learned.band(0.5) is None
    assert learned.band(0.09) is not None


def done(**values: object) -> Run:
    return store.read_run(make_sample_run(get_settings().runs_dir, **values))  # type: ignore[arg-type]


def test_runs_of_one_checkpoint_and_task_count_and_equal_ones_once() -> None:
    first, same = done(seed=1, sparsity=0.6), done(seed=1, sparsity=0.6, recovered=True)
    done(seed=2, task="tweets")
    done(seed=3, method="kwon")  # predicts nothing
    assert first.result is not None
    found = past_runs(store.list_runs(get_settings().runs_dir), first.spec["fingerprint"], "bbc-news")
    assert [entry.loss for entry in found] == [first.result["predictions"]["pgb"]["loss"]]
    assert found[0].drop == pytest.approx(first.result["score"]["dense"] - first.result["score"]["compensated"])
    assert found[0].run in (first.id, same.id)
    assert past_runs([first], "another checkpoint", "bbc-news") == []

"""What past runs say of a predicted loss: how far the score fell when so much was predicted.

The table's loss is a divergence in nats, added up sublayer by sublayer; nobody promises points of accuracy. Finished
runs of the same checkpoint and task have both, and near zero the one is proportional to the other. So a straight line
through the origin is fitted, drop = slope * loss + noise, and a new run is expected inside its prediction interval

    slope * loss +- t * s * sqrt(1 + loss^2 / sum loss_i^2),    s^2 = sum residual_i^2 / (n - 1)

(Montgomery, Peck, Vining, Introduction to Linear Regression Analysis, section 2.10, regression through the origin).
With few runs t is large and the interval wide, as it should be; beyond the losses that were tried it says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from pgb_core.store import Run

FEWEST = 3
"""Runs that a band needs."""
COVERAGE = 0.8
"""Share of new runs that fall inside the band, if the line and normal noise describe them."""
_BEYOND = 1.1
"""How far beyond the largest loss of a run the line is trusted."""
_QUANTILES = (
    *(3.0777, 1.8856, 1.6377, 1.5332, 1.4759, 1.4398, 1.4149, 1.3968, 1.3830, 1.3722),
    *(1.3634, 1.3562, 1.3502, 1.3450, 1.3406, 1.3368, 1.3334, 1.3304, 1.3277, 1.3253),
)
"""90 % quantiles of Student's t with 1 to 20 degrees of freedom; scipy would take half a second to import."""
_NORMAL = 1.2816


@dataclass(frozen=True)
class Past:
    """One finished run: what was predicted, in nats, and by how much its score fell after the refit, as a fraction."""

    run: str
    method: str
    sparsity: float
    loss: float
    drop: float
    standard_error: float | None
    """Of the pruned model's score."""


@dataclass(frozen=True)
class Band:
    """Where the drop of a new run is expected, as fractions."""

    expected: float
    low: float
    high: float


@dataclass(frozen=True)
class Experience:
    """The line through the past runs."""

    slope: float
    spread: float
    """Standard deviation of the drops around it."""
    squares: float
    """Sum of squared losses."""
    runs: int
    largest: float
    """Loss of the run that was predicted to lose the most."""

    def band(self, loss: float) -> Band | None:
        """Where the drop at a predicted loss is expected; None beyond what past runs have tried."""
        if loss > _BEYOND * self.largest:
            return None
        freedom = self.runs - 1
        t = _QUANTILES[freedom - 1] if freedom <= len(_QUANTILES) else _NORMAL
        half = t * self.spread * math.sqrt(1 + loss**2 / self.squares)
        return Band(self.slope * loss, self.slope * loss - half, self.slope * loss + half)


def past_runs(runs: Iterable[Run], fingerprint: str, task: str) -> list[Past]:
    """The finished runs of a checkpoint's weights on a task that predicted a loss, by rising loss.

    Two runs that differ in what comes after the refit alone have one refitted model: they count once.
    """
    found = {}
    for run in runs:
        if run.result is None or (run.spec.get("fingerprint"), run.spec["task"]) != (fingerprint, task):
            continue
        predicted = (run.result.get("predictions") or {}).get(run.spec["method"])
        score = run.result["score"]
        if predicted is None or score.get("compensated") is None:
            continue
        drop = score["dense"] - score["compensated"]
        found[run.spec["method"], predicted["loss"], drop] = Past(
            run.id,
            run.spec["method"],
            run.result["sparsity"]["achieved"],
            predicted["loss"],
            drop,
            (score.get("standard_error") or {}).get("compensated"),
        )
    return sorted(found.values(), key=lambda past: past.loss)


def learn(past: Iterable[Past]) -> Experience | None:
    """The line through `past`; None while there are fewer than `FEWEST` runs with a loss."""
    points = [(p.loss, p.drop) for p in past if p.loss > 0]
    if len(points) < FEWEST:
        return None
    squares = sum(loss**2 for loss, _ in points)
    slope = sum(loss * drop for loss, drop in points) / squares
    spread = math.sqrt(sum((drop - slope * loss) ** 2 for loss, drop in points) / (len(points) - 1))
    return Experience(slope, spread, squares, len(points), max(loss for loss, _ in points))

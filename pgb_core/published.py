"""Figures of other papers on BERT-base, each with its setting and source: references, never measurements of ours.

`data/published.json` holds them. They are dev-set scores; the settings (training, distillation, what density counts)
differ from paper to paper and from ours.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).parent / "data" / "published.json"


@dataclass(frozen=True)
class Published:
    """One figure: `density` is the share of encoder weights kept, `score` a fraction."""

    method: str
    density: float
    task: str
    metric: str
    score: float
    source: str
    exact: bool
    """Whether it is stated in text or data; else it was read off a plot, to about 0.3 points."""
    retraining: str | None = None
    """What the method spends on training after or while pruning; None of a dense model."""
    speedup: float | None = None

    @property
    def setting(self) -> str:
        """In words, all that is known of how it came about."""
        training = f"retraining: {self.retraining}" if self.retraining else "dense"
        speed = f"; {self.speedup:g} x as fast as dense, by its source" if self.speedup else ""
        return f"BERT-base; {training}{speed}{'' if self.exact else '; read off a plot, to about 0.3 points'}"


def published(task: str, metric: str) -> tuple[Published, ...]:
    """The figures for one task and metric, by rising density; none where nobody is cited."""
    return tuple(sorted((p for p in _all() if (p.task, p.metric) == (task, metric)), key=lambda p: p.density))


@functools.cache
def _all() -> tuple[Published, ...]:
    return tuple(
        Published(
            entry["method"],
            entry["density"],
            entry["task"],
            entry["metric"],
            entry["value"] / 100,
            entry["source"],
            entry["read_from"] == "stated",
            entry.get("retraining"),
            entry.get("speedup"),
        )
        for entry in json.loads(FILE.read_text(encoding="utf-8"))["results"]
    )

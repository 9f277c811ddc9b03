"""Progress out of a run, cancellation into it: stages call a `Step`, the callback may raise JobCancelled."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol


class Step(Protocol):
    """What a stage calls after each piece of work: `done` of `total` pieces, and what comes next."""

    def __call__(self, done: int, total: int, message: str = "") -> None: ...


def silent(done: int, total: int, message: str = "") -> None:
    """A `Step` that tells nobody."""


def part(step: Step, begin: float, end: float, otherwise: str = "") -> Step:
    """A `Step` for one piece of what `step` reports on: the piece from `begin` to `end`, shares of the whole.

    `otherwise` is the message where the piece has none of its own.
    """

    def inner(done: int, total: int, message: str = "") -> None:
        step(round(1000 * (begin + (end - begin) * done / max(total, 1))), 1000, message or otherwise)

    return inner


@dataclass(frozen=True)
class Progress:
    """One report. Fractions are in [0, 1]; `eta_seconds` is for the whole run, None until it can be told."""

    stage: str
    stage_fraction: float
    fraction: float
    message: str
    eta_seconds: float | None

    def __str__(self) -> str:
        eta = "" if self.eta_seconds is None else f", about {self.eta_seconds:.0f} s left"
        what = f"{self.stage}: {self.message}" if self.message else self.stage
        return f"[{self.fraction:4.0%}] {what}{eta}"


ProgressCallback = Callable[[Progress], object]


PREPARATION = "loading"
"""A stage that takes a second or, with a demo or a download to fetch, minutes: it says nothing about the others."""


class Reporter:
    """Turns the steps of consecutive stages into `Progress` of the whole run, whose fraction never goes back.

    `weights` gives each stage's expected share of the run's time, in any unit, in the order in which they run. The
    time left is told from the stages after `PREPARATION` alone.
    """

    def __init__(self, callback: ProgressCallback, weights: Mapping[str, float]) -> None:
        self._callback = callback
        self._weights = dict(weights)
        self._total = sum(self._weights.values())
        self._fraction = 0.0
        self._pace: tuple[float, float] | None = None
        """When the first stage that tells the pace began, and the fraction that was done by then."""

    def stage(self, name: str) -> Step:
        """Begin stage `name`, ending every stage before it; returns the step function to hand to its code."""
        names = list(self._weights)
        before = sum(self._weights[earlier] for earlier in names[: names.index(name)])
        if self._pace is None and name != PREPARATION:
            self._pace = time.monotonic(), before / self._total

        def step(done: int, total: int, message: str = "") -> None:
            stage_fraction = min(1.0, done / max(total, 1))
            reached = (before + self._weights[name] * stage_fraction) / self._total
            self._fraction = max(self._fraction, reached)
            self._callback(Progress(name, stage_fraction, self._fraction, message, self._time_left()))

        step(0, 1, "starting")
        return step

    def _time_left(self) -> float | None:
        if self._pace is None:
            return None
        started, before = self._pace
        done = self._fraction - before
        return (time.monotonic() - started) * (1 - self._fraction) / done if done > 0.02 else None

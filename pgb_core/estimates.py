"""What a run would take on this server, told from runs that have been measured.

Nearly all of a run's work is done once for every weight of the encoder and every calibration token, so seconds scale
with (weights x samples x tokens); memory with the parameters. Both are read off the runs that are most alike.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pgb_core.inspection import CheckpointInfo
from pgb_core.spec import BASELINES
from pgb_core.store import Run

MOST_ALIKE = 5
"""Runs that an estimate rests on, at most."""


@dataclass(frozen=True)
class Estimate:
    """Seconds and bytes that a run would take, and what that is told from."""

    seconds: float
    bytes: float
    runs: int
    here: bool
    """Whether those runs were of this server, not shipped samples that another machine made."""
    like: bool
    """Whether they pruned the same weights."""
    machine: str | None = None
    """What the samples were measured on."""


def estimate(
    info: CheckpointInfo, runs: Iterable[Run], *, samples: int, length: int, fingerprint: str | None = None
) -> Estimate | None:
    """What a run with the option tables, without recovery, would take; None where nothing was measured.

    Runs of this server go before shipped samples, those of the same weights before others, then those of the most
    similar size.
    """
    wanted = info.encoder_weights
    found = [run for run in runs if _counts(run)]
    own = [run for run in found if not run.sample]
    same = [run for run in own or found if fingerprint and run.spec.get("fingerprint") == fingerprint]
    chosen = sorted(same or own or found, key=lambda run: _distance(run, wanted))[:MOST_ALIKE]
    if not chosen:
        return None
    pace = statistics.median(run.result["seconds"]["total"] / _work(run) for run in chosen if run.result)
    memory = [run.result for run in chosen if run.result]
    bytes_ = max(_peak(result) * max(1.0, info.parameters / result["parameters"]["dense"]) for result in memory)
    return Estimate(
        pace * wanted * samples * length,
        bytes_,
        len(chosen),
        bool(own),
        bool(same),
        None if own else chosen[0].machine,
    )


def _counts(run: Run) -> bool:
    """A finished run whose time is that of the stages alone."""
    return (
        run.result is not None
        and run.spec["method"] not in BASELINES
        and not run.spec.get("recover_epochs")
        and bool(run.spec.get("max_length"))
        and bool(_peak(run.result))
    )


def _peak(result: Mapping[str, Any]) -> float:
    return float(result["environment"].get("peak_memory_bytes") or 0)


def _work(run: Run) -> float:
    weights = run.result["parameters"]["encoder_dense"] if run.result else 0
    return float(weights * run.spec["calibration_samples"] * run.spec["max_length"])


def _distance(run: Run, weights: int) -> float:
    own = run.result["parameters"]["encoder_dense"] if run.result else 1
    return max(own, weights) / max(min(own, weights), 1)

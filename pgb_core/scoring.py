"""Scoring without pruning: stages 1 to 3a, whose tables every target and method of the What if page shares."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pgb_core import latency_forms, latency_table, results, scored
from pgb_core.options import TABLE_METHODS
from pgb_core.progress import ProgressCallback, Reporter
from pgb_core.recording import Clock, recorded
from pgb_core.settings import get_settings
from pgb_core.shared import Shared
from pgb_core.spec import PruneSpec

METHOD = next(iter(TABLE_METHODS))
"""Any of the methods that share the tables."""
_WEIGHTS = {  # seconds of the demo on two CPU cores
    "loading": 4.0,
    "importance": 28.0,
    "grouping": 13.0,
    "budget": 80.0,
    "latency": 12.0,
}


def score_checkpoint(
    spec: PruneSpec,
    *,
    again: bool = False,
    out: Path | None = None,
    on_progress: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Leave the scored record of what `spec` prunes, and this server's latency table of its shape, where asked for.

    What is there already is not made again. The table is measured with `spec.latency`; target, method and constraints
    of the spec are of no account.

    Args:
        again: score and measure anew all the same.
        out: a run folder, for progress and cancellation from another process.

    Returns:
        `record`, its key; `scored` and `measured`, whether that was done now; `seconds` per stage.

    Raises:
        PGBError: the checkpoint or the data cannot be used. No record is written then.
    """

    def work(report: ProgressCallback) -> dict[str, Any]:
        with torch.random.fork_rng():
            torch.manual_seed(spec.seed)
            return _score(spec, again, report)

    if out is not None:
        return recorded(out, spec.to_dict(), work, on_progress, job="score")
    return work(on_progress or (lambda progress: None))


def _score(spec: PruneSpec, again: bool, report: ProgressCallback) -> dict[str, Any]:
    reporter = Reporter(report, {**_WEIGHTS, "latency": _WEIGHTS["latency"] * spec.latency})
    settings, clock, shared = get_settings(), Clock(), Shared(replace(spec, method=METHOD))
    with clock.stage("loading"):
        loaded = shared.loaded(reporter.stage("loading"))
        resolved = results.resolved_spec(spec, loaded.checkpoint, loaded.device, loaded.max_length)
        key = scored.key_of(resolved)
        known = not again and key in scored.find(settings.runs_dir)
    if not known:
        with clock.stage("importance"):
            sublayers = shared.scores(reporter.stage("importance")).sublayers
        with clock.stage("grouping"):
            shared.candidates(METHOD, reporter.stage("grouping"))
        with clock.stage("budget"):
            tables = shared.tables(METHOD, reporter.stage("budget"))
        results.save_record(settings.runs_dir, resolved, loaded.checkpoint, loaded.model, sublayers, tables)
    measure = spec.latency and (
        again or latency_table.find(latency_forms.sizes_of(loaded.model), settings.cache_dir) is None
    )
    if measure:
        with clock.stage("latency"):
            table = latency_forms.measure(loaded.model, step=reporter.stage("latency"))
            latency_table.write(table, settings.cache_dir)
    return {"record": key, "scored": not known, "measured": measure, "seconds": clock.total()}

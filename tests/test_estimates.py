"""What a run would take, told from runs that were measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pgb_core.estimates import estimate
from pgb_core.inspection import CheckpointInfo, describe
from pgb_core.status import Status
from pgb_core.store import Run


@pytest.fixture
def info(tiny_checkpoint: Path) -> CheckpointInfo:
    return describe(tiny_checkpoint)


def run(weights: int, seconds: float, *, machine: str | None = None, fingerprint: str = "x", **spec: Any) -> Run:
    """A finished run of an encoder of so many weights, with 1,000 samples of 100 tokens."""
    values = {"method": "pgb", "calibration_samples": 1000, "max_length": 100, "fingerprint": fingerprint, **spec}
    result = {
        "parameters": {"dense": 2 * weights, "encoder_dense": weights},
        "seconds": {"total": seconds},
        "environment": {"peak_memory_bytes": 10**9},
    }
    return Run(f"r{weights}", Path("r"), values, Status("done"), result, machine=machine)


def test_time_scales_with_weights_samples_and_tokens(info: CheckpointInfo) -> None:
    found = estimate(info, [run(info.encoder_weights, 60.0)], samples=500, length=400)
    assert found is not None
    assert found.seconds == pytest.approx(60 * 0.5 * 4)
    assert (found.runs, found.here, found.like) == (1, True, False)
    larger = estimate(replace(info, encoder_weights=3 * info.encoder_weights), [run(info.encoder_weights, 60.0)],
                      samples=1000, length=100)  # fmt: skip
    assert larger is not None
    assert larger.seconds == pytest.approx(180)


def test_memory_grows_with_the_parameters_and_never_shrinks(info: CheckpointInfo) -> None:
    small = run(info.parameters // 8, 1.0)
    large = run(10 * info.parameters, 1.0)
    for other, expected in ((small, 4e9), (large, 1e9)):
        found = estimate(info, [other], samples=1000, length=100)
        assert found is not None
        assert found.bytes == pytest.approx(expected, rel=0.01)


def test_the_same_weights_go_first_then_this_server_then_samples(info: CheckpointInfo) -> None:
    sample = run(info.encoder_weights, 10.0, machine="another")
    own = run(info.encoder_weights, 20.0)
    same = run(info.encoder_weights, 30.0, fingerprint="same")
    for runs, seconds, here, like in (
        ([sample], 10.0, False, False),
        ([sample, own], 20.0, True, False),
        ([sample, own, same], 30.0, True, True),
    ):
        found = estimate(info, runs, samples=1000, length=100, fingerprint="same")
        assert found is not None
        assert (found.seconds, found.here, found.like) == (pytest.approx(seconds), here, like)
        assert found.machine == (None if here else "another")


def test_the_most_similar_sizes_count(info: CheckpointInfo) -> None:
    alike = [run(info.encoder_weights, 60.0 + n) for n in range(5)]
    found = estimate(info, [*alike, run(100 * info.encoder_weights, 1.0)], samples=1000, length=100)
    assert found is not None
    assert found.seconds == pytest.approx(62.0)
    assert found.runs == 5


@pytest.mark.parametrize("changes", [{"method": "magnitude"}, {"recover_epochs": 2}, {"max_length": None}])
def test_runs_that_did_something_else_do_not_count(info: CheckpointInfo, changes: dict[str, Any]) -> None:
    assert estimate(info, [run(info.encoder_weights, 60.0, **changes)], samples=1000, length=100) is None


def test_nothing_measured_is_no_estimate(info: CheckpointInfo) -> None:
    unfinished = replace(run(1, 1.0), result=None)
    assert estimate(info, [unfinished], samples=1000, length=100) is None

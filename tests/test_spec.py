"""A spec that exists is valid; what is not valid says which field and which range."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgb_core import PruneSpec, SpecError
from pgb_core.constraints import Constraints, Pin
from pgb_core.evaluation import evaluate_checkpoint
from pgb_core.spec import BASELINES, BUDGETS, DEVICES, IMPORTANCES, METHODS

GOOD: dict[str, Any] = {"checkpoint": "demo", "task": "bbc-news", "sparsity": 0.5}


def test_defaults() -> None:
    spec = PruneSpec(**GOOD)
    assert (spec.method, spec.importance, spec.device, spec.seed) == ("pgb", "compensated", "auto", 0)
    assert (spec.calibration_samples, spec.recover_epochs, spec.latency) == (1024, 0, True)
    assert spec.eval_samples is None
    assert spec.max_length is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"checkpoint": " "}, "checkpoint is empty"),
        ({"sparsity": 1.0}, r"sparsity 1.0 is not in \[0, 1\)"),
        ({"sparsity": -0.01}, r"sparsity -0.01 is not in \[0, 1\)"),
        ({"sparsity": float("nan")}, "sparsity nan is not in"),
        ({"method": "magic"}, "unknown method 'magic'; choose one of pgb, pgb-mixed, structured, pgb-paper"),
        ({"importance": "size"}, "unknown importance 'size'; choose one of compensated, fisher"),
        ({"budget": "bytes"}, "unknown budget 'bytes'; choose one of weights, flops"),
        ({"min_groups": 1}, "min groups 1 must be at least 2"),
        ({"max_groups": 1}, "max groups 1 must be at least 2"),
        ({"min_groups": 4, "max_groups": 3}, "max groups 3 must be at least 4"),
        ({"pins": ["first"]}, "pin 'first' is not LAYER.attention or LAYER.feed_forward"),
        ({"device": "tpu"}, "unknown device 'tpu'; choose one of auto, cpu, cuda"),
        ({"recover_epochs": -1}, r"recover epochs -1 is not in 0\.\.20"),
        ({"recover_epochs": 21}, r"epochs 21 is not in 0\.\.20; .* PGB_MAX_RECOVER_EPOCHS\."),
        ({"calibration_samples": 7}, r"calibration samples 7 is not in 8\.\.8192"),
        (
            {"calibration_samples": 8193},
            r"8193 is not in 8\.\.8192; .* raise PGB_MAX_CALIBRATION_SAMPLES\.",
        ),
        ({"seed": -1}, "seed -1 is not in"),
        ({"seed": 2**31}, "seed 2147483648 is not in"),
        ({"eval_samples": 0}, "eval samples 0 must be at least 1"),
        ({"max_length": 7}, r"max length 7 is not in 8\.\.512"),
        ({"max_length": 513}, r"max length 513 is not in 8\.\.512; .* PGB_MAX_LENGTH\."),
        ({"task": "csv"}, "task csv needs --train-file"),
        ({"train_file": "a.csv"}, "belong to task csv, not to 'bbc-news'"),
        ({"eval_file": "a.csv"}, "belong to task csv, not to 'bbc-news'"),
    ],
)
def test_what_is_out_of_range_is_told_in_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        PruneSpec(**{**GOOD, **changes})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change", [{"seed": -1}, {"max_length": 1}, {"eval_samples": 0}, {"train_file": "a.csv"}, {"device": "tpu"}]
)
def test_evaluating_takes_what_a_spec_takes_and_says_the_same(change: dict[str, Any]) -> None:
    said = []
    for call in (lambda: PruneSpec(**GOOD, **change), lambda: evaluate_checkpoint("demo", "bbc-news", **change)):
        with pytest.raises(SpecError) as caught:
            call()
        said.append(str(caught.value))
    assert said[0] == said[1]


@pytest.mark.parametrize("name", ["max_calibration_samples", "max_length", "max_recover_epochs"])
def test_the_limits_are_the_servers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    field = name.removeprefix("max_") if name != "max_length" else name
    assert PruneSpec(**GOOD, **{field: 20})
    monkeypatch.setenv(f"PGB_{name.upper()}", "19")
    with pytest.raises(SpecError, match=r"20 is not in \d\.\.19"):
        PruneSpec(**GOOD, **{field: 20})


def test_a_csv_task_takes_files() -> None:
    spec = PruneSpec("demo", "csv", 0.5, train_file="train.csv", eval_file="eval.csv")
    assert (spec.train_file, spec.eval_file) == ("train.csv", "eval.csv")


@given(
    st.builds(
        PruneSpec,
        checkpoint=st.just("demo"),
        task=st.just("sst2"),
        sparsity=st.floats(0, 1, exclude_max=True),
        method=st.sampled_from(sorted(set(METHODS) - set(BASELINES))),
        importance=st.sampled_from(sorted(IMPORTANCES)),
        device=st.sampled_from(DEVICES),
        recover_epochs=st.integers(0, 20),
        seed=st.integers(0, 2**31 - 1),
        eval_samples=st.none() | st.integers(1),
        max_length=st.none() | st.integers(8, 512),
        latency=st.booleans(),
        budget=st.sampled_from(sorted(BUDGETS)),
        min_groups=st.none() | st.integers(2, 4),
        max_groups=st.none() | st.integers(4, 12),
        pins=st.lists(st.sampled_from(["0.attention", "3.feed-forward:64", "11.attention:1"])).map(tuple),
    )
)
def test_a_spec_survives_json_and_what_a_run_records_beside_it(spec: PruneSpec) -> None:
    recorded = json.loads(json.dumps({**spec.to_dict(), "fingerprint": "ab", "versions": {"torch": "2"}}))
    assert PruneSpec.from_dict(recorded) == spec
    assert spec.density == 1 - spec.sparsity


def test_constraints_of_a_spec() -> None:
    spec = PruneSpec(**GOOD, min_groups=3, pins=["0.attention", "3.feed-forward:64"])  # type: ignore[arg-type]
    assert spec.pins == ("0.attention", "3.feed_forward:64")
    assert spec.constraints == Constraints(3, None, (Pin(0, "attention"), Pin(3, "feed_forward", 64)))
    assert PruneSpec(**GOOD).constraints == Constraints()


def test_a_spec_does_not_change() -> None:
    spec = PruneSpec(**GOOD)
    with pytest.raises(FrozenInstanceError):
        spec.sparsity = 0.9  # type: ignore[misc]


@pytest.mark.parametrize("method", BASELINES)
@pytest.mark.parametrize("limit", [{"min_groups": 2}, {"max_groups": 4}, {"pins": ("0.attention",)}])
def test_methods_of_others_know_no_constraints(method: str, limit: dict[str, Any]) -> None:
    assert PruneSpec(**GOOD, method=method).constraints.pins == ()
    with pytest.raises(SpecError, match=f"method {method} knows neither pins nor limits"):
        PruneSpec(**GOOD, method=method, **limit)


def test_zeros_save_no_flops() -> None:
    with pytest.raises(SpecError, match="zeros leave the FLOPs as they are"):
        PruneSpec(**GOOD, method="magnitude", budget="flops")

"""The command line of a run says what was submitted."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgb_core import PruneSpec, commands, store
from pgb_core.__main__ import make_parser, spec_from, sweep_from
from pgb_core.finetune_spec import FinetuneSpec
from pgb_core.settings import get_settings
from pgb_core.sweep_spec import SweepSpec, write_sweep

SPEC = PruneSpec("demo", "bbc-news", 0.5)
texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(str.strip)
specs = st.builds(
    PruneSpec,
    checkpoint=texts,
    task=st.sampled_from(["bbc-news", "sst2", "qnli"]),
    sparsity=st.floats(0, 1, exclude_max=True),
    method=st.sampled_from(["pgb", "structured"]),
    importance=st.sampled_from(["compensated", "fisher"]),
    recover_epochs=st.integers(0, 20),
    seed=st.integers(0, 2**31 - 1),
    device=st.sampled_from(["auto", "cpu", "cuda"]),
    calibration_samples=st.integers(8, 8192),
    eval_samples=st.none() | st.integers(1, 10**6),
    max_length=st.none() | st.integers(8, 512),
    latency=st.booleans(),
    latency_grid=st.booleans(),
    budget=st.sampled_from(["weights", "flops"]),
    min_groups=st.none() | st.integers(2, 4),
    max_groups=st.none() | st.integers(4, 12),
    pins=st.lists(st.sampled_from(["0.attention", "3.feed_forward:64"])).map(tuple),
)


def parsed(run_dir: Path, values: dict[str, Any], job: store.Job, device: str = "auto") -> Any:
    """The arguments that the process of a run gets."""
    run_dir.mkdir(exist_ok=True)
    store.write_json(run_dir / "spec.json", values)
    store.write_status(run_dir, store.Status(job=job))
    args = make_parser().parse_args(commands.command_of(run_dir, device)[3:])
    assert args.queued
    return args


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(specs | specs.flatmap(lambda s: st.builds(replace, st.just(s), task=st.just("csv"), train_file=texts)))
def test_the_child_gets_the_very_spec_that_was_submitted(tmp_path: Path, spec: PruneSpec) -> None:
    args = parsed(tmp_path / "a folder", spec.to_dict(), "prune")
    assert spec_from(args) == spec
    assert args.out == tmp_path / "a folder"


def test_every_field_of_a_spec_has_a_flag(tmp_path: Path) -> None:
    args = parsed(tmp_path, SPEC.to_dict(), "prune")
    assert {item.name for item in fields(PruneSpec)} <= set(vars(args))


@pytest.mark.parametrize(("asked", "computed"), [("auto", "cuda"), ("cpu", "cpu"), ("cuda", "cuda")])
def test_a_worker_decides_the_device_where_it_is_left_open(tmp_path: Path, asked: str, computed: str) -> None:
    assert parsed(tmp_path, replace(SPEC, device=asked).to_dict(), "prune", "cuda").device == computed


def test_a_scoring_a_sweep_and_a_fine_tuning_have_commands_of_their_own(tmp_path: Path) -> None:
    args = parsed(tmp_path / "score", replace(SPEC, latency=False).to_dict(), "score")
    assert (args.checkpoint, args.latency, args.out) == ("demo", False, tmp_path / "score")

    sweep = SweepSpec(SPEC, (0.25, 0.5), ("pgb", "structured"), seeds=(0, 1))
    write_sweep(tmp_path / "sweep", sweep, tmp_path)
    args = parsed(tmp_path / "sweep", {}, "sweep")
    assert sweep_from(args) == sweep

    args = parsed(tmp_path / "part", {"sweep": "sweep", "shard": "2/3"}, "part")
    assert sweep_from(args) == sweep
    assert (args.out, args.part, args.shard) == (tmp_path / "sweep", tmp_path / "part", "2/3")

    tuning = FinetuneSpec("bert", "bbc-news", epochs=2, learning_rate=1e-4)
    args = parsed(tmp_path / "tune", {**tuning.to_dict(), "name": "tuned"}, "finetune")
    assert {item.name: getattr(args, item.name) for item in fields(tuning)} == {
        **tuning.to_dict(),
        "label_map": [],
    }
    assert (args.out, args.job) == (get_settings().models_dir / "tuned", tmp_path / "tune")

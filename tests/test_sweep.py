"""Sweeps on the tiny checkpoint: what is shared is made once, and a point is the run that it would have been alone."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from pgb_core import (
    JobCancelled,
    PGBError,
    PruneSpec,
    RunError,
    SpecError,
    commands,
    evaluation,
    planning,
    prune,
    store,
    sweep_table,
)
from pgb_core import shared as shared_module
from pgb_core import sweep as sweep_module
from pgb_core.shards import Shard
from pgb_core.shared import Shared
from pgb_core.sweep import point_weights, sweep
from pgb_core.sweep_spec import SweepSpec, read_sweep


@pytest.fixture(scope="module")
def base(tiny_checkpoint: Path, tiny_csv: Path) -> PruneSpec:
    return PruneSpec(str(tiny_checkpoint), "csv", 0.5, train_file=str(tiny_csv), calibration_samples=96, latency=False)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often what should be shared is made."""
    made: Counter[str] = Counter()

    def counted(module: Any, name: str) -> None:
        original: Callable[..., Any] = getattr(module, name)

        def count(*args: Any, **kwargs: Any) -> Any:
            made[name] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(module, name, count)

    counted(shared_module, "load")
    counted(shared_module, "score")
    counted(shared_module, "candidates_of")
    counted(shared_module, "tables_of")
    counted(evaluation, "logits")
    return made


def tensors(run: Path) -> dict[str, Any]:
    names = ("model/model.safetensors", "layout.safetensors", "importance.safetensors", "answers.safetensors")
    return {f"{name}:{key}": value for name in names for key, value in load_file(run / name).items()}


def comparable(run: Path) -> dict[str, Any]:
    """What a result says that does not depend on the clock or on the process."""
    result = store.read_json(run / "result.json")
    return {
        name: value for name, value in result.items() if name not in ("seconds", "latency", "latencies", "environment")
    }


def test_points_equal_single_runs_and_share_one_scoring_pass(
    base: PruneSpec, tmp_path: Path, calls: Counter[str]
) -> None:
    spec = SweepSpec(base, (0.4, 0.8), ("pgb", "structured", "kwon"))
    rows = sweep(spec, tmp_path / "sweep")
    assert calls["load"] == calls["score"] == 1
    assert calls["candidates_of"] == calls["tables_of"] == 1  # pgb and structured share them, kwon needs none
    assert calls["logits"] == 1 + 2 * spec.size  # dense once, then after cutting and after the refit
    assert [row["state"] for row in rows] == ["done"] * 6
    found = read_sweep(tmp_path / "sweep", tmp_path / "sweep")
    for point in found.points[1::2]:  # the second of each method, which made nothing of what is shared
        alone = tmp_path / point.run
        prune(point.spec, alone)
        assert comparable(found.folder(point)) == comparable(alone)
        first, second = tensors(found.folder(point)), tensors(alone)
        assert first.keys() == second.keys()
        assert all(np.array_equal(first[name], second[name]) for name in first)
        assert {path.name for path in alone.iterdir()} == {path.name for path in found.folder(point).iterdir()}
        specs = (store.read_json(folder / "spec.json") for folder in (alone, found.folder(point)))
        assert next(specs) == next(specs)


def test_a_recovered_point_equals_a_single_run_whatever_was_made_before(base: PruneSpec, tmp_path: Path) -> None:
    sweep(SweepSpec(base, (0.6,), ("magnitude", "kprune"), (0, 1), (3,)), tmp_path / "sweep")
    found = read_sweep(tmp_path / "sweep", tmp_path / "sweep")
    point = next(p for p in found.points if (p.spec.method, p.spec.recover_epochs) == ("kprune", 1))
    prune(point.spec, tmp_path / "alone")
    first, second = tensors(found.folder(point)), tensors(tmp_path / "alone")
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert comparable(found.folder(point)) == comparable(tmp_path / "alone")


def test_seeds_share_nothing_and_the_dense_model_takes_turns_with_each_point(
    base: PruneSpec, tmp_path: Path, calls: Counter[str]
) -> None:
    base = replace(base, latency=True, eval_samples=40)
    rows = sweep(SweepSpec(base, (0.5,), ("magnitude", "heads-neurons"), seeds=(0, 1)), tmp_path / "sweep")
    assert calls["load"] == calls["score"] == 2  # one for each seed
    assert len({row["dense_latency_ms"] for row in rows}) == 4
    result = store.read_json(tmp_path / "sweep" / rows[0]["run"] / "result.json")
    assert result["latency"]["speedup"] == pytest.approx(rows[0]["dense_latency_ms"] / rows[0]["latency_ms"])


def test_statistics_are_kept_until_the_last_table_is_made(base: PruneSpec) -> None:
    shared = Shared(base, ("pgb", "pgb-paper"))
    assert shared.spared(base) == set()
    step = planning.silent
    shared.loaded(step)
    scores = shared.scores(step)
    shared.candidates("pgb", step)
    shared.tables("pgb", step)
    assert scores.statistics
    shared.candidates("pgb-paper", step)
    shared.tables("pgb-paper", step)
    assert not scores.statistics
    assert shared.spared(base) == {"loading", "importance", "grouping", "budget"}
    with pytest.raises(ValueError, match="no option tables"):
        shared.tables("kwon", step)
    with pytest.raises(ValueError, match="made for another"):
        prune(replace(base, seed=9), "never", shared=shared)


def test_a_stopped_sweep_goes_on_where_it_was(base: PruneSpec, tmp_path: Path, calls: Counter[str]) -> None:
    spec = SweepSpec(base, (0.3, 0.6, 0.9), ("heads-neurons",))
    out, runs, seen = tmp_path / "runs" / "sweep", tmp_path / "runs", list[dict[str, Any]]()

    def stop(row: dict[str, Any]) -> None:
        seen.append(row)
        table = pd.read_csv(out / "points.csv")
        assert (table["state"] == "done").sum() == len(seen)
        if len(seen) == 2:
            raise JobCancelled("The run was cancelled.")

    with pytest.raises(JobCancelled):
        sweep(spec, out, runs_dir=runs, on_point=stop)
    assert store.read_status(out).state == "cancelled"
    before = {row["run"]: (runs / row["run"] / "status.json").read_bytes() for row in seen}
    rows = sweep(spec, out, runs_dir=runs)
    assert all((runs / run / "status.json").read_bytes() == content for run, content in before.items())
    assert calls["score"] == 2  # the second process has to score for itself
    assert [row["state"] for row in rows] == ["done"] * 3
    assert store.read_status(out).state == "done"
    assert {run.id for run in store.list_runs(runs)} == {row["run"] for row in rows}  # the pages show them
    sweep(spec, out, runs_dir=runs)
    assert calls["score"] == 2  # nothing is left to do


def test_a_sweep_can_be_extended_but_not_changed(base: PruneSpec, tmp_path: Path) -> None:
    first = sweep(SweepSpec(base, (0.5,), ("magnitude",)), tmp_path)
    more = sweep(SweepSpec(base, (0.7,), ("magnitude",)), tmp_path)
    assert [row["sparsity"] for row in more] == [0.5, 0.7]
    assert more[0] == first[0]
    with pytest.raises(SpecError, match="other settings"):
        sweep(SweepSpec(replace(base, calibration_samples=64), (0.5,)), tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(RunError, match="not a sweep's"):
        sweep(SweepSpec(base, (0.5,)), tmp_path / "mine")


def test_a_failed_point_is_recorded_and_the_others_are_made(base: PruneSpec, tmp_path: Path) -> None:
    pins = tuple(
        f"{layer}.{kind}:{least}" for layer in (0, 1) for kind, least in (("attention", 4), ("feed_forward", 64))
    )
    rows = sweep(SweepSpec(replace(base, pins=pins), (0.99, 0.0), ("pgb",)), tmp_path)
    assert [row["state"] for row in rows] == ["failed", "done"]
    assert rows[0]["message"]
    assert rows[0]["score"] is None
    assert store.read_status(tmp_path / rows[0]["run"]).state == "failed"
    assert store.read_status(tmp_path).message == "1 of 2 points made"


def test_a_sweep_without_a_single_point_fails_with_the_reason_of_the_first(base: PruneSpec, tmp_path: Path) -> None:
    missing = replace(base, train_file=str(tmp_path / "missing.csv"))
    with pytest.raises(PGBError, match=r"no point .*missing\.csv"):
        sweep(SweepSpec(missing, (0.5, 0.6)), tmp_path / "sweep")
    assert store.read_status(tmp_path / "sweep").state == "failed"


def test_one_point_can_be_cancelled_by_itself(base: PruneSpec, tmp_path: Path) -> None:
    spec = SweepSpec(base, (0.5, 0.6), ("magnitude",))
    found = sweep_module.write_sweep(tmp_path, spec, tmp_path)

    def stop(progress: Any) -> None:
        if "point 1 of 2" in progress.message and progress.stage == "evaluation":
            store.request_cancel(found.folder(found.points[0]))
            raise JobCancelled("The run was cancelled.")

    rows = sweep(spec, tmp_path, on_progress=stop)
    assert [row["state"] for row in rows] == ["cancelled", "done"]
    assert store.read_status(tmp_path).state == "done"
    store.request_cancel(tmp_path)
    with pytest.raises(JobCancelled):
        sweep(SweepSpec(base, (0.8,), ("magnitude",)), tmp_path)


def test_progress_is_that_of_the_whole_and_never_goes_back(base: PruneSpec, tmp_path: Path) -> None:
    seen: list[Any] = []
    sweep(SweepSpec(base, (0.3, 0.6), ("magnitude", "kwon")), tmp_path, on_progress=seen.append)
    fractions = [progress.fraction for progress in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] > 0.95
    assert {progress.message.split(" (")[0] for progress in seen} == {f"point {n} of 4" for n in range(1, 5)}
    status = store.read_status(tmp_path)
    assert (status.state, status.fraction) == ("done", 1.0)


def test_the_first_point_of_a_seed_pays_for_what_is_shared(base: PruneSpec) -> None:
    spec = SweepSpec(base, (0.3, 0.6), ("pgb", "structured", "kwon"), seeds=(0, 1))
    weights = point_weights(spec.points())
    assert weights[0] == weights[6] == max(weights)
    assert weights[1] == weights[2] == weights[3] == weights[4]
    assert weights[1] < weights[0] / 3


def test_the_table_is_the_same_as_csv_and_as_parquet(base: PruneSpec, tmp_path: Path) -> None:
    rows = sweep(SweepSpec(base, (0.5,), ("magnitude",)), tmp_path)
    parquet = pd.read_parquet(tmp_path / "points.parquet")
    assert json.loads(parquet.to_json(orient="records"))[0]["run"] == rows[0]["run"]
    csv = pd.read_csv(tmp_path / "points.csv")
    assert list(csv.columns) == list(parquet.columns) == list(rows[0])
    assert csv["score"][0] == pytest.approx(parquet["score"][0]) == rows[0]["score"]
    assert pd.isna(parquet["latency_ms"][0])


def test_shards_at_once_make_every_point_once_and_one_table(base: PruneSpec, tmp_path: Path) -> None:
    """Each is a process of its own, as a batch scheduler starts it; both have points of one group."""
    spec = SweepSpec(replace(base, calibration_samples=32), (0.4, 0.8), ("magnitude", "heads-neurons"))
    out, runs = tmp_path / "shards", tmp_path / "serial"
    command = [sys.executable, "-m", "pgb_core", "sweep", *commands.sweep_arguments(spec), f"--out={out}", "--json"]
    processes = [
        subprocess.Popen([*command, f"--shard={n}/2"], stdout=subprocess.PIPE, env=commands.child_environment())
        for n in (1, 2)
    ]
    answers = [json.loads(process.communicate(timeout=100)[0]) for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert any(row["state"] == "done" for row in answers[0]["points"])
    serial = sweep(spec, runs)
    table = pd.read_csv(out / "points.csv")
    assert list(table["state"]) == ["done"] * 4
    assert list(table["score"]) == [row["score"] for row in serial]
    places = sorted(path.name for path in out.glob("shard-*"))
    assert places == ["shard-1-of-2", "shard-2-of-2"]
    assert [store.read_status(out / name).message for name in places] == ["done"] * 2
    made = {run: (out / run / "status.json").read_bytes() for run in table["run"]}
    assert sweep(spec, out, shard=Shard(2, 2)) == sweep_table.rows(read_sweep(out, out))
    assert {run: (out / run / "status.json").read_bytes() for run in table["run"]} == made  # nothing is repeated


def test_a_shard_without_points_has_nothing_to_do(base: PruneSpec, tmp_path: Path) -> None:
    rows = sweep(SweepSpec(base, (0.5,), ("magnitude",)), tmp_path, shard=Shard(1, 2))
    assert [row["state"] for row in rows] == ["pending"]
    assert store.read_status(Shard(1, 2).folder(tmp_path)).state == "done"


def test_several_checkpoints_share_nothing_and_a_bad_one_does_no_harm(
    base: PruneSpec, tmp_path: Path, calls: Counter[str]
) -> None:
    checkpoints = (base.checkpoint, str(tmp_path / "missing"))
    spec = SweepSpec(base, (0.5, 0.7), ("magnitude",), checkpoints=checkpoints)
    rows = sweep(spec, tmp_path / "sweep")
    assert calls["score"] == 1
    assert [(row["checkpoint"], row["state"]) for row in rows] == [
        ("tiny", "done"),
        ("tiny", "done"),
        ("missing", "failed"),
        ("missing", "failed"),
    ]


# --- helpers -------------------------------------------------------------------------------------------------------


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    """Another process that lives."""
    process = subprocess.Popen(["sleep", "100"])
    yield process
    process.kill()
    process.wait()


def made_by(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Have `process` make the point in `folder`."""
    folder.mkdir(parents=True)
    store.write_json(folder / "spec.json", {})
    store.write_status(folder, store.owned_by(store.Status("running", created=time.time()), process.pid))


def test_a_helper_begins_with_its_part_takes_what_nobody_makes_and_waits_for_nobody(
    base: PruneSpec, tmp_path: Path, other: subprocess.Popen[bytes]
) -> None:
    spec = SweepSpec(base, (0.3, 0.5, 0.7, 0.9), ("magnitude",))
    found = sweep_module.write_sweep(tmp_path / "sweep", spec, tmp_path / "sweep")
    made_by(other, found.folder(found.points[0]))
    place, seen = tmp_path / "part", list[float]()
    place.mkdir()
    store.write_status(place, store.Status("running", job="part"))
    store.write_status(found.path, store.Status("queued", job="sweep"))
    sweep(
        spec,
        found.path,
        on_point=lambda row: seen.append(row["sparsity"]),
        shard=Shard(2, 2),
        helper=place,
    )
    assert seen == [0.7, 0.9, 0.5]
    assert (store.read_status(place).state, store.read_status(place).job) == ("done", "part")
    assert store.read_status(found.path).state == "queued"
    assert found.state(found.points[0]) == "running"


def test_a_helper_makes_nothing_for_a_sweep_that_has_ended(base: PruneSpec, tmp_path: Path) -> None:
    spec, place = SweepSpec(base, (0.3, 0.5), ("magnitude",)), tmp_path / "part"
    found = sweep_module.write_sweep(tmp_path / "sweep", spec, tmp_path / "sweep")
    store.write_status(found.path, store.Status("cancelled", job="sweep"))
    rows = sweep(spec, found.path, shard=Shard(2, 2), helper=place)
    assert [row["state"] for row in rows] == ["pending", "pending"]
    assert store.read_status(place).state == "done"


def test_a_point_that_was_cancelled_by_itself_is_not_made_by_a_helper_that_comes_later(
    base: PruneSpec, tmp_path: Path
) -> None:
    spec, place = SweepSpec(base, (0.3, 0.5), ("magnitude",)), tmp_path / "part"
    found = sweep_module.write_sweep(tmp_path / "sweep", spec, tmp_path / "sweep")
    began = time.time() - 60
    store.write_status(found.path, store.this_process(store.Status("running", started=began, job="sweep")))
    found.folder(found.points[1]).mkdir()
    store.write_status(found.folder(found.points[1]), store.Status("cancelled", finished=began + 30))
    sweep(spec, found.path, shard=Shard(2, 2), helper=place)
    assert [found.state(point) for point in found.points] == ["done", "cancelled"]


def test_a_worker_has_its_own_device_for_a_sweep_that_leaves_it_open(base: PruneSpec, tmp_path: Path) -> None:
    spec = SweepSpec(replace(base, device="auto"), (0.3,), ("magnitude",))
    sweep_module.write_sweep(tmp_path, spec, tmp_path)
    rows = sweep(replace(spec, base=replace(spec.base, device="cpu")), tmp_path)
    assert [row["state"] for row in rows] == ["done"]
    assert read_sweep(tmp_path, tmp_path).spec == spec
    assert store.read_json(tmp_path / rows[0]["run"] / "spec.json")["device"] == "cpu"


def test_a_point_whose_folder_belongs_to_something_else_is_left_out(base: PruneSpec, tmp_path: Path) -> None:
    spec = SweepSpec(base, (0.3, 0.5), ("magnitude",))
    found = sweep_module.write_sweep(tmp_path, spec, tmp_path)
    found.folder(found.points[0]).mkdir()
    (found.folder(found.points[0]) / "notes.txt").touch()
    assert [row["state"] for row in sweep(spec, tmp_path)] == ["pending", "done"]
    assert store.read_status(tmp_path).message == "1 of 2 points made"


def test_a_sweep_waits_for_its_helpers_and_makes_what_a_dead_one_left(
    base: PruneSpec, tmp_path: Path, other: subprocess.Popen[bytes]
) -> None:
    spec = SweepSpec(base, (0.3, 0.5), ("magnitude",))
    found = sweep_module.write_sweep(tmp_path, spec, tmp_path)
    made_by(other, found.folder(found.points[0]))
    seen: list[float] = []

    def told(row: dict[str, Any]) -> None:
        seen.append(row["sparsity"])
        threading.Timer(1.0, other.kill).start()

    rows = sweep(spec, tmp_path, on_point=told)
    assert seen == [0.5, 0.3]
    assert [row["state"] for row in rows] == ["done", "done"]


def test_a_sweep_that_waits_for_its_helpers_can_be_cancelled(
    base: PruneSpec, tmp_path: Path, other: subprocess.Popen[bytes]
) -> None:
    spec = SweepSpec(base, (0.3,), ("magnitude",))
    found = sweep_module.write_sweep(tmp_path, spec, tmp_path)
    made_by(other, found.folder(found.points[0]))
    threading.Timer(0.5, store.request_cancel, (tmp_path,)).start()
    with pytest.raises(JobCancelled):
        sweep(spec, tmp_path)
    assert store.read_status(tmp_path).message
    assert found.state(found.points[0]) == "running"

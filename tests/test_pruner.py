"""The whole pipeline on the tiny checkpoint: run folder, invariants, cancellation, failure."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.numpy import load_file

from pgb_core import (
    JobCancelled,
    PGBError,
    PruneSpec,
    RunError,
    SpecError,
    evaluation,
    load_pruned,
    matrices,
    prune,
    store,
    tasks,
)
from pgb_core.progress import Progress
from pgb_core.spec import BASELINES, METHODS

STAGES = ["loading", "importance", "grouping", "budget", "compensation", "recovery", "evaluation", "latency", "saving"]


@pytest.fixture
def spec(tiny_checkpoint: Path, tiny_csv: Path) -> PruneSpec:
    return PruneSpec(str(tiny_checkpoint), "csv", 0.5, train_file=str(tiny_csv), calibration_samples=128, latency=False)


def changed(spec: PruneSpec, **values: Any) -> PruneSpec:
    return PruneSpec(**{**spec.to_dict(), **values})


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path, tiny_csv: Path
) -> tuple[Path, Any, list[Progress]]:
    """One run with every stage."""
    folder, seen = tmp_path_factory.mktemp("runs") / "run", []
    spec = PruneSpec(
        str(tiny_checkpoint), "csv", 0.7, train_file=str(tiny_csv), calibration_samples=128, recover_epochs=1
    )
    return folder, prune(spec, folder, seen.append), seen


def test_the_result_follows_the_contract(finished: tuple[Path, Any, list[Progress]]) -> None:
    folder, result, _ = finished
    assert json.loads((folder / "result.json").read_text()) == result
    assert {
        "schema", "method", "sparsity", "budget", "parameters", "flops", "bytes", "score", "latency",
        "latencies", "seconds", "sublayers", "restored", "predictions", "recovery", "environment",
    } == result.keys()  # fmt: skip
    assert result["score"].keys() == {
        "metric", "dense", "masked", "compensated", "recovered", "majority", "samples", "standard_error"
    }  # fmt: skip
    assert {"importance", "grouping", "budget", "compensation", "recovery", "evaluation", "total"} <= result[
        "seconds"
    ].keys()
    for sublayer in result["sublayers"]:
        assert {"layer", "kind", "dropped", "density", "kept_importance", "matrices"} <= sublayer.keys()
        assert 0 <= sublayer["kept_importance"] <= 1
    kept = sum(
        rows * columns
        for sublayer in result["sublayers"]
        for matrix in sublayer["matrices"]
        for rows, columns in zip(matrix["group_rows"], matrix["group_columns"], strict=True)
    )
    assert kept == result["parameters"]["encoder_pruned"]
    assert result["sparsity"]["achieved"] == pytest.approx(1 - kept / result["parameters"]["encoder_dense"])
    assert result["sparsity"]["achieved"] >= 0.7
    assert result["bytes"]["pruned"] == (folder / "model" / "model.safetensors").stat().st_size
    assert result["score"]["recovered"] >= result["score"]["masked"]
    assert result["latency"]["speedup"] > 0


def test_the_run_folder_holds_what_the_pages_read(finished: tuple[Path, Any, list[Progress]]) -> None:
    folder, result, _ = finished
    run = store.read_run(folder)
    assert run.status.state == "done"
    assert run.spec["fingerprint"]
    assert run.spec["max_length"] == tasks.TASKS["csv"].max_length
    model = load_pruned(run.model_dir)
    assert evaluation.encoder_weights(model) == result["parameters"]["encoder_pruned"]
    for key, layout in matrices.read_layouts(run).items():
        view = matrices.read_matrix(run, *key)
        rows, columns = layout.row_order(), layout.column_order()
        assert sorted(rows) == list(range(layout.rows))
        assert sorted(columns) == list(range(layout.columns))
        permuted, block_mask = view.pruned[np.ix_(rows, columns)], np.zeros(view.pruned.shape, dtype=bool)
        r = c = 0
        for row_group, column_group in zip(layout.row_groups, layout.column_groups, strict=True):
            block_mask[r : r + len(row_group), c : c + len(column_group)] = True
            r, c = r + len(row_group), c + len(column_group)
        assert not permuted[~block_mask].any()  # block-diagonal
        assert np.array_equal(view.pruned != 0, view.layout.mask() & (view.pruned != 0))
        assert view.dense is not None
        assert view.dense.shape == view.pruned.shape
    for table in store.read_options(run):
        assert 0 <= table["chosen"] < len(table["options"])


@pytest.mark.parametrize("stage", ["grouping", "budget", "compensation"])
def test_stages_say_which_layer_of_how_many(finished: tuple[Path, Any, list[Progress]], stage: str) -> None:
    messages = " ".join(progress.message for progress in finished[2] if progress.stage == stage)
    for kind in ("attention", "feed-forward"):
        assert all(f"{kind} of layer {layer} of 2" in messages for layer in (1, 2))


def test_progress_goes_through_every_stage_and_never_back(finished: tuple[Path, Any, list[Progress]]) -> None:
    seen = finished[2]
    assert list(dict.fromkeys(progress.stage for progress in seen)) == STAGES
    fractions = [progress.fraction for progress in seen]
    assert fractions == sorted(fractions)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.9])
def test_every_method_meets_its_target_within_one_option(
    spec: PruneSpec, tmp_path: Path, method: str, sparsity: float
) -> None:
    result = prune(changed(spec, method=method, sparsity=sparsity), tmp_path / "run")
    assert sparsity <= result["sparsity"]["achieved"] + 1e-9
    assert result["sparsity"]["achieved"] < sparsity + 0.15
    if sparsity == 0:
        assert result["score"]["compensated"] == result["score"]["masked"] == result["score"]["dense"]
    assert {"importance", "grouping", "budget", "compensation", "recovery", "total"} <= result["seconds"].keys()
    if method not in ("pgb", "pgb-mixed", "pgb-paper"):
        assert all(m["groups"] <= 1 for s in result["sublayers"] for m in s["matrices"])
    assert (tmp_path / "run" / "options.json").exists() == (method not in BASELINES)
    shared = {"pgb", "pgb-mixed", "structured"}
    assert result["predictions"].keys() == (shared if method in shared else set() if method in BASELINES else {method})
    assert result["budget"] == {"unit": "weights", "achieved": pytest.approx(result["sparsity"]["achieved"])}
    if method not in BASELINES:  # the run did what its own table predicted
        achieved = result["predictions"][method]["sparsity"]
        assert result["sparsity"]["achieved"] == pytest.approx(achieved, abs=1e-9)
    if method in ("pgb", "pgb-paper") and sparsity:
        assert any(m["groups"] != 1 for s in result["sublayers"] for m in s["matrices"])


def test_a_run_in_flops_with_constraints(spec: PruneSpec, tmp_path: Path) -> None:
    result = prune(changed(spec, sparsity=0.6, budget="flops", max_groups=2, pins=["1.attention:3"]), tmp_path / "run")
    head = 2 * (32 * 32 + 32 * 2)
    removed = 1 - (result["flops"]["pruned"] - head) / (result["flops"]["dense"] - head)
    assert 0.6 <= removed + 1e-9 < 0.75
    assert result["budget"] == {"unit": "flops", "achieved": pytest.approx(removed)}
    assert all(matrix["groups"] <= 2 for sublayer in result["sublayers"] for matrix in sublayer["matrices"])
    pinned = next(s for s in result["sublayers"] if (s["layer"], s["kind"]) == (1, "attention"))
    assert pinned["units"]["kept"] >= 3
    with pytest.raises(SpecError, match="the model has layers"):
        prune(changed(spec, pins=["2.attention"]), tmp_path / "other")


def test_fisher_importance_runs(spec: PruneSpec, tmp_path: Path) -> None:
    result = prune(changed(spec, importance="fisher"), tmp_path / "run")
    assert result["score"]["compensated"] > 0.8


def test_two_runs_with_one_seed_are_equal(spec: PruneSpec, tmp_path: Path) -> None:
    for name in ("first", "second"):
        prune(changed(spec, recover_epochs=1), tmp_path / name)
    first, second = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("first", "second"))
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_no_evaluation_example_is_read_before_evaluation(
    spec: PruneSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, reads = ["nothing"], set()
    held_out: list[Dataset] = []
    load, getitem = tasks.load_task, Dataset.__getitem__

    def load_task(*args: Any, **kwargs: Any) -> tasks.TaskData:
        data = load(*args, **kwargs)
        held_out.append(data.evaluation)
        return data

    def read(self: Dataset, key: Any) -> Any:
        if any(self is dataset for dataset in held_out):
            reads.add(stage[0])
        return getitem(self, key)

    monkeypatch.setattr(tasks, "load_task", load_task)
    monkeypatch.setattr(Dataset, "__getitem__", read)
    prune(spec, tmp_path / "run", lambda progress: stage.__setitem__(0, progress.stage))
    assert reads == {"evaluation"}


@pytest.mark.parametrize("stage", STAGES)
def test_a_cancel_in_any_stage_leaves_a_cancelled_run_and_nothing_else(
    spec: PruneSpec, tmp_path: Path, stage: str
) -> None:
    def stop(progress: Progress) -> None:
        if progress.stage == stage:
            raise JobCancelled("The run was cancelled.")

    with pytest.raises(JobCancelled):
        prune(changed(spec, recover_epochs=1, latency=True), tmp_path / "run", stop)
    assert store.read_status(tmp_path / "run").state == "cancelled"
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"spec.json", "status.json", "log.txt"}


def test_a_failure_is_recorded_with_its_reason(spec: PruneSpec, tmp_path: Path) -> None:
    with pytest.raises(PGBError):
        prune(changed(spec, train_file=str(tmp_path / "missing.csv")), tmp_path / "run")
    status = store.read_status(tmp_path / "run")
    assert status.state == "failed"
    assert "missing.csv" in status.message


def test_running_out_of_memory_fails_the_run_in_one_line(
    spec: PruneSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def greedy(*args: Any, **kwargs: Any) -> None:
        torch.empty(2**60)

    monkeypatch.setattr("pgb_core.planning.collect_statistics", greedy)
    with pytest.raises(RuntimeError):
        prune(spec, tmp_path / "run")
    assert "Not enough memory" in store.read_status(tmp_path / "run").message


def test_a_folder_that_is_deleted_meanwhile_does_not_hide_what_went_wrong(spec: PruneSpec, tmp_path: Path) -> None:
    def fail(progress: Progress) -> None:
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        raise JobCancelled("The run was cancelled.")

    with pytest.raises(JobCancelled):
        prune(spec, tmp_path / "run", fail)
    assert not (tmp_path / "run").exists()


def test_a_finished_run_is_not_overwritten(finished: tuple[Path, Any, list[Progress]], spec: PruneSpec) -> None:
    before = (finished[0] / "result.json").read_bytes()
    with pytest.raises(RunError, match="already holds a finished run"):
        prune(spec, finished[0])
    assert (finished[0] / "result.json").read_bytes() == before


def test_a_folder_with_other_files_is_left_alone(spec: PruneSpec, tmp_path: Path) -> None:
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "precious.txt").write_text("mine")
    with pytest.raises(RunError, match="not a run's"):
        prune(spec, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").rglob("*")] == ["model", "precious.txt"]


def test_the_folder_of_a_killed_run_is_used_again(spec: PruneSpec, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for name in ("model", ".model"):
        (folder / name).mkdir(parents=True)
        (folder / name / "half.txt").touch()
    dead = store.Status("running", "saving", pid=2**22 + 1, pid_created=1.0)
    store.write_status(folder, dead)
    store.write_json(folder / "spec.json", {"sparsity": 0.1})
    result = prune(spec, folder)
    assert store.read_run(folder).spec["sparsity"] == result["sparsity"]["target"] == 0.5
    assert not (folder / "model" / "half.txt").exists()
    assert not (folder / ".model").exists()


def test_a_cancel_after_the_end_comes_too_late(
    spec: PruneSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = store.write_last_status

    def write_and_cancel(path: Path, status: store.Status) -> None:
        write(path, status)
        if status.state == "done":
            raise JobCancelled("The run was cancelled.")

    monkeypatch.setattr(store, "write_last_status", write_and_cancel)
    with pytest.raises(JobCancelled):
        prune(spec, tmp_path / "run")
    assert store.read_run(tmp_path / "run").result is not None


def test_the_log_says_what_took_how_long_and_where_an_unexpected_error_came_from(
    spec: PruneSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr("pgb_core.planning.compensate", fail)
    with pytest.raises(ZeroDivisionError):
        prune(spec, tmp_path / "run")
    log = store.log_file(tmp_path / "run").read_text()
    assert "importance took" in log
    assert "ZeroDivisionError: a fault of ours" in log
    assert "see its log" in store.read_status(tmp_path / "run").message


def test_a_run_of_another_process_is_not_disturbed(spec: PruneSpec, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    store.write_status(tmp_path / "run", store.owned_by(store.Status("running"), 1))
    with pytest.raises(PGBError, match="Another process"):
        prune(spec, tmp_path / "run")
    assert store.recorded_status(tmp_path / "run").pid == 1

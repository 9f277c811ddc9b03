"""Scoring without pruning: the tables of a run, made once; as a command and in the background."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pgb_core import PruneSpec, commands, jobs, latency_forms, latency_table, prune, scored, scoring, store, worker
from pgb_core import __main__ as cli
from pgb_core.errors import CheckpointError, JobCancelled, RunError
from pgb_core.progress import Progress
from pgb_core.settings import get_settings
from pgb_core.spec import PruneSpec as Spec
from tests.sample_latency import SIZES, sample_table

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def spec(tiny_checkpoint: Path, tiny_csv: Path) -> Spec:
    return PruneSpec(
        str(tiny_checkpoint),
        "csv",
        0.5,
        train_file=str(tiny_csv),
        calibration_samples=64,
        max_length=32,
        latency=False,
        device="cpu",
    )


def arguments(spec: Spec) -> list[str]:
    return ["score", *commands.score_arguments(spec)]


def test_a_scoring_leaves_the_record_that_a_run_leaves(spec: Spec, capsys: pytest.CaptureFixture[str]) -> None:
    runs_dir = get_settings().runs_dir
    assert cli.main([*arguments(spec), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["scored"], found["measured"]) == (True, False)
    path = runs_dir / "scored" / f"{found['record']}.json"
    record = scored.read(path)
    assert store.list_runs(runs_dir) == []

    run = runs_dir / "20250101-000000-abcdef"
    prune(spec, run)
    assert [file.stem for file in (runs_dir / "scored").iterdir()] == [found["record"]]  # the same, refreshed
    assert scored.read(path).created > record.created
    for sub, table in zip(record.sublayers, store.read_options(store.read_run(run)), strict=True):
        own = [{k: v for k, v in option.items() if k != "admitted"} for option in table["options"]]
        assert list(sub.options) == own
        assert all(sum(o["group_units"]) == o["units"] for o in sub.options)
    assert record.dense["parameters"] == store.read_json(run / "result.json")["parameters"]["dense"]

    assert cli.main(arguments(spec)) == 0  # what is there is not made again
    assert "scored before" in capsys.readouterr().out


def test_a_run_elsewhere_leaves_no_record_here(spec: Spec, tmp_path: Path) -> None:
    prune(spec, tmp_path / "run")
    assert scored.find(get_settings().runs_dir) == {}


def test_the_latency_table_is_measured_once(
    spec: Spec, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured: list[Any] = []

    def measure(model: Any, **_: Any) -> latency_table.LatencyTable:
        measured.append(model)
        return sample_table(SIZES)

    monkeypatch.setattr(latency_forms, "measure", measure)
    asked = PruneSpec.from_dict({**spec.to_dict(), "latency": True})
    assert cli.main(arguments(asked)) == 0
    assert "latency table measured" in capsys.readouterr().out
    assert latency_table.find(SIZES, get_settings().cache_dir) == sample_table(SIZES)
    assert scoring.score_checkpoint(asked) | {"seconds": 0} == {
        "record": next(iter(scored.find(get_settings().runs_dir))),
        "scored": False,
        "measured": False,
        "seconds": 0,
    }
    assert len(measured) == 1


def test_a_scoring_in_the_background_is_a_job_of_its_own_kind(spec: Spec) -> None:
    runs_dir = get_settings().runs_dir
    job_id = jobs.submit(spec, "score")
    result = jobs.result(runs_dir / job_id, 240)
    run = store.find_run(runs_dir, job_id, "score")
    assert run.result == result
    assert result["record"] in scored.find(runs_dir)
    assert store.list_runs(runs_dir) == []  # no page that compares runs sees it
    with pytest.raises(RunError, match="There is no run"):
        store.find_run(runs_dir, job_id)


def test_a_cancelled_scoring_leaves_no_record(spec: Spec, tmp_path: Path) -> None:
    def stop(progress: Progress) -> None:
        if progress.stage == "budget" and progress.stage_fraction > 0.5:
            raise JobCancelled("enough")

    out = get_settings().runs_dir / "20250101-000000-abcdef"
    with pytest.raises(JobCancelled):
        scoring.score_checkpoint(spec, out=out, on_progress=stop)
    status = store.read_status(out)
    assert (status.state, status.job) == ("cancelled", "score")
    assert scored.find(get_settings().runs_dir) == {}


def test_a_scoring_that_fails_says_why(spec: Spec) -> None:
    out = get_settings().runs_dir / "20250101-000000-abcdef"
    wrong = PruneSpec.from_dict({**spec.to_dict(), "checkpoint": "nowhere"})
    with pytest.raises(CheckpointError):
        scoring.score_checkpoint(wrong, out=out)
    assert store.read_status(out).message.startswith("no checkpoint 'nowhere'")


def test_folders_of_old_scorings_are_cleared_away(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    runs_dir = get_settings().runs_dir
    old, new, run = (runs_dir / f"20250101-00000{n}-abcdef" for n in range(3))
    for path, job in ((old, "score"), (new, "score"), (run, "prune")):
        path.mkdir()
        store.write_json(path / "spec.json", spec.to_dict())
        store.write_status(path, store.Status("failed", job=job))  # type: ignore[arg-type]
    for path in (old, run):
        values = store.read_json(path / "status.json")
        store.write_json(path / "status.json", {**values, "updated": 1.0})
    worker.forget_scorings(runs_dir)
    assert [path.exists() for path in (old, new, run)] == [False, True, True]

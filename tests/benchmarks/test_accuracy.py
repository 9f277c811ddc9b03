"""The benchmark on the tiny checkpoint: what it makes, in which order, and that it goes on where it stopped."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import accuracy, accuracy_measure
from benchmarks.accuracy_measure import Subject
from benchmarks.accuracy_points import Key, read, read_all
from pgb_core import PruneSpec, SpecError, checkpoints, evaluation, planning, prune, tasks
from pgb_core.batching import encode, stratified_positions
from pgb_core.spec import METHODS

CALIBRATION = 128


@pytest.fixture
def subject(tiny_checkpoint: Path, tiny_csv: Path) -> Subject:
    checkpoint = checkpoints.resolve(str(tiny_checkpoint), "csv")
    model, tokenizer = checkpoints.load_model(checkpoint.path), checkpoints.load_tokenizer(checkpoint.path)
    data = tasks.load_task("csv", id2label=evaluation.labels_of(model), train_file=tiny_csv)
    rows = stratified_positions(list(data.train["label"]), CALIBRATION, 0)
    train, held_out = encode(data.train, tokenizer, 128), encode(data.evaluation, tokenizer, 128)
    return Subject(model, checkpoint.fingerprint, "accuracy", train, [train[row] for row in rows], held_out)


def test_the_plan_puts_recovery_last_and_only_where_it_is_asked_for() -> None:
    keys = accuracy.plan(["a", "b"], ["pgb", "kwon"], [0.5, 0.75], recover=True)
    assert [key.method for key in keys[:2]] == ["dense", "dense"]
    assert [key.recovered for key in keys] == [False] * 10 + [True] * 4
    assert {(key.method, key.sparsity) for key in keys[10:]} == {("dense", 0), ("pgb", 0.5)}
    assert accuracy.plan(["a", "b"], ["pgb", "kwon"], [0.5, 0.75], recover=False) == keys[:10]
    everything = accuracy.plan(["a", "b"], list(METHODS), accuracy.SPARSITIES, recover=True)
    assert len(everything) == len(set(everything)) == 2 * (1 + 8 * 5 + 1 + 4 * 3)


def test_trials_lie_apart_from_the_real_points(tmp_path: Path) -> None:
    settings = [(0, None, 1024), (1, None, 1024), (0, 500, 1024), (0, None, 64), (0, 500, 64)]
    assert len({accuracy.folder_of(tmp_path, *each) for each in settings}) == len(settings)


def test_points_equal_what_prune_measures(
    subject: Subject, tmp_path: Path, tiny_checkpoint: Path, tiny_csv: Path
) -> None:
    keys = accuracy.plan(["csv"], ["pgb-mixed", "kwon"], [0.5], recover=False)
    keys += [Key("csv", "pgb-mixed", 0.5, recovered=True), Key("csv", "dense", recovered=True)]
    before = subject.model.state_dict()["classifier.weight"].clone()
    accuracy.run(keys, lambda task: subject, tmp_path / "points")
    assert torch.equal(subject.model.state_dict()["classifier.weight"], before)
    trained = read(tmp_path / "points" / "csv" / keys[-1].file)
    assert trained is not None
    assert (trained.achieved, trained.divergence > 0) == (0, True)
    for key in keys[1:-1]:
        point = read(tmp_path / "points" / "csv" / key.file)
        assert point is not None
        spec = PruneSpec(
            str(tiny_checkpoint),
            "csv",
            0.5,
            method=key.method,
            train_file=str(tiny_csv),
            calibration_samples=CALIBRATION,
            recover_epochs=2 if key.recovered else 0,
            latency=False,
        )
        result = prune(spec, tmp_path / key.file)
        assert point.score == result["score"]["recovered" if key.recovered else "compensated"]
        assert point.achieved == result["sparsity"]["achieved"]
        assert point.dropped == sum(sublayer["dropped"] for sublayer in result["sublayers"])
        if key.method == "pgb-mixed":
            assert point.loss == result["predictions"]["pgb-mixed"]["loss"]
            assert point.grouped == result["predictions"]["pgb-mixed"]["grouped"]
        assert point.divergence > 0
        assert {"scores", "pruning", "evaluation"} <= point.seconds.keys()


def test_a_killed_benchmark_goes_on_where_it_stopped(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = accuracy.plan(["csv"], ["structured", "heads-neurons"], [0.5, 0.75], recover=False)
    passes: list[str] = []
    score = planning.score
    monkeypatch.setattr(planning, "score", lambda *a, **k: passes.append("score") or score(*a, **k))

    def killed(line: str) -> None:
        if "structured 0.75" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        accuracy.run(keys, lambda task: subject, tmp_path, tell=killed)
    done = {point.key for point in read_all(tmp_path)}
    assert done == set(keys[:4])
    assert len(passes) == 1  # shared

    told: list[str] = []
    fresh = replace(subject)
    assert accuracy.run(keys, lambda task: fresh, tmp_path, tell=told.append) == 1
    assert [line.split(":")[0] for line in told] == [str(keys[4])]
    assert {point.key for point in read_all(tmp_path)} == set(keys)

    assert accuracy.run(keys, lambda task: replace(subject), tmp_path, tell=told.append) == 0
    assert len(passes) == 2  # nothing to make, nothing to compute

    at_once = tmp_path / "at once"
    accuracy.run(keys, lambda task: subject, at_once)
    for one, other in zip(read_all(tmp_path), read_all(at_once), strict=True):
        assert one.key == other.key
        np.testing.assert_array_equal(one.correct, other.correct)
        assert one.divergence == other.divergence


def test_points_of_other_data_are_made_anew_and_those_of_other_code_on_request(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = accuracy.plan(["csv"], ["structured"], [0.5], recover=False)
    accuracy.run(keys, lambda task: subject, tmp_path)
    assert accuracy.stale_keys(read_all(tmp_path)) == []

    path = tmp_path / "csv" / keys[1].file
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"origin": values["origin"] | {"code": "older"}}))
    assert accuracy.stale_keys(read_all(tmp_path)) == [keys[1]]
    assert accuracy.run(keys, lambda task: subject, tmp_path) == 0
    assert accuracy.run(keys, lambda task: subject, tmp_path, remake=True) == 1
    assert accuracy.stale_keys(read_all(tmp_path)) == []

    fewer = replace(subject, held_out=subject.held_out[:50])
    assert accuracy.run(keys, lambda task: fewer, tmp_path) == 2
    assert {len(point.correct) for point in read_all(tmp_path)} == {50}


def test_a_target_out_of_reach_is_a_point_that_says_so(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def by_baseline(method: str, *given: object, **more: object) -> None:
        raise SpecError("sparsity 0.99 is out of reach.")

    monkeypatch.setattr(planning, "by_baseline", by_baseline)
    keys = accuracy.plan(["csv"], ["kwon"], [0.99], recover=False)
    told: list[str] = []
    accuracy.run(keys, lambda task: subject, tmp_path, tell=told.append)
    point = read(tmp_path / "csv" / keys[1].file)
    assert point is not None
    assert point.failure == "sparsity 0.99 is out of reach."
    assert point.failure in told[1]
    assert accuracy.run(keys, lambda task: subject, tmp_path) == 0


def test_the_command_line(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, dict[str, object]]] = []
    monkeypatch.setattr(accuracy, "load", lambda task, **given: asked.append((task, given)) or subject)
    monkeypatch.setattr(accuracy, "take_picture", lambda *given: False)
    common = ["--out", str(tmp_path), "--samples", "80"]
    assert accuracy.main([*common, "--report-only"]) == 0
    assert "no point" in capsys.readouterr().out
    arguments = ["--tasks", "tweets", "--methods", "structured", "--sparsities", "0.5,0.75"]
    assert accuracy.main([*common, *arguments, "--no-recover", "--calibration-samples", "64"]) == 0
    ((task, given),) = asked
    assert (task, given["samples"], given["calibration"], given["seed"]) == ("tweets", 80, 64, 0)
    printed = capsys.readouterr()
    folder = tmp_path / "seed-0-samples-80-calibration-64"
    assert printed.out == (folder / "report.md").read_text() + "\n"
    assert "## tweets" in printed.out
    assert printed.err.count("structured") == 2
    assert "No picture" in printed.err
    names = {path.name for path in folder.iterdir()}
    assert names == {"tweets", "report.md", "accuracy.json", "accuracy.html"}
    figure = json.loads((folder / "accuracy.json").read_text())
    assert [trace["name"] for trace in figure["data"]] == ["structured"]


@pytest.mark.parametrize(
    "wrong", [["--methods", "best"], ["--tasks", "sst2"], ["--sparsities", "half"], ["--tasks", ","]]
)
def test_what_is_not_offered_is_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        accuracy.make_parser().parse_args(wrong)
    assert "is not a list of" in capsys.readouterr().err


def test_the_demo_is_loaded_as_prune_loads_it(
    tiny_checkpoint: Path, tiny_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve, load_task = checkpoints.resolve, tasks.load_task
    monkeypatch.setattr(checkpoints, "resolve", lambda name, task, step: resolve(str(tiny_checkpoint), "csv"))
    monkeypatch.setattr(tasks, "load_task", lambda name, **given: load_task("csv", train_file=tiny_csv, **given))
    found = accuracy_measure.load("tweets", seed=0, samples=30, calibration=40)
    assert (len(found.train), len(found.calibration), len(found.held_out)) == (320, 40, 30)
    assert set(found.calibration) <= set(found.train)
    assert found.checkpoint == resolve(str(tiny_checkpoint), "csv").fingerprint

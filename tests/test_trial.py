"""The helper process: answers, progress, and a new one where the old one has died."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pgb_core import PruneSpec, RunError, evaluation, prune, store, tasks
from pgb_core.settings import get_settings
from pgb_core.trial import COMMAND, MAX_CHARACTERS, Trial
from pgb_core.trial_worker import ROUNDS, Worker

ECHO = """
import json, os, sys
for line in sys.stdin:
    request = json.loads(line)
    say = lambda **reply: print(json.dumps({"id": request["id"], **reply}), flush=True)
    if request["op"] == "die" or (request["op"] == "die once" and not os.path.exists(request["note"])):
        open(request.get("note", os.devnull), "w").close()
        os._exit(1)
    if request["op"] == "fail":
        say(error="This cannot be done.")
    elif request["op"] == "silence":
        continue
    else:
        print(json.dumps({"id": 0, "answer": "to a page that has gone"}), flush=True)
        say(progress="thinking")
        say(answer={"pid": os.getpid(), "op": request["op"]})
"""


@pytest.fixture
def echo() -> Iterator[Trial]:
    trial = Trial([sys.executable, "-c", ECHO], patience=20)
    yield trial
    trial.close()


def test_one_helper_answers_all_questions_and_says_what_it_does(echo: Trial) -> None:
    echo.warm()
    said: list[str] = []
    first, second = echo.ask({"op": "a"}, said.append), echo.ask({"op": "b"}, said.append)
    assert first["pid"] == second["pid"]
    assert second["op"] == "b"
    assert said == ["loading the libraries, which takes long only the first time", "thinking", "thinking"]


def test_one_that_dies_is_started_again(echo: Trial, tmp_path: Path) -> None:
    first = echo.ask({"op": "a"})["pid"]
    assert echo.ask({"op": "die once", "note": str(tmp_path / "note")})["pid"] != first
    with pytest.raises(RunError, match="ended twice"):
        echo.ask({"op": "die"})
    assert echo.ask({"op": "a"})["op"] == "a"


def test_what_it_cannot_do_is_told_in_its_words_and_silence_ends(echo: Trial) -> None:
    with pytest.raises(RunError, match=r"^This cannot be done\.$"):
        echo.ask({"op": "fail"})
    impatient = Trial([sys.executable, "-c", ECHO], patience=2)
    with pytest.raises(RunError, match="said nothing for 2 s"):
        impatient.ask({"op": "silence"})
    assert not impatient.alive
    with pytest.raises(RunError, match="cannot be started"):
        Trial(["/no/such/program"]).ask({"op": "a"})


# --- the real one --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path, tiny_csv: Path) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "20260101-000000-abcdef"
    spec = PruneSpec(
        str(tiny_checkpoint), "csv", 0.6, method="magnitude", train_file=str(tiny_csv), calibration_samples=64,
        latency=False, eval_samples=30,
    )  # fmt: skip
    prune(spec, folder)
    return folder


@pytest.fixture
def run(finished: Path, monkeypatch: pytest.MonkeyPatch) -> store.Run:
    monkeypatch.setenv("PGB_RUNS_DIR", str(finished.parent))
    return store.read_run(finished)


def both(run: store.Run, text: str = "a happy lovely day") -> dict[str, Any]:
    models = [{"run": run.id, "model": which} for which in ("dense", "pruned")]
    return {"op": "classify", "models": models, "text": text, "text_pair": None}


def test_dense_and_pruned_answer_with_probabilities_and_milliseconds(run: store.Run) -> None:
    said: list[str] = []
    dense, pruned = Worker().answer(both(run), said.append)
    rounds = [f"round {n} of {ROUNDS}" for n in range(1, ROUNDS + 1)]
    assert said == ["loading the dense model", "loading the pruned model", "asking the models", *rounds]
    for answer in (dense, pruned):
        assert answer["label"] == "positive"
        assert sum(answer["probabilities"].values()) == pytest.approx(1)
        assert max(answer["probabilities"], key=answer["probabilities"].get) == answer["label"]
        assert 0 < answer["p10_ms"] <= answer["median_ms"] <= answer["p90_ms"]
        assert (answer["tokens"], answer["cut"]) == (6, False)


def test_models_are_loaded_once_and_the_oldest_goes(run: store.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgb_core.trial_worker.MODELS", 1)
    worker, said = Worker(), list[str]()
    one = {**both(run), "models": [{"run": run.id, "model": "pruned"}]}
    for request in (one, one, both(run), one):
        worker.answer(request, said.append)
    assert said.count("loading the pruned model") == 2
    assert said.count("loading the dense model") == 1


def test_texts_are_those_of_the_evaluation(run: store.Run) -> None:
    from pgb_core import answers, checkpoints

    found = answers.read_answers(run)
    assert found is not None
    rows, labels = found.rows[:5].tolist(), found.labels[:5].tolist()
    texts = Worker().answer({"op": "texts", "run": run.id, "rows": rows, "labels": labels}, print)
    model = checkpoints.load_model(Path(run.spec["checkpoint_path"]))
    data = tasks.load_task("csv", id2label=evaluation.labels_of(model), train_file=run.spec["train_file"], seed=0)
    assert [entry["text"] for entry in texts] == data.evaluation[rows]["text"]
    with pytest.raises(RunError, match="labels are others"):
        Worker().answer({"op": "texts", "run": run.id, "rows": rows, "labels": [1 - n for n in labels]}, print)
    with pytest.raises(RunError, match="fewer now"):
        Worker().answer({"op": "texts", "run": run.id, "rows": [10**6], "labels": [0]}, print)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": [{"run": "../../etc", "model": "dense"}]}, "no run"),
        ({"models": [{"run": "20260102-000000-abcdef", "model": "pruned"}]}, "no run"),
        ({"text": "x" * (MAX_CHARACTERS + 1)}, "at most 2000 characters"),
    ],
)
def test_what_it_must_not_do_it_refuses(run: store.Run, change: dict[str, Any], message: str) -> None:
    with pytest.raises(RunError, match=message):
        Worker().answer({**both(run), **change}, print)


def test_a_checkpoint_that_has_changed_is_not_taken_for_the_one_of_the_run(run: store.Run, tmp_path: Path) -> None:
    spec = store.read_json(run.path / "spec.json")
    for changed, message in (
        ({"fingerprint": "0" * 64}, "changed since"),
        ({"checkpoint_path": str(tmp_path)}, "no longer there"),
    ):
        try:
            store.write_json(run.path / "spec.json", {**spec, **changed})
            with pytest.raises(RunError, match=message):
                Worker().answer(both(run), print)
        finally:
            store.write_json(run.path / "spec.json", spec)


@pytest.mark.timeout(330)  # it loads torch, which takes minutes on a very busy machine
def test_the_process_speaks_json_lines_and_ends_with_its_stdin(run: store.Run) -> None:
    lines = [{**both(run), "id": 1}, {"op": "nonsense", "id": 2}, {**both(run, "x" * 9999), "id": 3}]
    done = subprocess.run(
        COMMAND, input="".join(f"{json.dumps(line)}\n" for line in lines), capture_output=True, text=True, timeout=300,
        env=os.environ | {"PGB_RUNS_DIR": str(get_settings().runs_dir)}, cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    replies = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0
    assert [reply["id"] for reply in replies if "progress" not in reply] == [1, 2, 3]
    answered = {reply["id"]: reply for reply in replies if "progress" not in reply}
    assert len(answered[1]["answer"]) == 2
    assert "KeyError" in answered[2]["error"]
    assert "2000 characters" in answered[3]["error"]


def test_the_process_ends_when_nobody_asks() -> None:
    code = "import sys; from pgb_core.trial_worker import Worker, serve; serve(sys.stdin, sys.stdout, Worker(), 0.2)"
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, cwd=Path(__file__).parent.parent)
    assert process.wait(30) == 0
    assert time.monotonic() - started < 30
    assert process.stdin is not None
    process.stdin.close()

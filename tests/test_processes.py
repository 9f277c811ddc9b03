"""A run on two processes: one run folder, and nearly the model that one process makes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pgb_core import PruneSpec, SpecError, commands, processes, prune, store
from pgb_core.__main__ import main
from tests.sample_run import make_unfinished_run


def free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port: int = place.getsockname()[1]
        return port


def test_two_processes_make_one_run_that_scores_like_that_of_one(
    tiny_checkpoint: Path, tiny_csv: Path, tmp_path: Path
) -> None:
    """Every batch is shared out, so that only dropout and the last batch of an epoch differ."""
    spec = PruneSpec(
        *(str(tiny_checkpoint), "csv", 0.8, "magnitude"),
        train_file=str(tiny_csv),
        calibration_samples=32,
        recover_epochs=2,
        latency=False,
        device="cpu",
    )
    out = tmp_path / "two"
    launch = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pgb_core", "prune", *commands.prune_arguments(spec), f"--out={out}"]
    both = [
        subprocess.Popen(
            command,
            env={**commands.child_environment(), **launch, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in (0, 1)
    ]
    said = [process.communicate(timeout=110)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert str(out) in said[0]
    assert said[1] == ""  # one answer
    run = store.read_run(out)
    alone = prune(spec, tmp_path / "one")
    assert run.result is not None
    names = {path.name for path in (tmp_path / "one").iterdir()}
    assert {path.name for path in out.iterdir()} == names
    first, second = run.result["recovery"], alone["recovery"]
    assert [check["epoch"] for check in first["history"]] == [check["epoch"] for check in second["history"]]
    assert first["history"][0] == second["history"][0]  # before training: what the two put together is what one finds
    assert first["history"][-1]["dev_loss"] == pytest.approx(second["history"][-1]["dev_loss"], rel=0.2)
    assert run.result["score"]["recovered"] == pytest.approx(alone["score"]["recovered"], abs=0.05)


def test_only_prune_knows_several_processes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["runs", "list"]) == 2
    assert capsys.readouterr().err == (
        "pgb: runs runs on one process: do it by itself, without accelerate launch or torchrun.\n"
    )
    monkeypatch.setenv("WORLD_SIZE", "1")
    processes.refuse_several("runs")


def test_a_model_is_lent_only_where_there_is_somebody_to_help(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(place: Path) -> None:
        place.mkdir()
        (place / "model").touch()

    with processes.lent(tmp_path, write):
        assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SpecError), processes.lent(tmp_path, write):
        assert [path.name for path in tmp_path.rglob("*")] == [".recovery", "model"]
        raise SpecError("ends")
    assert list(tmp_path.iterdir()) == []


def test_a_helper_waits_for_this_run_and_ends_with_it(tmp_path: Path) -> None:
    old = make_unfinished_run(tmp_path, store.Status("failed"))
    (old / ".recovery").mkdir()  # of a launch that was killed
    os.utime(old / "status.json")
    waited: list[str] = []

    def step(done: int, total: int, message: str = "") -> None:
        waited.append(message)
        if len(waited) == 2:
            store.write_status(old, store.this_process(store.Status("running", created=time.time())))
            (old / ".recovery").rmdir()
        if len(waited) == 4:
            (old / ".recovery").mkdir()

    assert processes.borrow(old, time.time(), step) == old / ".recovery"
    assert len(waited) == 4
    store.write_status(old, store.Status("failed"))
    waited.clear()
    assert processes.borrow(old, time.time(), lambda *_: store.write_status(old, store.Status("failed"))) is None
    assert processes.borrow(old, time.time() - 60, step) is None  # it ended while this process was loading

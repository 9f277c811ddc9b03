"""What may happen to a run: it says why it failed, leaves nothing half-written, and the next one works."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pgb_core import jobs, store
from pgb_core.pruner import stage_weights
from pgb_core.spec import PruneSpec
from pgb_core.status import living
from tests.faults import held
from tests.faults.conftest import Outcome
from tests.watching import computes, ends, half_written, names, submit, wait_for, wait_until_gone, worker_process

LEFT = {"spec.json", "status.json", "ticket.json", "log.txt"}
STAGES = tuple(stage_weights(PruneSpec("demo", "bbc-news", 0.5, recover_epochs=1)))
SECONDS = 240.0

Start = Callable[[str], Path]


def at_stage(run_dir: Path, stage: str) -> store.Status:
    return wait_for(run_dir, lambda status: status.stage == stage or not status.active, SECONDS)


def the_next_run_works(runs_dir: Path) -> None:
    held.hold_file(runs_dir).unlink(missing_ok=True)
    assert jobs.result(submit("0"), SECONDS) == {"behavior": "0"}


# --- quick ---------------------------------------------------------------------------------------------------------


def test_a_run_is_killed(start: Start, outcome: Outcome) -> None:
    run_dir = start("long")
    worker, status = worker_process(run_dir.parent), computes(run_dir)
    half_written(run_dir)
    os.kill(status.pid or 0, signal.SIGKILL)
    message = ends(run_dir).message
    assert "was killed" in message
    assert names(run_dir) == LEFT
    the_next_run_works(run_dir.parent)
    assert worker_process(run_dir.parent) == worker
    outcome(message)


@pytest.mark.parametrize("behavior", ["memory", "killed", "crash", "full", "early-crash", "no-program"])
def test_a_run_fails(start: Start, outcome: Outcome, behavior: str) -> None:
    run_dir = start(behavior)
    status = ends(run_dir)
    assert (status.state, len(status.message) > 20, "\n" in status.message) == ("failed", True, False)
    the_next_run_works(run_dir.parent)
    outcome(status.message)


def test_the_folder_of_a_run_is_deleted_while_it_computes(start: Start, outcome: Outcome) -> None:
    run_dir = start("stubborn")
    status = computes(run_dir)
    shutil.rmtree(run_dir)
    assert wait_until_gone(status)
    the_next_run_works(run_dir.parent)
    assert not run_dir.exists()
    outcome("its process is killed, the next run works")


def test_the_folder_of_a_run_is_deleted_while_it_waits(start: Start, outcome: Outcome) -> None:
    first, waiting = start("wait"), start("0")
    computes(first)
    shutil.rmtree(waiting)
    (first / "go").touch()
    assert ends(first).state == "done"
    the_next_run_works(first.parent)
    outcome("nothing happens, the next run works")


@pytest.mark.parametrize("text", ["", '{"state": "runn'])
def test_a_status_file_is_half_written(start: Start, outcome: Outcome, text: str) -> None:
    done, running, waiting = start("0"), start("wait"), start("0")
    computes(running)
    for run_dir in (done, running, waiting):
        (run_dir / "status.json").write_text(text)
        os.utime(run_dir / "status.json", (1, 1))
    (done / "model").mkdir()
    (running / "go").touch()  # a run that reports replaces its status; this one never does

    def mended(run_dir: Path) -> str:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                return ends(run_dir).state
            except store.RunError:
                time.sleep(0.05)
        raise AssertionError("nobody has mended it")

    assert [mended(run_dir) for run_dir in (done, running, waiting)] == ["done", "failed", "failed"]
    assert store.read_json(done / "result.json") == {"behavior": "0"}
    the_next_run_works(done.parent)
    outcome("the finished run stays done, the others are failed and say why")


# --- every stage of a real run -------------------------------------------------------------------------------------


def in_stages(stages: Sequence[str]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Marks a test that takes a real run to each of `stages`."""

    def mark(test: Callable[..., None]) -> Callable[..., None]:
        return pytest.mark.long(pytest.mark.timeout(600)(pytest.mark.parametrize("stage", stages)(test)))

    return mark


@in_stages(STAGES)
def test_a_run_is_killed_in_stage(prune: Start, outcome: Outcome, stage: str) -> None:
    run_dir = prune(stage)
    status = at_stage(run_dir, stage)
    assert status.state == "running", store.log_file(run_dir).read_text()
    os.kill(status.pid or 0, signal.SIGKILL)
    status = ends(run_dir)
    assert status.state == "failed"
    assert names(run_dir) == LEFT
    the_next_run_works(run_dir.parent)
    outcome(status.message)


@in_stages(STAGES)
def test_a_run_is_cancelled_in_stage(prune: Start, outcome: Outcome, stage: str) -> None:
    run_dir = prune(stage)
    status = at_stage(run_dir, stage)
    began = time.monotonic()
    jobs.cancel(run_dir)
    took = time.monotonic() - began
    assert took < 3.0
    assert store.read_status(run_dir).state == "cancelled"
    assert wait_until_gone(status)
    assert names(run_dir) == LEFT
    the_next_run_works(run_dir.parent)
    outcome(f"cancelled in {took:.1f} s")


@in_stages(STAGES)
def test_the_worker_is_killed_in_stage(prune: Start, outcome: Outcome, stage: str) -> None:
    run_dir = prune(stage)
    status = at_stage(run_dir, stage)
    worker = worker_process(run_dir.parent)
    worker.kill()
    worker.wait(20)
    held.hold_file(run_dir.parent).unlink()
    result = jobs.result(run_dir, SECONDS)
    assert result["score"]["samples"] == 40
    assert living(status.pid, status.pid_created) is None or wait_until_gone(status)
    assert worker_process(run_dir.parent) != worker
    the_next_run_works(run_dir.parent)
    outcome("the run goes on to its end, another worker takes over")


@in_stages(("importance", "recovery"))
def test_a_run_has_no_memory_left_in_stage(prune: Start, outcome: Outcome, stage: str) -> None:
    run_dir = prune(f"memory {stage}")
    status = wait_for(run_dir, lambda status: not status.active, SECONDS)
    assert status.message.startswith("Not enough memory"), store.log_file(run_dir).read_text()
    assert names(run_dir) == LEFT
    the_next_run_works(run_dir.parent)
    outcome(status.message)

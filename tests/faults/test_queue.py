"""What may happen around the runs: to the worker, the app, the queue's file and Redis."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from pgb_core import JobRejected, embedded, jobs, store
from pgb_core.embedded import queue_dir
from pgb_core.queues import Queue
from pgb_core.settings import get_settings
from tests.faults.conftest import Outcome, Redis
from tests.watching import ROOT, computes, ends, submit, wait_for, wait_until_gone, worker_process

Start = Callable[[str], Path]
Workers = Callable[[], psutil.Popen]


def killed(process: psutil.Process) -> None:
    process.kill()
    process.wait(20)


def ran_once(*run_dirs: Path) -> bool:
    """Whether each of the runs has computed exactly once."""
    return all(len((path / "began").read_text().split()) == 1 for path in run_dirs)


# --- the worker ----------------------------------------------------------------------------------------------------


def test_the_worker_is_killed_while_a_run_computes(start: Start, outcome: Outcome) -> None:
    running, waiting = start("wait"), start("0")
    worker, before = worker_process(running.parent), computes(running)
    killed(worker)
    assert worker_process(running.parent) != worker  # started again by the app
    time.sleep(1)
    status = store.read_status(running)
    assert (status.state, status.pid) == ("running", before.pid)
    assert store.read_status(waiting).state == "queued"  # the run that goes on counts
    (running / "go").touch()
    assert [ends(path).state for path in (running, waiting)] == ["done", "done"]
    assert ran_once(running, waiting)
    outcome("the run goes on, another worker takes over, then comes the next run")


def test_the_worker_and_its_run_are_killed(start: Start, outcome: Outcome) -> None:
    running, waiting = start("long"), start("0")
    worker, status = worker_process(running.parent), computes(running)
    killed(worker)
    os.kill(status.pid or 0, signal.SIGKILL)
    ended = ends(running)
    assert ended.state == "failed"
    assert ends(waiting).state == "done"
    outcome(ended.message)


def test_a_run_is_cancelled_while_there_is_no_worker(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    running, waiting = start("stubborn"), start("0")
    status = computes(running)
    monkeypatch.setattr(embedded, "COMMAND", ("true",))  # none comes
    killed(worker_process(running.parent))
    for path in (waiting, running):
        began = time.monotonic()
        jobs.cancel(path)
        assert time.monotonic() - began < 3.0
        assert store.read_status(path).state == "cancelled"
    assert wait_until_gone(status)


# --- the app -------------------------------------------------------------------------------------------------------

APP = (
    "import sys, time; from tests import stand_in; from tests.watching import *; embedded.COMMAND = stand_in.WORKER; "
    "[print(submit(each).name, flush=True) for each in sys.argv[1:]]; "
    "embedded.attend(get_settings().runs_dir); time.sleep(600)"
)


def app(*behaviors: str) -> subprocess.Popen[str]:
    """A process that submits runs and stays, as the app does."""
    return subprocess.Popen([sys.executable, "-c", APP, *behaviors], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def named(process: subprocess.Popen[str]) -> Path:
    """The next run that it has submitted."""
    assert process.stdout is not None
    return get_settings().runs_dir / process.stdout.readline().strip()


def test_the_app_is_killed_and_restarted_while_a_run_computes(outcome: Outcome) -> None:
    first = app("wait", "0")
    running, waiting = named(first), named(first)
    computes(running)
    worker = worker_process(running.parent)
    first.kill()
    first.communicate()
    time.sleep(4)  # longer than a worker takes to see that nobody needs it
    second = app("0")
    another = named(second)
    assert worker_process(running.parent) == worker
    (running / "go").touch()
    assert [ends(path).state for path in (running, waiting, another)] == ["done"] * 3
    assert ran_once(running, waiting, another)
    second.kill()
    second.communicate()
    worker.wait(20)  # there is neither an app nor work
    outcome("the run goes on and is found again, by the same worker; it ends when all is done")


@pytest.mark.long
def test_an_app_with_other_settings_replaces_the_worker_but_not_its_run(
    start: Start, outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = app("wait")
    running = named(first)
    before, worker = computes(running), worker_process(running.parent)
    first.kill()
    first.communicate()
    monkeypatch.setenv("PGB_MAX_RUNNING_JOBS", "2")
    beside = start("0")
    assert ends(beside).state == "done"  # two at once now
    assert not worker.is_running()
    assert store.read_status(running).pid == before.pid
    (running / "go").touch()
    assert ends(running).state == "done"
    assert ran_once(running, beside)
    outcome("the run goes on under the new worker")


@pytest.mark.long
def test_many_apps_start_one_worker(outcome: Outcome) -> None:
    (queue := queue_dir(get_settings().runs_dir)).mkdir()
    apps = [app() for _ in range(4)]
    worker = worker_process(queue.parent)
    time.sleep(3)
    assert worker_process(queue.parent) == worker
    found = [p for p in psutil.process_iter(["cmdline"]) if "--lock" in " ".join(p.info["cmdline"] or [])]
    mine = [p for p in found if p.environ().get("PGB_RUNS_DIR") == str(queue.parent)]
    for process in apps:
        process.kill()
        process.communicate()
    assert mine == [worker]
    outcome("one worker")


# --- the queue -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [None, b"no database at all" * 1000], ids=["deleted", "damaged"])
def test_the_file_of_the_queue_is_lost(start: Start, outcome: Outcome, content: bytes | None) -> None:
    running, waiting = start("wait"), start("0")
    computes(running)
    for file in queue_dir(running.parent).glob("queue.db*"):
        file.unlink()
    if content is not None:
        (queue_dir(running.parent) / "queue.db").write_bytes(content)
    another = start("0")
    (running / "go").touch()
    assert [ends(path).state for path in (running, waiting, another)] == ["done"] * 3
    assert ran_once(running, waiting, another)
    outcome("it is made anew and filled from the folders")


def test_a_message_comes_again_and_others_are_not_ours(start: Start, outcome: Outcome, tmp_path: Path) -> None:
    running = start("wait")
    computes(running)
    queue, trap = Queue(running.parent), tmp_path / "trap"
    for data in (b"cos\nsystem\n(S'touch %s'\ntR." % str(trap).encode(), b"{}", b"\xff", b'{"task": "rm", "run": "/"}'):
        queue.huey.storage.enqueue(data)
    for _ in range(3):
        queue.put(running.name)
    after = start("0")
    (running / "go").touch()
    assert [ends(path).state for path in (running, after)] == ["done", "done"]
    assert ran_once(running, after)
    assert not trap.exists()
    said = (queue_dir(running.parent) / "worker.log").read_text()
    assert said.count("was refused") == 4
    assert "Traceback" not in said
    outcome("it is refused and logged; a run that computes already is not run again")


def test_two_hundred_submissions_in_a_second(start: Start, outcome: Outcome) -> None:
    def attempt(number: int) -> Path | str:
        try:
            return start("long")
        except JobRejected as error:
            return str(error)

    began = time.monotonic()
    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(attempt, range(200)))
    took = time.monotonic() - began
    accepted = [answer for answer in answers if isinstance(answer, Path)]
    assert len(accepted) == 21  # one computes, twenty wait
    assert all("PGB_MAX_QUEUED_JOBS=20" in answer for answer in answers if isinstance(answer, str))
    assert len(store.folders(accepted[0].parent)) == 21
    for path in accepted[1:]:
        jobs.cancel(path)
    jobs.cancel(accepted[0])
    assert ends(start("0")).state == "done"
    outcome(f"21 are let in, 179 refused, in {took:.1f} s")


# --- Redis ---------------------------------------------------------------------------------------------------------


def test_redis_is_killed_and_restarted(start: Start, redis: Redis, workers: Workers, outcome: Outcome) -> None:
    workers(), workers()
    running = [start("wait"), start("wait")]
    for path in running:
        computes(path)
    waiting = start("0")
    redis.kill()
    meanwhile = start("0")
    redis.start()
    for path in running:
        (path / "go").touch()
    found = [*running, waiting, meanwhile]
    assert [ends(path).state for path in found] == ["done"] * 4
    assert ran_once(*found)
    outcome("what waited and what was submitted meanwhile is run once, from the folders")


@pytest.mark.long
def test_one_of_two_workers_is_killed(start: Start, redis: Redis, workers: Workers, outcome: Outcome) -> None:
    first = workers()
    running = start("wait")
    before = computes(running)
    second = workers()
    killed(first)
    after = start("0")
    (running / "go").touch()
    assert [ends(path).state for path in (running, after)] == ["done", "done"]
    assert store.read_status(running).pid == before.pid
    assert ran_once(running, after)
    assert second.is_running()
    outcome("the other one takes its run over")


def test_the_last_worker_is_killed_and_restarted(
    start: Start, redis: Redis, workers: Workers, outcome: Outcome
) -> None:
    first = workers()
    running, waiting = start("wait"), start("0")
    computes(running)
    killed(first)
    (running / "go").touch()
    ended = wait_for(running, lambda status: not status.active)
    assert ended.state == "done"  # without any worker
    assert store.read_status(waiting).state == "queued"
    workers()
    assert ends(waiting).state == "done"
    assert ran_once(running, waiting)
    outcome("the run comes to its end alone; what waits is run by the next worker")


def test_the_queue_is_out_of_reach_when_a_run_is_submitted(monkeypatch: pytest.MonkeyPatch, outcome: Outcome) -> None:
    monkeypatch.setenv("PGB_QUEUE", "redis://127.0.0.1:1/0")
    run_dir = submit("0")
    assert store.read_status(run_dir).state == "queued"
    jobs.cancel(run_dir)
    assert store.read_status(run_dir).state == "cancelled"
    outcome("the run waits in its folder")

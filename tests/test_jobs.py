"""Background runs, with real processes: turns, limits, cancellation, and a status that tells the truth."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from pgb_core import JobCancelled, JobRejected, PruneSpec, RunError, embedded, jobs, store, supervisor, tickets
from pgb_core.settings import get_settings
from pgb_core.sweep_spec import SweepSpec
from tests import stand_in
from tests.watching import ROOT, behaving, computes, ends, half_written, names, submit, wait_for, wait_until_gone

SPEC = PruneSpec("demo", "bbc-news", 0.5)


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Submits a run that behaves as told and returns its folder."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(embedded, "COMMAND", stand_in.WORKER)
    return submit


def test_a_run_that_is_killed_by_a_cancel_leaves_nothing_half_written(
    start: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGB_CANCEL_GRACE_SECONDS", "0.3")
    run_dir = start("stubborn")
    computes(run_dir)
    half_written(run_dir)
    jobs.cancel(run_dir)
    assert store.read_status(run_dir).state == "cancelled"
    assert names(run_dir) == {"spec.json", "status.json", "ticket.json", "log.txt"}


def test_what_a_killed_run_left_half_written_is_cleared_away(start: Callable[[str], Path]) -> None:
    run_dir = start("long")
    status = computes(run_dir)
    half_written(run_dir)
    assert status.pid is not None
    os.kill(status.pid, signal.SIGKILL)
    assert ends(run_dir).state == "failed"
    assert names(run_dir) == {"spec.json", "status.json", "ticket.json", "log.txt"}


# --- the life of a run ---------------------------------------------------------------------------------------------


def test_a_run_is_listed_at_once_then_runs_then_is_done(start: Callable[[str], Path]) -> None:
    run_dir = start("wait")
    assert store.read_json(run_dir / "spec.json") == behaving("wait").to_dict()
    first = store.read_status(run_dir)
    assert (first.state, first.pid) in [("queued", None), ("running", first.pid)]

    running = computes(run_dir)
    assert running.created == first.created <= (running.started or 0)
    with pytest.raises(RunError, match=r"is not done within 0.1 s"):
        jobs.result(run_dir, 0.1)

    (run_dir / "go").touch()
    assert jobs.result(run_dir, 20) == {"behavior": "wait"}
    assert store.read_status(run_dir).created == first.created


def test_a_run_is_detached_and_its_output_is_in_its_log(start: Callable[[str], Path]) -> None:
    run_dir = start("wait")
    pid = computes(run_dir).pid
    assert pid is not None
    assert os.getsid(pid) == pid != os.getsid(0)
    (run_dir / "go").touch()
    run_dir = start("crash")
    with pytest.raises(RunError, match=r"An unexpected error ended the run \(ValueError\); see its log"):
        jobs.result(run_dir, 20)
    status = store.read_status(run_dir)
    assert status.finished is not None
    assert wait_until_gone(status)
    assert "ValueError: a fault of the program" in store.log_file(run_dir).read_text()


def test_a_full_disk_is_told_in_one_line(start: Callable[[str], Path]) -> None:
    status = ends(start("full"))
    assert status.state == "failed"
    assert status.message.endswith("model: No space left on device; free some space and try again.")


def test_a_run_that_has_no_memory_left_says_so(start: Callable[[str], Path]) -> None:
    limited, killed, after = start("memory"), start("killed"), start("0")
    assert ends(limited).message.startswith("Not enough memory; take a smaller checkpoint")
    assert ends(killed).message.startswith(
        "The run's process was killed. If nobody did that, the machine had no memory"
    )
    assert ends(after).state == "done"


def test_a_run_that_ends_before_it_begins_is_failed_at_once(start: Callable[[str], Path]) -> None:
    run_dir = start("early-crash")
    status = ends(run_dir)
    assert status.state == "failed"
    assert status.message == "The run's process ended without a result (exit code 1); see its log."
    assert "ended before it began" in store.log_file(run_dir).read_text()


def test_no_zombie_is_left(start: Callable[[str], Path]) -> None:
    run_dir = start("0.3")
    status = wait_for(run_dir, lambda status: status.pid is not None)
    ends(run_dir)
    assert wait_until_gone(status)
    deadline = time.monotonic() + 5
    while psutil.pid_exists(status.pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_run_outlives_the_process_that_submitted_it_and_so_does_one_that_waits(start: Callable[[str], Path]) -> None:
    code = "from tests.watching import *; from tests import stand_in; embedded.COMMAND = stand_in.WORKER; "
    code += "print(submit('wait').name, submit('0').name)"
    server = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    first, second = (get_settings().runs_dir / name for name in server.stdout.split())
    computes(first)
    (first / "go").touch()
    assert ends(first).state == "done"
    assert ends(second).state == "done"


# --- turns ---------------------------------------------------------------------------------------------------------


def test_runs_take_turns_in_the_order_in_which_they_were_submitted(start: Callable[[str], Path]) -> None:
    paths = [start("0.1") for _ in range(4)]
    for path in paths:
        assert ends(path).state == "done"
    began = [float((path / "began").read_text()) for path in paths]
    ended = [float((path / "ended").read_text()) for path in paths]
    assert began == sorted(began)
    assert all(end <= begin for end, begin in zip(ended, began[1:], strict=False))


def test_the_waiting_are_told_how_many_are_before_them(start: Callable[[str], Path]) -> None:
    first, second, third = start("wait"), start("0"), start("0")
    computes(first)
    assert [jobs.queue_position(path) for path in (first, second, third)] == [0, 1, 2]
    assert [store.read_status(path).state for path in (second, third)] == ["queued", "queued"]
    (first / "go").touch()
    assert ends(third).state == "done"
    assert jobs.queue_position(third) == 0


def test_two_may_run_at_once_when_the_server_says_so(
    start: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGB_MAX_RUNNING_JOBS", "2")
    first, second, third = start("wait"), start("wait"), start("0")
    computes(first)
    computes(second)
    assert store.read_status(third).state == "queued"
    (second / "go").touch()
    assert ends(third).state == "done"
    assert store.read_status(first).state == "running"


def test_one_run_too_many_is_refused_and_leaves_nothing(
    start: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGB_MAX_QUEUED_JOBS", "1")
    running, waiting = start("long"), start("0")
    before = set(get_settings().runs_dir.iterdir())
    with pytest.raises(JobRejected, match=r"As many .* as may \(PGB_MAX_QUEUED_JOBS=1\); try again when one"):
        start("0")
    assert set(get_settings().runs_dir.iterdir()) == before
    jobs.cancel(running)
    assert ends(waiting).state == "done"
    assert ends(start("0")).state == "done"


def test_the_limit_holds_for_many_who_submit_at_once(
    start: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGB_MAX_QUEUED_JOBS", "2")
    outcomes: list[str] = []

    def submit() -> None:
        try:
            start("long")
        except JobRejected:
            outcomes.append("rejected")
        else:
            outcomes.append("accepted")

    threads = [threading.Thread(target=submit) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["accepted"] * 3 + ["rejected"] * 3
    assert len(store.list_active(get_settings().runs_dir)) == 3


def test_a_process_that_cannot_be_started_is_a_failure_in_one_line(start: Callable[[str], Path]) -> None:
    run_dir = start("no-program")
    with pytest.raises(RunError, match=r"The run cannot be started: .*no-such-program.*No such file or directory"):
        jobs.result(run_dir, 20)


def test_a_runs_folder_that_cannot_be_made_is_a_rejection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PGB_RUNS_DIR", str(tmp_path / "file" / "runs"))
    with pytest.raises(JobRejected, match="Not a directory"):
        jobs.submit(SPEC)


def test_a_session_has_one_run_at_a_time(start: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    runs_dir = get_settings().runs_dir
    first = runs_dir / jobs.submit(behaving("wait"), session="mine")
    with pytest.raises(
        JobRejected, match=r"You have a run .*\(PGB_MAX_SESSION_RUNS=1\); wait for its end, or cancel it"
    ):
        jobs.submit_sweep(SweepSpec(SPEC, (0.5,)), session="mine")
    other = runs_dir / jobs.submit(behaving("0"), session="another's")
    (first / "go").touch()
    ends(other)
    again = runs_dir / jobs.submit(behaving("wait"), session="mine")
    monkeypatch.setenv("PGB_MAX_SESSION_RUNS", "0")
    (again / "go").touch()
    assert ends(runs_dir / jobs.submit(behaving("0"), session="mine")).state == "done"


def test_a_run_that_takes_too_long_is_ended(start: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGB_MAX_RUN_HOURS", "0.0005")
    too_long, after = start("long"), start("0")
    assert ends(too_long).message.startswith("It took longer than 0.0005 hours (PGB_MAX_RUN_HOURS)")
    assert ends(after).state == "done"


# --- cancellation --------------------------------------------------------------------------------------------------


def test_cancel_while_running(start: Callable[[str], Path]) -> None:
    run_dir = start("long")
    computes(run_dir)
    began = time.monotonic()
    jobs.cancel(run_dir)
    assert time.monotonic() - began < 2.0
    status = store.read_status(run_dir)
    assert status.state == "cancelled"
    assert status.message == "The run was cancelled."  # its own word: it was not killed
    assert wait_until_gone(status)


def test_cancel_while_queued_leaves_the_running_one_alone(start: Callable[[str], Path]) -> None:
    running, queued, last = start("wait"), start("0"), start("0")
    computes(running)
    jobs.cancel(queued)
    assert store.read_status(queued).state == "cancelled"
    assert not (queued / "began").exists()
    assert store.read_status(running).state == "running"
    assert jobs.queue_position(last) == 1
    (running / "go").touch()
    assert ends(last).state == "done"


def test_cancel_right_after_submit(start: Callable[[str], Path]) -> None:
    run_dir = start("long")
    jobs.cancel(run_dir)
    status = store.read_status(run_dir)
    assert status.state == "cancelled"
    assert wait_until_gone(status)


def test_a_run_that_does_not_listen_is_killed(start: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGB_CANCEL_GRACE_SECONDS", "0.7")
    run_dir = start("stubborn")
    running = computes(run_dir)
    began = time.monotonic()
    jobs.cancel(run_dir)
    assert 0.7 <= time.monotonic() - began < 3.0
    assert store.find_process(running) is None
    status = store.read_status(run_dir)
    assert (status.state, status.message) == ("cancelled", "Cancelled.")
    assert status.finished is not None


def test_cancel_without_waiting_returns_at_once_and_still_kills(
    start: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGB_CANCEL_GRACE_SECONDS", "0.7")
    run_dir = start("stubborn")
    running = computes(run_dir)
    began = time.monotonic()
    jobs.cancel(run_dir, wait=False)
    assert time.monotonic() - began < 0.5
    assert ends(run_dir).state == "cancelled"
    assert wait_until_gone(running)


def test_cancel_kills_what_the_run_started_itself(
    start: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGB_CANCEL_GRACE_SECONDS", "0.3")
    run_dir = start("family")
    deadline = time.monotonic() + 20
    while not (run_dir / "child").exists() or not (run_dir / "child").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child = psutil.Process(int((run_dir / "child").read_text()))
    jobs.cancel(run_dir)
    assert store.read_status(run_dir).state == "cancelled"
    with contextlib.suppress(psutil.NoSuchProcess):
        assert child.status() == psutil.STATUS_ZOMBIE


def test_cancel_of_an_ended_run_changes_nothing(start: Callable[[str], Path]) -> None:
    run_dir = start("0")
    done = ends(run_dir)
    jobs.cancel(run_dir)
    assert store.read_status(run_dir) == done
    assert not store.cancel_requested(run_dir)


def test_cancel_never_kills_a_process_that_got_the_number_of_an_ended_run(tmp_path: Path) -> None:
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        old = replace(store.owned_by(store.Status(state="running"), stranger.pid), pid_created=time.time() - 3600)
        store.write_status(tmp_path, old)
        jobs.cancel(tmp_path)
        assert store.read_status(tmp_path).state == "failed"
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_sweep_and_its_point_take_one_turn(start: Callable[[str], Path]) -> None:
    sweep = start("wait")
    computes(sweep)
    point = store.new_run(sweep.parent)
    store.write_status(point, replace(store.recorded_status(sweep), created=time.time()))
    other = start("0")
    assert jobs.queue_position(other) == 1
    (sweep / "go").touch()
    assert ends(other).state == "done"


def test_a_sweep_is_shared_by_as_many_workers_as_the_settings_say_and_cancelled_as_a_whole(
    start: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGB_SWEEP_WORKERS", "3")
    monkeypatch.setenv("PGB_MAX_QUEUED_JOBS", "1")
    first = start("wait")
    computes(first)
    runs_dir = first.parent
    sweep = runs_dir / jobs.submit_sweep(SweepSpec(SPEC, (0.3, 0.5, 0.7)), session="mine")
    waiting = [path for path, status in store.list_active(runs_dir) if status.job == "part"]
    parts = [store.read_json(path / "spec.json") for path in waiting]
    assert parts == [{"sweep": sweep.name, "shard": "2/3"}, {"sweep": sweep.name, "shard": "3/3"}]
    with pytest.raises(JobRejected, match="PGB_MAX_QUEUED_JOBS=1"):  # the sweep waits, its helpers do not count
        start("0")
    jobs.cancel(sweep)
    assert {store.read_status(path).state for path in (sweep, *waiting)} == {"cancelled"}
    two = runs_dir / jobs.submit_sweep(SweepSpec(SPEC, (0.3, 0.5)))
    assert sum(status.job == "part" for _, status in store.list_active(runs_dir)) == 1  # one for each point at most
    jobs.cancel(two)
    jobs.cancel(first)


def test_a_run_that_cannot_be_prepared_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(jobs, "write_sweep", full)
    with pytest.raises(JobRejected, match="cannot be started: No space left on device; free some space"):
        jobs.submit_sweep(SweepSpec(SPEC, (0.5,)))
    assert store.folders(get_settings().runs_dir) == []


# --- who may cancel ------------------------------------------------------------------------------------------------


def test_only_the_session_that_started_a_run_may_cancel_it_where_the_server_says_so(
    start: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGB_CANCEL", "owner")
    run_dir = get_settings().runs_dir / jobs.submit(behaving("long"), session="secret")
    computes(run_dir)
    for session in (None, "", "guess", tickets.digest("secret")):
        assert not jobs.may_cancel(run_dir, session)
        with pytest.raises(JobRejected, match="Only the session that started this run may cancel it"):
            jobs.cancel(run_dir, session=session)
    assert not store.cancel_requested(run_dir)
    assert not any(b"secret" in path.read_bytes() for path in run_dir.iterdir())
    assert jobs.may_cancel(run_dir, "secret")
    jobs.cancel(run_dir, session="secret")
    with pytest.raises(JobCancelled):
        jobs.result(run_dir)


def test_without_an_owner_anyone_may_cancel(monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = store.new_run(get_settings().runs_dir)
    store.write_status(run_dir, store.this_process(store.Status("running")))
    tickets.issue(run_dir, "0" * 64)
    assert jobs.may_cancel(run_dir, "another")
    monkeypatch.setenv("PGB_CANCEL", "owner")
    assert not jobs.may_cancel(run_dir, "another")
    tickets.issue(run_dir, None)
    assert jobs.may_cancel(run_dir)


def test_a_point_is_the_sweep_s_owner_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGB_CANCEL", "owner")
    sweep, point = (store.new_run(get_settings().runs_dir) for _ in range(2))
    for path, job in ((sweep, "sweep"), (point, "prune")):
        store.write_status(path, store.this_process(store.Status("running", job=job)))  # type: ignore[arg-type]
    assert jobs.may_cancel(point)
    tickets.issue(sweep, tickets.digest("secret"))
    assert not jobs.may_cancel(point)
    assert jobs.may_cancel(point, "secret")


def test_a_point_that_a_helper_makes_is_the_sweep_s_owner_s(
    start: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGB_CANCEL", "owner")
    monkeypatch.setenv("PGB_SWEEP_WORKERS", "2")
    computes(start("long"))
    sweep = get_settings().runs_dir / jobs.submit_sweep(SweepSpec(SPEC, (0.3, 0.5)), session="secret")
    (part,) = (path for path, status in store.list_active(sweep.parent) if status.job == "part")
    point = store.new_run(sweep.parent)
    store.write_status(part, store.this_process(store.recorded_status(part)))
    store.write_status(point, store.this_process(store.Status("running", created=time.time())))
    for path in (part, point):
        assert not jobs.may_cancel(path, "another")
        assert jobs.may_cancel(path, "secret")


# --- sweeps --------------------------------------------------------------------------------------------------------


def test_a_point_that_does_not_stop_in_time_is_not_killed_with_its_sweep(
    start: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGB_CANCEL_GRACE_SECONDS", "0.2")
    monkeypatch.setattr(jobs, "_CLOSING_SECONDS", 0.2)
    sweep = start("long")
    status = computes(sweep)
    store.write_status(sweep, replace(store.recorded_status(sweep), job="sweep"))
    point = store.new_run(sweep.parent)
    store.write_status(point, replace(status, created=time.time()))
    jobs.cancel(point)
    assert store.find_process(status) is not None
    assert store.cancel_requested(point)  # it stops when it can
    jobs.cancel(sweep)
    assert store.read_status(sweep).state == "cancelled"


def test_helpers_of_a_sweep_that_has_ended_can_still_be_cancelled(
    start: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGB_SWEEP_WORKERS", "2")
    computes(first := start("wait"))
    sweep = first.parent / jobs.submit_sweep(SweepSpec(SPEC, (0.3, 0.5)))
    assert jobs.queue_position(sweep) == 1
    assert jobs.queue_position(start("0")) == 2  # the helper is no run of its own
    store.write_status(sweep, replace(store.recorded_status(sweep), state="failed"))
    jobs.cancel(sweep)
    assert store.read_status(sweep).state == "failed"
    assert [path for path, status in store.list_active(sweep.parent) if status.job == "part"] == []
    jobs.cancel(first)


# --- what a worker outlives ----------------------------------------------------------------------------------------


def test_a_run_whose_command_cannot_even_be_made_fails() -> None:
    run_dir = store.new_run(get_settings().runs_dir)
    (run_dir.parent / ".queue").mkdir()
    tickets.issue(run_dir, None)
    store.write_status(run_dir, store.Status())

    def command(run_dir: Path, device: str) -> list[str]:
        raise ValueError("embedded null byte")

    assert not supervisor.supervise(run_dir, command=command)
    assert "ValueError" in store.recorded_status(run_dir).message
    assert store.recorded_status(run_dir).state == "failed"
    ticket = tickets.read(run_dir)
    assert ticket is not None
    assert not ticket.supervised


def test_a_worker_that_cannot_be_started_is_tried_again(
    start: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, tried = embedded._start, list[Path]()

    def fails_at_first(runs_dir: Path) -> None:
        tried.append(runs_dir)
        if len(tried) == 1:
            raise OSError(28, "No space left on device")
        begin(runs_dir)

    monkeypatch.setattr(embedded, "_start", fails_at_first)
    assert ends(start("0")).state == "done"
    assert len(tried) > 1

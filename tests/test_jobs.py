"""Background runs, with real processes: turns, cancellation, and a status that tells the truth whatever happens."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgb_core import JobCancelled, JobRejected, PruneSpec, jobs, store
from pgb_core.__main__ import make_parser, spec_from
from pgb_core.settings import get_settings
from pgb_core.sweep_spec import SweepSpec

SPEC = PruneSpec("demo", "bbc-news", 0.5)
ROOT = Path(__file__).resolve().parent.parent


def behaving(behavior: str) -> jobs.CommandBuilder:
    return lambda spec, run_dir: [sys.executable, "-m", "tests.stand_in", str(run_dir), behavior]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Path]]:
    """Submits a run that behaves as told and returns its folder; what still lives at the end is killed."""
    monkeypatch.chdir(ROOT)
    runs_dir = get_settings().runs_dir

    yield lambda behavior: runs_dir / jobs.submit(SPEC, behaving(behavior))

    for path, status in store.list_active(runs_dir):
        process = store.find_process(status)
        if process is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        wait_for(path, lambda status: not status.active)


def wait_for(run_dir: Path, condition: Callable[[store.Status], bool], seconds: float = 20.0) -> store.Status:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        status = store.read_status(run_dir)
        if condition(status):
            return status
        time.sleep(0.02)
    raise AssertionError(f"still {store.read_status(run_dir)} after {seconds} s")


def computes(run_dir: Path) -> store.Status:
    status = wait_for(run_dir, lambda status: status.state == "running")
    deadline = time.monotonic() + 5
    while not (run_dir / "began").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return status


def ends(run_dir: Path) -> store.Status:
    return wait_for(run_dir, lambda status: not status.active)


def wait_until_gone(status: store.Status) -> bool:
    deadline = time.monotonic() + 5
    while store.find_process(status) is not None and time.monotonic() < deadline:
        time.sleep(0.02)
    return store.find_process(status) is None


def half_written(run_dir: Path) -> None:
    """What a run that is saving has in its folder."""
    for name in ("model", ".model"):
        (run_dir / name).mkdir()
        (run_dir / name / "model.safetensors").touch()
    (run_dir / "layout.safetensors").touch()


def names(run_dir: Path) -> set[str]:
    return {path.name for path in run_dir.iterdir()} - {"began", "cancel"}


def test_a_run_that_is_killed_by_a_cancel_leaves_nothing_half_written(
    start: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGB_CANCEL_GRACE_SECONDS", "0.3")
    run_dir = start("stubborn")
    computes(run_dir)
    half_written(run_dir)
    jobs.cancel(run_dir)
    assert store.read_status(run_dir).state == "cancelled"
    assert names(run_dir) == {"spec.json", "status.json", "log.txt"}


def test_the_next_run_clears_up_after_one_that_was_killed(start: Callable[[str], Path]) -> None:
    run_dir = start("long")
    status = computes(run_dir)
    half_written(run_dir)
    assert status.pid is not None
    os.kill(status.pid, signal.SIGKILL)
    wait_until_gone(status)
    ends(start("0.1"))
    assert store.recorded_status(run_dir).state == "failed"
    assert names(run_dir) == {"spec.json", "status.json", "log.txt"}


# --- the life of a run ---------------------------------------------------------------------------------------------


def test_a_run_is_listed_at_once_then_runs_then_is_done(start: Callable[[str], Path]) -> None:
    run_dir = start("wait")
    assert store.read_json(run_dir / "spec.json") == SPEC.to_dict()
    first = store.read_status(run_dir)
    assert first.state in ("queued", "running")
    assert first.pid is not None

    running = computes(run_dir)
    assert running.pid == first.pid
    assert running.created == first.created <= (running.started or 0)

    (run_dir / "go").touch()
    done = ends(run_dir)
    assert done.state == "done"
    assert done.created == first.created


def test_a_run_is_detached_and_its_output_is_in_its_log(start: Callable[[str], Path]) -> None:
    run_dir = start("crash")
    pid = store.recorded_status(run_dir).pid
    assert pid is not None
    with contextlib.suppress(ProcessLookupError):  # unless it has ended already
        assert os.getsid(pid) == pid != os.getsid(0)
    status = ends(run_dir)
    assert status.state == "failed"
    assert status.message == "An unexpected error ended the run (ValueError); see its log."
    assert status.finished is not None
    assert wait_until_gone(status)
    assert "ValueError: a fault of the program" in store.log_file(run_dir).read_text()


def test_a_full_disk_is_told_in_one_line(start: Callable[[str], Path]) -> None:
    status = ends(start("full"))
    assert status.state == "failed"
    assert status.message.endswith("model: No space left on device; free some space and try again.")


def test_a_run_that_ends_before_its_turn_is_failed_at_once(start: Callable[[str], Path]) -> None:
    run_dir = start("early-crash")
    status = ends(run_dir)
    assert status.state == "failed"
    assert "see its log" in status.message
    assert "ended before its turn" in store.log_file(run_dir).read_text()


def test_a_killed_run_is_failed_and_the_next_one_gets_its_turn(start: Callable[[str], Path]) -> None:
    killed, after = start("long"), start("0")
    pid = computes(killed).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    status = ends(killed)
    assert status.state == "failed"
    assert status.message == "The run's process ended without a result; see its log."
    assert ends(after).state == "done"


def test_no_zombie_is_left(start: Callable[[str], Path]) -> None:
    run_dir = start("0")
    pid = store.recorded_status(run_dir).pid
    assert pid is not None
    ends(run_dir)
    deadline = time.monotonic() + 5
    while psutil.pid_exists(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_run_outlives_the_process_that_submitted_it(start: Callable[[str], Path]) -> None:
    code = "from tests.test_jobs import *; print(jobs.submit(SPEC, behaving('wait')))"
    server = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    run_dir = get_settings().runs_dir / server.stdout.strip()
    computes(run_dir)
    (run_dir / "go").touch()
    assert ends(run_dir).state == "done"


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
    assert wait_for(second, lambda s: "waiting" in s.message).message == "waiting: 1 run before this one"
    assert wait_for(third, lambda s: "waiting" in s.message).message == "waiting: 2 runs before this one"
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
    assert wait_for(third, lambda s: "waiting" in s.message).state == "queued"
    (second / "go").touch()
    assert ends(third).state == "done"
    assert store.read_status(first).state == "running"


def test_one_run_too_many_is_refused_and_leaves_nothing(
    start: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGB_MAX_QUEUED_JOBS", "1")
    running, waiting = start("long"), start("0")
    before = set(get_settings().runs_dir.iterdir())
    with pytest.raises(JobRejected, match="1 runs are waiting already; try again when one has ended, or cancel one"):
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


def test_a_process_that_cannot_be_started_is_a_rejection_in_one_line() -> None:
    with pytest.raises(JobRejected, match=r"The run cannot be started: .*no-such-program.*No such file or directory"):
        jobs.submit(SPEC, lambda spec, run_dir: ["/no-such-program"])
    assert store.list_runs(get_settings().runs_dir) == []
    assert not [path for path in get_settings().runs_dir.iterdir() if path.is_dir()]


def test_a_runs_folder_that_cannot_be_made_is_a_rejection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PGB_RUNS_DIR", str(tmp_path / "file" / "runs"))
    with pytest.raises(JobRejected, match="Not a directory"):
        jobs.submit(SPEC, behaving("0"))


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
    wait_for(queued, lambda s: "waiting" in s.message)
    jobs.cancel(queued)
    assert store.read_status(queued).state == "cancelled"
    assert not (queued / "began").exists()
    assert store.read_status(running).state == "running"
    wait_for(last, lambda s: s.message == "waiting: 1 run before this one")
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
    script = 'trap "" TERM; sleep 61 & echo $! > "$0/child"; wait'
    run_dir = get_settings().runs_dir / jobs.submit(SPEC, lambda spec, path: ["sh", "-c", script, str(path)])
    deadline = time.monotonic() + 5
    while not (run_dir / "child").exists() or not (run_dir / "child").read_text().strip():
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


# --- inside the run ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_become_one_exception_and_the_handlers_come_back(tmp_path: Path, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    unwound = False
    with pytest.raises(JobCancelled), jobs.cancellable(tmp_path):
        try:
            os.kill(os.getpid(), number)
            time.sleep(10)
        finally:
            os.kill(os.getpid(), number)  # a second one must not disturb the unwinding
            unwound = True
    assert unwound
    assert signal.getsignal(number) is before


def test_a_note_wakes_a_sleeping_main_thread(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(JobCancelled), jobs.cancellable(tmp_path):
        store.request_cancel(tmp_path)
        time.sleep(30)
    assert time.monotonic() - began < 2


def test_settle_writes_only_for_its_own_run_and_only_once(tmp_path: Path) -> None:
    store.write_status(tmp_path, store.Status(state="running", pid=1))
    jobs.settle(tmp_path, JobCancelled("stop"))
    assert store.recorded_status(tmp_path).state == "running"  # another process's

    store.write_status(tmp_path, store.this_process(store.Status(state="running")))
    jobs.settle(tmp_path, JobCancelled("stop"))
    assert store.read_status(tmp_path).state == "cancelled"
    jobs.settle(tmp_path, ValueError("later"))
    assert store.read_status(tmp_path).message == "stop"

    jobs.settle(tmp_path / "missing", ValueError("no run at all"))


# --- the command line of a run -------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(str.strip)


def test_a_sweep_and_its_point_take_one_turn(start: Callable[[str], Path]) -> None:
    sweep = start("wait")
    computes(sweep)
    point = store.new_run(sweep.parent)
    store.write_status(point, replace(store.recorded_status(sweep), created=time.time()))
    other = start("0")
    assert jobs.queue_position(other) == 1
    (sweep / "go").touch()
    assert ends(other).state == "done"


def test_a_sweep_that_cannot_be_started_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "sweep_command", lambda spec, folder: ["/no-such-program"])
    with pytest.raises(JobRejected, match="cannot be started"):
        jobs.submit_sweep(SweepSpec(SPEC, (0.5,)))
    assert store.folders(get_settings().runs_dir) == []


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


@given(specs | specs.flatmap(lambda s: st.builds(replace, st.just(s), task=st.just("csv"), train_file=texts)))
def test_the_child_gets_the_very_spec_that_was_submitted(spec: PruneSpec) -> None:
    arguments = jobs.prune_command(spec, Path("/runs/a folder"))[3:]
    args = make_parser().parse_args(arguments)
    assert spec_from(args) == spec
    assert args.queued
    assert args.out == Path("/runs/a folder")


def test_every_field_of_a_spec_has_a_flag() -> None:
    args = make_parser().parse_args(jobs.prune_command(SPEC, Path("x"))[3:])
    assert {item.name for item in fields(PruneSpec)} <= set(vars(args))

"""How a run ends before its time."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from pgb_core import JobCancelled, RunError, ending, store, tickets


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_become_one_exception_and_the_handlers_come_back(tmp_path: Path, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    unwound = False
    with pytest.raises(JobCancelled), ending.cancellable(tmp_path):
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
    with pytest.raises(JobCancelled), ending.cancellable(tmp_path):
        store.request_cancel(tmp_path)
        time.sleep(30)
    assert time.monotonic() - began < 2


def test_settle_writes_only_for_its_own_run_and_only_once(tmp_path: Path) -> None:
    store.write_status(tmp_path, store.Status(state="running", pid=1))
    ending.settle(tmp_path, JobCancelled("stop"))
    assert store.recorded_status(tmp_path).state == "running"  # another process's

    store.write_status(tmp_path, store.this_process(store.Status(state="running")))
    ending.settle(tmp_path, JobCancelled("stop"))
    assert store.read_status(tmp_path).state == "cancelled"
    ending.settle(tmp_path, ValueError("later"))
    assert store.read_status(tmp_path).message == "stop"

    ending.settle(tmp_path / "missing", ValueError("no run at all"))


def test_a_run_says_that_it_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "BEAT_SECONDS", 0.0)
    store.write_status(tmp_path, store.Status(state="running"))
    os.utime(tmp_path / "status.json", (1, 1))
    with ending.cancellable(tmp_path):
        deadline = time.monotonic() + 5
        while (tmp_path / "status.json").stat().st_mtime < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
    assert time.time() - (tmp_path / "status.json").stat().st_mtime < 10


def test_a_folder_that_is_away_for_a_moment_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def away(path: Path) -> bool:
        asked.append(path)
        if len(asked) == 1:
            raise OSError(116, "Stale file handle")
        return True

    monkeypatch.setattr(store, "cancel_requested", away)
    with pytest.raises(JobCancelled), ending.cancellable(tmp_path):
        time.sleep(10)


@pytest.mark.parametrize("text", ["", '{"state": "run', "[]"])
def test_a_half_written_status_is_mended(tmp_path: Path, text: str) -> None:
    (tmp_path / "status.json").write_text(text)
    (tmp_path / "layout.safetensors").touch()
    ending.mend(tmp_path)
    assert store.read_status(tmp_path).state == "failed"
    assert store.read_status(tmp_path).message == "Its status was damaged; start it again."
    assert not (tmp_path / "layout.safetensors").exists()


def test_a_mended_run_is_what_was_submitted(tmp_path: Path) -> None:
    tickets.issue(tmp_path, None, "part")
    (tmp_path / "status.json").touch()
    ending.mend(tmp_path)
    assert store.read_status(tmp_path).job == "part"


def test_a_status_of_another_version_is_not_damaged(tmp_path: Path) -> None:
    text = '{"state": "running", "from": "another version"}'
    (tmp_path / "status.json").write_text(text)
    (tmp_path / "layout.safetensors").touch()
    ending.mend(tmp_path)
    assert (tmp_path / "status.json").read_text() == text
    assert (tmp_path / "layout.safetensors").exists()


def test_a_finished_run_whose_status_is_damaged_stays_finished(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text("{")
    (tmp_path / "result.json").write_text("{}")
    (tmp_path / "model").mkdir()
    ending.mend(tmp_path)
    assert store.read_status(tmp_path).state == "done"
    with pytest.raises(RunError):
        ending.mend(tmp_path / "nothing")

"""Run folders: atomic, read as written, safe against damage and dead processes."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pgb_core import RunError, store, tickets
from pgb_core.label import Label
from tests.sample_run import make_sample_run, write_running


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return make_sample_run(tmp_path / "runs")


# --- writing -------------------------------------------------------------------------------------------------------


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    store.write_json(path, {"filler": "x" * 50_000, "n": 0})
    stop = threading.Event()

    def write() -> None:
        n = 0
        while not stop.is_set():
            n += 1
            store.write_json(path, {"filler": "x" * (50_000 + n % 7), "n": n})

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = {store.read_json(path)["n"] for _ in range(300)}
    finally:
        stop.set()
        writer.join()
    assert len(seen) > 1


def test_a_value_that_is_not_json_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    store.write_json(path, {"n": 1})
    for value in (float("nan"), {"n": object()}):
        with pytest.raises((ValueError, TypeError)):
            store.write_json(path, value)
    assert store.read_json(path) == {"n": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: str, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pgb_core.files.os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        store.write_json(tmp_path / "value.json", {})
    assert list(tmp_path.iterdir()) == []


# --- status --------------------------------------------------------------------------------------------------------


def test_a_status_is_read_as_it_was_written(tmp_path: Path) -> None:
    before = time.time()
    status = store.this_process(store.Status("running", "importance", 0.25, "layer 1 of 6", 1.0, 2.0, eta_seconds=9.5))
    written = store.write_status(tmp_path, status)
    assert store.read_status(tmp_path) == written == replace(status, updated=written.updated)
    assert written.updated >= before
    assert written.pid == os.getpid()


def test_a_run_whose_process_is_gone_has_failed(tmp_path: Path) -> None:
    process = subprocess.Popen(["sleep", "60"])
    path = write_running(tmp_path)
    store.write_status(path, store.owned_by(store.recorded_status(path), process.pid))
    assert store.read_status(path).state == "running"
    process.kill()
    deadline = time.monotonic() + 5
    while store.read_status(path).state == "running":  # a zombie counts as gone: nobody has waited for it yet
        assert time.monotonic() < deadline
    status = store.read_status(path)
    assert status.state == "failed"
    assert status.message == "The run's process ended without a result; see its log."
    assert status.finished == status.updated
    assert store.recorded_status(path).state == "running"
    process.wait()
    assert store.read_status(path).state == "failed"


def test_a_dead_run_that_had_been_asked_to_stop_is_cancelled(tmp_path: Path) -> None:
    path = write_running(tmp_path, pid_created=1.0)
    store.request_cancel(path)
    assert store.cancel_requested(path)
    assert store.read_status(path).state == "cancelled"
    store.withdraw_cancel(path)
    store.withdraw_cancel(path)
    assert store.read_status(path).state == "failed"


def test_a_process_number_that_was_given_to_another_is_not_the_run(tmp_path: Path) -> None:
    status = store.recorded_status(write_running(tmp_path))
    assert store.find_process(status) is not None
    assert store.find_process(replace(status, pid_created=(status.pid_created or 0) - 60)) is None
    assert store.find_process(replace(status, pid=None)) is None


def test_a_queued_run_waits_as_long_as_it_takes(tmp_path: Path) -> None:
    path = write_running(tmp_path, state="queued", pid=None)
    store.write_status(path, store.Status(created=time.time() - 86400))
    assert store.read_status(path).state == "queued"
    store.write_status(path, store.Status("running", created=time.time() - 61))
    status = store.read_status(path)
    assert status.state == "failed"
    assert status.message == "The run's process never started; start the run again."


def test_a_run_of_another_machine_lives_as_long_as_it_says_so(tmp_path: Path) -> None:
    path = write_running(tmp_path, host="gpu7 pid:[1]", pid=1)
    assert store.read_status(path).state == "running"
    assert store.find_process(store.recorded_status(path)) is None
    os.utime(path / "status.json", (time.time(), time.time() - 200))
    status = store.read_status(path)
    assert status.state == "failed"
    assert status.message == "Machine gpu7 gave no sign of this run for 120 s; start the run again."
    store.beat(path)
    assert store.read_status(path).state == "running"


def test_a_run_is_not_over_before_the_worker_that_supervises_it_says_how_it_ended(tmp_path: Path) -> None:
    path = write_running(tmp_path, pid_created=1.0)
    assert store.read_status(path).state == "failed"
    tickets.take(path)
    assert store.read_status(path).state == "running"
    tickets.leave(path)
    assert store.read_status(path).state == "failed"


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"state": "running", "color": "red"}', b"\xff\xfe"])
def test_a_damaged_status_is_one_line(tmp_path: Path, text: str | bytes | None) -> None:
    if text is not None:
        (tmp_path / "status.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RunError, match="delete the run") as caught:
        store.read_status(tmp_path)
    assert "\n" not in str(caught.value)


# --- reading ---


def test_options_are_read(run_dir: Path) -> None:
    options = store.read_options(store.read_run(run_dir))
    assert [(entry["layer"], entry["kind"]) for entry in options] == [
        (layer, kind) for layer in (0, 1) for kind in ("attention", "feed_forward")
    ]


def test_a_run_folder_is_plain_json(run_dir: Path) -> None:
    for path in run_dir.glob("*.json"):
        assert isinstance(json.loads(path.read_text()), dict)
    assert store.log_file(run_dir) == run_dir / "log.txt"


def test_a_run_is_known_by_its_folder_and_by_its_model_s(run_dir: Path, tmp_path: Path) -> None:
    for path in (run_dir, run_dir / "model"):
        run = store.run_at(path)
        assert run is not None
        assert (run.path, run.model_dir) == (run_dir, run_dir / "model")
    for path in (run_dir / "other", run_dir.parent, tmp_path / "nowhere" / "model"):
        assert store.run_at(path) is None
    (run_dir / "result.json").unlink()
    with pytest.raises(RunError, match=r"result\.json of run"):
        store.run_at(run_dir)


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b'{"name": 3}'])
def test_a_damaged_label_is_none(run_dir: Path, content: bytes) -> None:
    (run_dir / "label.json").write_bytes(content)
    assert store.read_run(run_dir).label == Label()


def test_a_label_that_cannot_be_written_is_one_line(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: str, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pgb_core.files.os.replace", full)
    with pytest.raises(RunError, match="No space left on device; free some space"):
        store.write_label(run_dir.parent, run_dir.name, Label("x"))

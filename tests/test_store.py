"""Run folders: atomic, read as written, safe against damage, foreign ids and dead processes."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from pgb_core import RunError, store, tickets
from pgb_core.label import Label
from tests.sample_run import make_sample_run


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return make_sample_run(tmp_path / "runs")


def write_running(runs_dir: Path, **changes: object) -> Path:
    path = store.new_run(runs_dir)
    store.write_json(path / "spec.json", {"checkpoint": "demo"})
    store.write_status(path, replace(store.this_process(store.Status("running", created=time.time())), **changes))
    return path


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

    monkeypatch.setattr("pgb_core.store.os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        store.write_json(tmp_path / "value.json", {})
    assert list(tmp_path.iterdir()) == []


def test_new_runs_get_folders_of_their_own(tmp_path: Path) -> None:
    paths = [store.new_run(tmp_path / "deep" / "runs") for _ in range(20)]
    assert len(set(paths)) == 20
    assert all(path.is_dir() and not list(path.iterdir()) for path in paths)


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


# --- listing, finding, deleting ------------------------------------------------------------------------------------


def test_runs_are_listed_newest_first_and_damaged_ones_left_out(tmp_path: Path) -> None:
    assert store.list_runs(tmp_path / "nowhere") == []
    old, new = (write_running(tmp_path, created=created) for created in (10.0, 20.0))
    broken = store.new_run(tmp_path)
    (broken / "status.json").write_text("{")
    unfinished = write_running(tmp_path, created=30.0, state="done")  # without a result
    (tmp_path / "notes").mkdir()
    (tmp_path / ".queue.lock").touch()
    assert [run.path for run in store.list_runs(tmp_path)] == [new, old]
    assert not (unfinished / "result.json").exists()


def test_the_active_are_listed_in_the_order_of_their_submission(tmp_path: Path) -> None:
    second, first = (write_running(tmp_path, created=created) for created in (20.0, 10.0))
    write_running(tmp_path, created=1.0, state="done")
    write_running(tmp_path, created=2.0, pid_created=1.0)
    assert [path for path, _ in store.list_active(tmp_path)] == [first, second]


@pytest.mark.parametrize(
    "run_id", ["", ".", "..", "../secret", "/etc", "20250101-000000-abcdef/../..", "20250101-000000-ABCDEF", "x" * 999]
)
def test_what_is_no_run_id_never_becomes_a_path(tmp_path: Path, run_id: str) -> None:
    (tmp_path / "secret").mkdir()
    with pytest.raises(RunError, match="There is no run"):
        store.find_run(tmp_path / "runs", run_id)
    with pytest.raises(RunError, match="There is no run"):
        store.delete_run(tmp_path / "runs", run_id)
    assert (tmp_path / "secret").is_dir()


def test_a_trailing_newline_is_no_run_id(run_dir: Path) -> None:
    with pytest.raises(RunError, match="There is no run"):
        store.find_run(run_dir.parent, f"{run_dir.name}\n")


def test_a_finished_run_is_found_and_deleted(run_dir: Path) -> None:
    run = store.find_run(run_dir.parent, run_dir.name)
    assert (run.id, run.path, run.status.state) == (run_dir.name, run_dir, "done")
    assert run.result is not None
    assert run.result["schema"] == 1
    store.delete_run(run_dir.parent, run_dir.name)
    assert not run_dir.exists()


def test_an_active_run_is_not_deleted(tmp_path: Path) -> None:
    path = write_running(tmp_path)
    with pytest.raises(RunError, match="still active; cancel it first"):
        store.delete_run(tmp_path, path.name)
    assert path.is_dir()


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


# --- labels, lists that are read once, samples ---------------------------------------------------------------------


def settle(path: Path) -> None:
    """Have run folder `path` look as if nothing had happened in it for a while."""
    past = time.time() - store.SETTLED_SECONDS - 1
    os.utime(path, (past, past))


def test_a_label_is_read_back_and_survives_the_run(run_dir: Path) -> None:
    assert store.read_run(run_dir).label == Label()
    label = Label("Monday", "a note\nof two lines", pinned=True)
    store.write_label(run_dir.parent, run_dir.name, label)
    assert store.find_run(run_dir.parent, run_dir.name).label == label
    store.discard_results(run_dir)
    assert json.loads((run_dir / "label.json").read_text())["name"] == "Monday"


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b'{"name": 3}'])
def test_a_damaged_label_is_none(run_dir: Path, content: bytes) -> None:
    (run_dir / "label.json").write_bytes(content)
    assert store.read_run(run_dir).label == Label()


@pytest.mark.parametrize("run_id", ["../secret", "20250101-000000-abcdef", "20250101-000000-abcdef/..", ""])
def test_a_label_goes_to_a_run_or_nowhere(tmp_path: Path, run_id: str) -> None:
    (tmp_path / "secret").mkdir()
    with pytest.raises(RunError, match="There is no run"):
        store.write_label(tmp_path / "runs", run_id, Label("x"))
    assert list((tmp_path / "secret").iterdir()) == []


def test_a_label_that_cannot_be_written_is_one_line(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: str, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pgb_core.files.os.replace", full)
    with pytest.raises(RunError, match="No space left on device; free some space"):
        store.write_label(run_dir.parent, run_dir.name, Label("x"))


def test_a_run_that_was_read_is_read_again_once_it_has_changed(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(run_dir)
    first = store.list_own(run_dir.parent)
    reads: list[Path] = []
    read = store.read_run
    monkeypatch.setattr("pgb_core.store.read_run", lambda path: reads.append(path) or read(path))
    assert store.list_own(run_dir.parent) == first
    assert reads == []
    store.write_label(run_dir.parent, run_dir.name, Label("new"))
    assert [run.label.name for run in store.list_own(run_dir.parent)] == ["new"]
    assert reads == [run_dir]


def test_an_active_run_is_always_read_anew(tmp_path: Path) -> None:
    path = write_running(tmp_path)
    settle(path)
    assert [run.status.state for run in store.list_own(tmp_path)] == ["running"]
    gone = replace(store.recorded_status(path), pid_created=1.0)  # its process ended: nothing is written
    (path / "status.json").write_text(json.dumps(asdict(gone)))
    settle(path)
    assert [run.status.state for run in store.list_own(tmp_path)] == ["failed"]


def test_five_hundred_runs_are_listed_without_reading_them_again(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(500):
        path = run_dir.parent / f"20250101-000000-{number:06x}"
        path.mkdir()
        for name in ("spec.json", "status.json", "result.json"):
            os.link(run_dir / name, path / name)
        settle(path)
    settle(run_dir)
    assert len(store.list_own(run_dir.parent)) == 501
    monkeypatch.setattr("pgb_core.store.read_run", None)
    started = time.process_time()
    assert len(store.list_own(run_dir.parent)) == 501
    assert time.process_time() - started < 0.5


def test_a_damaged_run_can_be_deleted_and_what_an_interrupted_deletion_left_goes_with_it(run_dir: Path) -> None:
    runs_dir = run_dir.parent
    (run_dir / "status.json").write_text("{")
    (runs_dir / ".20250101-000000-abcdef.deleted" / "model").mkdir(parents=True)
    store.delete_run(runs_dir, run_dir.name)
    assert list(runs_dir.iterdir()) == []


def test_samples_come_after_the_server_s_own_runs_and_are_not_touched(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs_dir = run_dir.parent
    assert [run.id for run in store.list_runs(runs_dir)] == [run_dir.name]  # hidden in tests
    monkeypatch.setenv("PGB_SHOW_SAMPLES", "1")
    first, *samples = store.list_runs(runs_dir)
    assert (first.id, first.sample) == (run_dir.name, False)
    assert samples
    assert all(run.sample and run.machine for run in samples)
    assert [run.id for run in store.list_own(runs_dir)] == [run_dir.name]
    sample = samples[0]
    assert store.find_run(runs_dir, sample.id).sample
    assert store.read_options(sample)
    for change in (store.delete_run, lambda *place: store.write_label(*place, Label("mine"))):
        with pytest.raises(RunError, match="There is no run"):
            change(runs_dir, sample.id)
    assert store.find_run(runs_dir, sample.id).label == Label()

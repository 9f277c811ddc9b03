"""A disk that is full, and processes that make room on it at once: nothing finished is lost, the next run works."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pgb_core import PruneSpec, prune, quota, store
from pgb_core.label import Label
from tests.faults.conftest import Outcome
from tests.sample_run import make_unfinished_run

EVICT = """
import sys
from pathlib import Path
from pgb_core import quota
sys.stdin.readline()
print(",".join(run.run for run in quota.make_room(Path(sys.argv[1]))))
"""


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """As on a disk with hardly any room: small files can be written, larger ones end half-way."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [4000, 20_000])  # of an option table, of the model
def test_a_run_on_a_full_disk_fails_in_a_line_leaves_nothing_and_the_next_one_works(
    tiny_checkpoint: Path, tiny_csv: Path, tmp_path: Path, outcome: Outcome, size: int
) -> None:
    spec = PruneSpec(
        str(tiny_checkpoint),
        "csv",
        0.5,
        train_file=str(tiny_csv),
        calibration_samples=32,
        latency=False,
        eval_samples=8,
    )
    out = tmp_path / "run"
    with no_file_larger_than(size), pytest.raises(Exception, match="File too large"):
        prune(spec, out)
    status = store.read_status(out)
    assert status.state == "failed"
    assert "File too large" in status.message
    assert "\n" not in status.message
    assert {path.name for path in out.iterdir()} <= {"spec.json", "status.json", "log.txt"}
    prune(spec, out)
    assert store.read_status(out).state == "done"
    outcome(f"{status.message} The next run works")


def test_a_disk_without_room_for_another_status_still_says_how_the_run_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcome: Outcome
) -> None:
    path = make_unfinished_run(tmp_path, store.this_process(store.Status("running", message="x" * 500)))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pgb_core.files.tempfile.mkstemp", full)
    store.write_last_status(path, store.Status("failed", message="No space left on device."))
    assert store.read_status(path).message == "No space left on device."
    outcome("it is written over the old one")


def test_two_processes_that_make_room_at_once_remove_no_more_than_one_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcome: Outcome
) -> None:
    now, size = time.time(), 50_000
    paths = []
    for number in range(12):
        path = make_unfinished_run(tmp_path / "runs", store.Status("done", created=now - number, finished=now))
        (path / "result.json").write_text("{}")
        (path / "importance.safetensors").write_bytes(bytes(size))
        paths.append(path)
    store.write_label(tmp_path / "runs", paths[-1].name, Label(pinned=True))
    monkeypatch.setenv("PGB_QUOTA_GIGABYTES", str(6.5 * size / 1e9))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", EVICT, str(tmp_path / "runs")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for _ in range(2)
    ]
    answers = [process.communicate("go\n", timeout=60)[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    gone = [run for answer in answers for run in answer.split(",") if run]
    assert sorted(gone) == sorted(path.name for path in paths[5:-1])
    assert {run.path for run in store.list_own(tmp_path / "runs")} == {*paths[:5], paths[-1]}
    noted = json.loads((tmp_path / "runs" / "evicted.json").read_text())["evicted"]
    assert sorted(run["run"] for run in noted) == sorted(gone)
    assert quota.make_room(tmp_path / "runs") == []
    outcome(f"{len(gone)} runs go, each once; the pinned one and the newest stay")

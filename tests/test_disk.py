"""What runs take of the disk."""

from __future__ import annotations

import os
import time
from pathlib import Path

from pgb_core import disk, store
from pgb_core.store import SETTLED_SECONDS
from tests.sample_run import make_sample_run, make_unfinished_run


def age(path: Path) -> None:
    """Have `path` look as if nothing had happened in it for a while."""
    past = time.time() - SETTLED_SECONDS - 1
    os.utime(path, (past, past))


def test_a_run_takes_the_bytes_of_all_its_files_and_no_link_s_target(tmp_path: Path) -> None:
    path = make_sample_run(tmp_path / "runs")
    (tmp_path / "large").write_bytes(bytes(100_000))
    before = disk.use(store.read_run(path))
    assert before == sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    (path / "link").symlink_to(tmp_path / "large")
    assert before < disk.use(store.read_run(path)) < before + 1000


def test_a_run_that_was_measured_is_measured_again_once_it_has_changed(tmp_path: Path) -> None:
    run = store.read_run(make_sample_run(tmp_path))
    age(run.path)
    before = disk.use(run)
    assert disk.use(run) == before
    (run.path / "more").write_bytes(bytes(1000))
    assert disk.use(run) == before + 1000


def test_a_run_that_still_writes_is_measured_each_time(tmp_path: Path) -> None:
    status = store.this_process(store.Status("running", created=time.time()))
    run = store.read_run(make_unfinished_run(tmp_path, status, log="1234"))
    age(run.path)
    before = disk.use(run)
    store.log_file(run.path).write_text("12345678")
    assert disk.use(run) == before + 4


def test_a_deleted_run_takes_nothing_and_free_space_needs_no_folder(tmp_path: Path) -> None:
    run = store.read_run(make_sample_run(tmp_path))
    store.delete_run(tmp_path, run.id)
    assert disk.use(run) == 0
    assert disk.free(tmp_path / "not" / "yet") > 0

"""What runs take of the disk."""

from __future__ import annotations

import time
from pathlib import Path

from pgb_core import disk, store
from tests.sample_run import make_sample_run, make_unfinished_run


def test_a_run_takes_the_bytes_of_all_its_files_and_no_link_s_target(tmp_path: Path) -> None:
    path = make_sample_run(tmp_path / "runs")
    (tmp_path / "large").write_bytes(bytes(100_000))
    before = disk.use(store.read_run(path))
    assert before == sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    (path / "link").symlink_to(tmp_path / "large")
    assert before < disk.use(store.read_run(path)) < before + 1000


def test_a_listed_run_was_measured_with_the_list_an_active_one_is_measured_when_asked(tmp_path: Path) -> None:
    status = store.this_process(store.Status("running", created=time.time() + 60))
    folders = [make_unfinished_run(tmp_path, status, log="1234"), make_sample_run(tmp_path)]
    active, done = store.list_own(tmp_path)
    before = [disk.use(run) for run in (active, done)]
    assert before == [disk.below(folder) for folder in folders]
    store.log_file(active.path).write_text("12345678")
    assert disk.use(active) == before[0] + 4


def test_a_deleted_run_takes_nothing_and_free_space_needs_no_folder(tmp_path: Path) -> None:
    run = store.read_run(make_sample_run(tmp_path))
    store.delete_run(tmp_path, run.id)
    assert disk.use(run) == 0
    assert disk.free(tmp_path / "not" / "yet") > 0

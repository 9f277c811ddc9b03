"""The queue itself: JSON, in order, and nothing but what this package has written."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgb_core import queues
from pgb_core.embedded import queue_dir
from pgb_core.queues import JsonSerializer, MessageError, Queue
from pgb_core.settings import get_settings

RUN, OTHER = "20250101-000000-abcdef", "20250101-000001-abcdef"


@pytest.fixture
def runs_dir() -> Path:
    queue_dir(get_settings().runs_dir).mkdir()
    return get_settings().runs_dir


def test_messages_are_json_and_come_in_order(runs_dir: Path) -> None:
    seen: list[str] = []
    queue = Queue(runs_dir, seen.append)
    for run_id in (RUN, OTHER, RUN):
        queue.put(run_id)
    messages = [json.loads(data) for data in queue.huey.storage.enqueued_items()]
    assert [set(message) for message in messages] == [{"task", "id", "run"}] * 3
    assert queue.waiting() == {RUN, OTHER}
    while (task := queue.huey.dequeue()) is not None:
        queue.huey.execute(task)
    assert seen == [RUN, OTHER, RUN]


PICKLE = b"cos\nsystem\n(S'false'\ntR."


@pytest.mark.parametrize(
    "data",
    [
        b"",
        PICKLE,
        b"\x80\x04N.",
        b"null",
        b"[]",
        b"{}",
        json.dumps({"task": "pgb_core.queues.run", "id": "1", "run": "../../etc"}).encode(),
        json.dumps({"task": "pgb_core.queues.run", "id": 1, "run": RUN}).encode(),
        json.dumps({"task": "pgb_core.queues.run", "id": "1", "run": RUN, "more": 1}).encode(),
        json.dumps({"task": "os.system", "id": "1", "run": RUN}).encode(),
        json.dumps({"task": "pgb_core.queues.run", "id": "1" * 1000, "run": RUN}).encode(),
    ],
)
def test_what_is_not_ours_is_refused_and_the_next_message_comes(
    runs_dir: Path, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    queue = Queue(runs_dir)
    queue.huey.storage.enqueue(data)
    queue.put(RUN)
    with caplog.at_level(logging.WARNING):
        assert queue.huey.dequeue() is None
    assert "A message in the queue was refused" in caplog.text
    assert queue.huey.dequeue().args == (RUN,)


@given(st.binary(max_size=200) | st.text().map(str.encode))
def test_no_bytes_do_harm(data: bytes) -> None:
    with pytest.raises(MessageError):
        JsonSerializer().deserialize(data)


def test_a_runs_folder_keeps_the_name_of_its_queue_wherever_it_is(runs_dir: Path, tmp_path: Path) -> None:
    name = Queue(runs_dir).huey.name
    moved = runs_dir.rename(tmp_path / "elsewhere")
    assert Queue(moved).huey.name == name
    queue_dir(tmp_path).mkdir()
    assert Queue(tmp_path).huey.name != name


@pytest.mark.parametrize("content", [None, b"", b"no database" * 1000])
def test_a_lost_file_is_made_anew(runs_dir: Path, content: bytes | None) -> None:
    queue = Queue(runs_dir)
    queue.put(RUN)
    queue.mend()
    assert queue.waiting() == {RUN}
    for file in queue_dir(runs_dir).glob("queue.db*"):
        file.unlink()
    if content is not None:
        (queue_dir(runs_dir) / "queue.db").write_bytes(content)
        assert Queue(runs_dir).waiting() == set()  # one that is opened now
    queue.mend()
    assert queue.waiting() == set()
    queue.put(OTHER)
    assert Queue(runs_dir).waiting() == {OTHER}


def test_a_redis_that_is_away_is_told_once_and_without_its_password(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PGB_QUEUE", "redis://user:secret@127.0.0.1:1/0")
    monkeypatch.setattr(queues, "_AWAY_SECONDS", 0.0)
    queue = Queue(runs_dir)
    assert [queue.huey.dequeue() for _ in range(3)] == [None] * 3
    assert caplog.text.count("The queue cannot be reached") == 1
    assert "secret" not in caplog.text
    with pytest.raises(queues.UNREACHABLE):
        queue.put(RUN)


def test_a_queue_whose_name_is_lost_gets_another_one(tmp_path: Path) -> None:
    queue_dir(tmp_path).mkdir()
    first = Queue(tmp_path).huey.name
    assert Queue(tmp_path).huey.name == first
    (queue_dir(tmp_path) / "name.json").write_text("")
    assert Queue(tmp_path).huey.name not in ("", first)

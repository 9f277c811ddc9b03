"""The queue of a runs folder: ids of runs that wait, in Huey's SQLite file or in Redis, as JSON.

    RUNS_DIR/.queue/name.json   what the queue is called in Redis: the folder may have other paths on other machines
    RUNS_DIR/.queue/queue.db

The folders of the runs are the truth. A message only says that there may be something to do with one of them: one too
many does no harm, and a queue that is lost is filled again from the folders (see `worker.py`).
"""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huey.api import Huey
from huey.exceptions import HueyException
from huey.registry import Message
from huey.serializer import Serializer
from huey.storage import RedisStorage, SqliteStorage
from redis import ConnectionPool, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from pgb_core.embedded import queue_dir
from pgb_core.errors import RunError
from pgb_core.files import read_json, write_json
from pgb_core.settings import get_settings
from pgb_core.store import is_id

log = logging.getLogger(__name__)

UNREACHABLE = (sqlite3.Error, RedisError, OSError)
"""What a queue that cannot be reached, or is damaged, raises."""
_TASK = f"{__name__}.run"
_REDIS_SECONDS = 5.0
"""A Redis that says nothing for so long is away."""
_AWAY_SECONDS = 0.5
"""Between two attempts to reach it."""
_LONGEST = 1000
"""Bytes of a message that is looked at."""


class MessageError(Exception):
    """A message that this package has not written."""


class JsonSerializer(Serializer):
    """Messages as JSON, `{"task", "id", "run"}`, and nothing else: never a pickle."""

    def serialize(self, data: Any) -> bytes:
        """A task's message; nothing else is ever put in the queue."""
        return json.dumps({"task": _TASK, "id": data.id, "run": data.args[0]}).encode()

    def deserialize(self, data: bytes) -> Message:
        """The task of a message.

        Raises:
            MessageError: it is not one of ours.
        """
        try:
            values = json.loads(bytes(data)) if len(data) <= _LONGEST else None
        except ValueError:
            values = None
        if not (isinstance(values, dict) and values.keys() == {"task", "id", "run"} and values["task"] == _TASK):
            raise MessageError("it is no JSON of this package")
        if not (isinstance(values["id"], str) and isinstance(values["run"], str) and is_id(values["run"])):
            raise MessageError("it names no run")
        return Message(values["id"], values["task"], args=(values["run"],), kwargs={})


class _Huey(Huey):
    """Huey that outlives messages of others and a storage that is away for a time."""

    _silent = False

    def dequeue(self) -> Any:
        try:
            task = super().dequeue()
            self._silent = False
        except (MessageError, HueyException) as error:
            log.warning("A message in the queue was refused: %s.", error)
            return None
        except UNREACHABLE as error:
            if not self._silent:
                log.warning("The queue cannot be reached (%s); trying again.", type(error).__name__)
            self._silent = True
            time.sleep(_AWAY_SECONDS)
            return None
        return task


class Queue:
    """The queue of `runs_dir`, in Redis where the settings say so. Made only by one process at a time.

    Args:
        work: what a worker does with the id of a run.

    Raises:
        OSError: its files cannot be made; or another of `UNREACHABLE`.
    """

    def __init__(self, runs_dir: Path, work: Callable[[str], object] = lambda run_id: None) -> None:
        folder = queue_dir(runs_dir)
        self._file = folder / "queue.db"
        self._url = get_settings().queue
        self.huey = _Huey(
            _name(folder / "name.json"),
            storage_class=RedisStorage if self._url else SqliteStorage,
            results=False,
            serializer=JsonSerializer(),
            **(self._redis() if self._url else self._sqlite()),
        )
        self._inode = None if self._url else self._file.stat().st_ino

        def run(run_id: str) -> None:
            work(run_id)

        self._task = self.huey.task()(run)

    def put(self, run_id: str) -> None:
        """Let a worker know of a run.

        Raises:
            Exception: one of `UNREACHABLE`; then the workers find the run by its folder.
        """
        self._task(run_id)

    def close(self) -> None:
        """Let go of its file or its connections."""
        self.huey.storage.close()

    def waiting(self) -> set[str]:
        """Ids of the runs that the queue knows of.

        Raises:
            Exception: one of `UNREACHABLE`.
        """
        found = set()
        for data in self.huey.storage.enqueued_items():
            with contextlib.suppress(MessageError):
                found.add(self.huey.serializer.deserialize(data).args[0])
        return found

    def mend(self) -> None:
        """Begin the queue's file anew where it was deleted or damaged."""
        if self._url or (_sound(self._file) and self._file.stat().st_ino == self._inode):
            return
        log.warning("The queue's file was deleted or damaged; it is made anew.")
        self.huey.storage.close()
        self._sqlite()
        self.huey.storage.initialize_schema()
        self._inode = self._file.stat().st_ino

    def _sqlite(self) -> dict[str, Any]:
        if not _sound(self._file):
            for name in ("queue.db", "queue.db-wal", "queue.db-shm"):
                self._file.with_name(name).unlink(missing_ok=True)
        return {"filename": str(self._file), "strict_fifo": True}

    def _redis(self) -> dict[str, Any]:
        waits = {"socket_timeout": _REDIS_SECONDS, "socket_connect_timeout": _REDIS_SECONDS}
        return {"connection_pool": ConnectionPool.from_url(self._url, **waits, retry=Retry(NoBackoff(), 0))}


def _sound(file: Path) -> bool:
    """Whether `file` is a database, or is not there; one that is only busy is sound."""
    try:
        with contextlib.closing(sqlite3.connect(file)) as connection:
            return bool(connection.execute("pragma quick_check(1)").fetchone() == ("ok",))
    except sqlite3.OperationalError:
        return True
    except sqlite3.DatabaseError:
        return False


def _name(file: Path) -> str:
    with contextlib.suppress(RunError, KeyError):  # there is none yet, or a power cut has emptied it
        return str(read_json(file)["name"])
    name = f"pgb_{secrets.token_hex(8)}"
    write_json(file, {"name": name})
    return name

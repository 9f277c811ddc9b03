"""What a list of runs says of each, without opening every folder: in memory, and in an SQLite file for others.

The run folders are the truth. Each reading looks at the time of change of every folder, and reads anew what changed:
a run that another process or machine made, changed or deleted is known as soon as the file system shows it. Only what
ended some time ago is remembered. The file lies in the cache of the machine, not beside the runs: SQLite's write-ahead
log needs shared memory, so it must not lie on a network folder that several machines write to
(https://sqlite.org/wal.html). Whatever happens to it, it is made anew from the folders.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import re
import socket
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from pgb_core import disk, run_folder
from pgb_core.errors import RunError
from pgb_core.label import Label
from pgb_core.run_folder import Run
from pgb_core.settings import get_settings
from pgb_core.status import Status

log = logging.getLogger(__name__)

RUN_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{6}")
SETTLED_SECONDS = 2.0
"""Two changes within a tick of the clock leave one time of change: what changed just now is read anew."""
VERSION = 1
"""Of the SQLite file; another one's is made anew."""
_TABLE = "CREATE TABLE IF NOT EXISTS runs (id TEXT PRIMARY KEY, changed INTEGER, content TEXT, checksum INTEGER)"
_NOT_NOW = frozenset(
    (
        *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM),
        *(sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN),
    )
)
"""Errors that say nothing of the file's content: another process has it, or the disk is full."""
_LOCK_SECONDS = 5.0


@dataclass(frozen=True)
class Entry:
    """What is known of one folder. `run` is None where only its status can be read, as of a sweep."""

    path: Path
    changed: int
    """Time of change of the folder, in nanoseconds, before it was read."""
    status: Status
    run: Run | None
    abandoned: bool = False
    """Whether its process has gone without writing that it ended."""


def folders(runs_dir: Path) -> list[Path]:
    """The folders below `runs_dir` that have the name of a run, readable or not, in no order."""
    return [path for path in runs_dir.iterdir() if RUN_ID.fullmatch(path.name)] if runs_dir.is_dir() else []


def entries(runs_dir: Path) -> list[Entry]:
    """What is known of every folder below `runs_dir` whose status can be read, in no order."""
    return _index_of(runs_dir.resolve(), file_of(runs_dir)).entries()


def file_of(runs_dir: Path) -> Path:
    """Where this machine keeps the index of `runs_dir`; a cache that machines share holds one for each."""
    name = hashlib.sha256(f"{socket.gethostname()}\n{runs_dir.resolve()}".encode()).hexdigest()[:16]
    return get_settings().cache_dir / "index" / f"{name}.sqlite3"


@functools.lru_cache(maxsize=4)
def _index_of(runs_dir: Path, file: Path) -> Index:
    return Index(runs_dir, file)


class Index:
    """The index of `runs_dir` as this process knows it; `file` is read once, and written when there is news."""

    def __init__(self, runs_dir: Path, file: Path) -> None:
        self._runs_dir, self._file = runs_dir, file
        self._known: dict[str, Entry] | None = None
        self._lock = threading.Lock()

    def entries(self) -> list[Entry]:
        """As `entries`."""
        with self._lock:
            changes = _changes(self._runs_dir)
            if self._known is None:
                self._known = load(self._file, self._runs_dir) if changes else {}
            known = self._known
            found, news = [], []
            for path, changed in changes.items():
                entry = known.get(path.name)
                if entry is None or entry.changed != changed:
                    entry = _read(path, changed)
                    if entry is not None and _settled(entry):
                        news.append(entry)
                if entry is not None:
                    found.append(entry)
            gone = known.keys() - {path.name for path in changes}
            if news or gone:
                for run_id in gone:
                    del known[run_id]
                known.update((entry.path.name, entry) for entry in news)
                save(self._file, news, gone)
            return found


def _changes(runs_dir: Path) -> dict[Path, int]:
    """Every folder of a run with its time of change."""
    found = {}
    for path in folders(runs_dir):
        with contextlib.suppress(OSError):  # deleted meanwhile
            found[path] = path.stat().st_mtime_ns
    return found


def _read(path: Path, changed: int) -> Entry | None:
    """The entry of a folder, from what lies in it; None where not even its status can be read."""
    try:
        recorded = run_folder.recorded_status(path)
        status = run_folder.read_status(path) if recorded.active else recorded
    except RunError:
        return None
    run = None
    with contextlib.suppress(RunError):
        run = run_folder.with_status(path, status)
        bytes_ = None if status.active else disk.below(path)
        run = replace(run, result=_summary(run.result), bytes=bytes_)
    return Entry(path, changed, status, run, recorded.active and not status.active)


def _summary(result: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if result is None:
        return None
    return {name: value for name, value in result.items() if name not in run_folder.LARGE}


def _settled(entry: Entry) -> bool:
    """Whether the entry holds as long as the folder's time of change does."""
    ended = not entry.status.active and not entry.abandoned
    # what cannot be read may be readable a moment later, over a network; a sweep is no run for good
    whole = entry.run is not None or entry.status.job == "sweep"
    return ended and whole and time.time() - entry.changed / 1e9 > SETTLED_SECONDS


# --- the file ------------------------------------------------------------------------------------------------------


def load(file: Path, runs_dir: Path) -> dict[str, Entry]:
    """The entries in `file` by id; none where it is missing, damaged or of another version."""
    found = {}

    def read(connection: sqlite3.Connection) -> None:
        for run_id, changed, content, checksum in connection.execute("SELECT id, changed, content, checksum FROM runs"):
            with contextlib.suppress(ValueError, TypeError, KeyError):  # then it is read from its folder
                if checksum == _checksum(run_id, changed, content):
                    found[run_id] = _entry(runs_dir / run_id, changed, json.loads(content))

    _within(file, read)
    return found


def save(file: Path, news: Collection[Entry], gone: Collection[str]) -> None:
    """Write `news` into `file`, and take `gone` out; where that cannot be done now, the next process reads more."""
    rows = []
    for entry in news:
        content = json.dumps(_content(entry))
        rows.append((entry.path.name, entry.changed, content, _checksum(entry.path.name, entry.changed, content)))

    def write(connection: sqlite3.Connection) -> None:
        connection.executemany("INSERT OR REPLACE INTO runs (id, changed, content, checksum) VALUES (?, ?, ?, ?)", rows)
        connection.executemany("DELETE FROM runs WHERE id = ?", [(run_id,) for run_id in gone])

    _within(file, write)


def _checksum(run_id: str, changed: int, content: str) -> int:
    """SQLite does not notice bytes that a disk has changed."""
    return zlib.crc32(f"{run_id} {changed} {content}".encode())


def _content(entry: Entry) -> dict[str, Any]:
    content: dict[str, Any] = {"status": asdict(entry.status)}
    if entry.run is not None:
        run = entry.run
        content["run"] = {"spec": run.spec, "result": run.result, "label": asdict(run.label), "bytes": run.bytes}
    return content


def _entry(path: Path, changed: int, content: Mapping[str, Any]) -> Entry:
    status = Status(**content["status"])
    values, run = content.get("run"), None
    if values is not None:
        label = Label.from_dict(values["label"])
        run = Run(path.name, path, values["spec"], status, values["result"], label, bytes=values["bytes"])
    return Entry(path, changed, status, run)


def _within(file: Path, work: Callable[[sqlite3.Connection], None]) -> None:
    """Do `work` in a transaction on `file`; what goes wrong with it ends here, and a damaged file is thrown away."""
    try:
        with contextlib.closing(_connect(file)) as connection, connection:
            work(connection)
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _NOT_NOW:
            log.warning("The index of runs cannot be used now: %s.", error)
            return
        log.warning("The index of runs is damaged and is made anew: %s.", error)
        _throw_away(file)
    except OSError as error:
        log.warning("The index of runs cannot be kept: %s.", error)


def _connect(file: Path) -> sqlite3.Connection:
    """A connection to `file`, which is made where it is missing.

    Raises:
        sqlite3.Error: it is damaged or of another version, or cannot be used now.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(file, timeout=_LOCK_SECONDS)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            connection.executescript(f"BEGIN IMMEDIATE; {_TABLE}; PRAGMA user_version = {VERSION}; COMMIT")
        elif version != VERSION:
            raise sqlite3.DatabaseError(f"it is of version {version}")
    except BaseException:
        connection.close()
        raise
    return connection


def _throw_away(file: Path) -> None:
    """Remove `file`, unless another process has made it anew meanwhile."""
    with contextlib.suppress(OSError), FileLock(file.with_suffix(".lock"), timeout=_LOCK_SECONDS):
        try:
            with contextlib.closing(_connect(file)) as connection:
                whole = connection.execute("PRAGMA quick_check").fetchone() == ("ok",)
        except sqlite3.Error:
            whole = False
        if not whole:
            for ending in ("", "-wal", "-shm"):
                file.with_name(file.name + ending).unlink(missing_ok=True)

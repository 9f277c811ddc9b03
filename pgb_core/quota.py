"""The disk quota of a server's runs: when it is used up, the oldest that nobody pinned go.

Room is made when a run begins, for what it is about to write, and when it has ended. What is active, pinned, a point
of a sweep that still runs, or shipped with the package is never removed. Only one process at a time chooses, so that
two do not remove twice what one needs; what went is noted beside the runs.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock

from pgb_core import disk, index, store
from pgb_core.errors import RunError
from pgb_core.files import read_json, write_json
from pgb_core.settings import get_settings
from pgb_core.store import Run
from pgb_core.sweep_spec import read_sweep

log = logging.getLogger(__name__)

_FILE = "evicted.json"
REMEMBERED = 100
"""Removed runs that are remembered."""
_LOCK_SECONDS = 60.0


@dataclass(frozen=True)
class Evicted:
    """A run that was removed to make room: what it was, when it went (seconds since the epoch), and its size."""

    run: str
    name: str
    when: float
    bytes: int


def quota_bytes() -> int | None:
    """What the runs may take together; None without a quota."""
    return round(get_settings().quota_gigabytes * 1e9) or None


def make_room(runs_dir: Path, keep: str = "", needed: int = 0) -> list[Evicted]:
    """Remove old runs of `runs_dir` until the rest is within the quota; returns what went, the oldest first.

    Args:
        keep: id of a run that stays, whatever it takes: the one that asks.
        needed: bytes that it is about to write.

    Raises:
        RunError: what may not be removed is more than the quota by itself.
        OSError: the folder cannot be written to.
    """
    limit = quota_bytes()
    if limit is None or not runs_dir.is_dir():
        return []
    with FileLock(runs_dir / ".quota.lock", timeout=_LOCK_SECONDS):
        own = store.list_own(runs_dir)
        sizes = {run.id: disk.use(run) for run in own}
        used, gone = sum(sizes.values()) + needed, list[Evicted]()
        for run in reversed(_removable(runs_dir, own, keep)):
            if used <= limit:
                break
            with contextlib.suppress(RunError):  # a user was quicker, or has just pinned it: then the next one
                if not store.find_run(runs_dir, run.id).label.pinned:
                    store.delete_run(runs_dir, run.id)
                    gone.append(Evicted(run.id, run.label.name, time.time(), sizes[run.id]))
            used -= 0 if run.path.exists() else sizes[run.id]
        if gone:
            log.info("The quota of %.1f GB was used up; removed %s.", limit / 1e9, ", ".join(run.run for run in gone))
            note = [*evicted(runs_dir), *gone][-REMEMBERED:]
            write_json(runs_dir / _FILE, {"evicted": [asdict(run) for run in note]})
    if used > limit:
        raise RunError(
            f"The runs that are pinned, active or just made take {used / 1e9:.2f} GB, the quota is {limit / 1e9:.2f} "
            "GB; unpin or delete some on the Runs page, or raise PGB_QUOTA_GIGABYTES."
        )
    return gone


def evicted(runs_dir: Path) -> list[Evicted]:
    """The runs that were removed to make room, the oldest removal first."""
    with contextlib.suppress(RunError, TypeError, KeyError):  # there are none yet, or a hand has changed the file
        return [Evicted(**entry) for entry in read_json(runs_dir / _FILE)["evicted"]]
    return []


def _removable(runs_dir: Path, own: Sequence[Run], keep: str) -> list[Run]:
    """Those of `own`, newest first, that may go."""
    kept = {keep} | _points_of_active_sweeps(runs_dir)
    return [run for run in own if not (run.status.active or run.label.pinned or run.id in kept)]


def _points_of_active_sweeps(runs_dir: Path) -> set[str]:
    found: set[str] = set()
    for entry in index.entries(runs_dir):
        if entry.status.job == "sweep" and entry.status.active:
            with contextlib.suppress(RunError):
                found.update(point.run for point in read_sweep(entry.path).points)
    return found

"""The ticket of a run that was submitted: whose it is, and which worker supervises it.

    DIR/ticket.json

It is written by the submitter and by the worker that takes the run; `status.json` is the run's own.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from pgb_core.errors import RunError
from pgb_core.files import read_json, write_json
from pgb_core.status import Job, here, living

_FILE = "ticket.json"


@dataclass(frozen=True)
class Ticket:
    """Owner and supervisor of a run; both are optional."""

    owner: str | None = None
    """`digest` of the token of the session that submitted the run; the token itself is nowhere on this side."""
    host: str = ""
    """Machine of the worker that took the run; `pid` and `pid_created` tell its process."""
    pid: int | None = None
    pid_created: float | None = None
    job: Job = "prune"
    """What was submitted, in case the status is damaged."""

    @property
    def supervised(self) -> bool:
        """Whether the worker that took the run is a living process of this machine."""
        return self.host == here() and living(self.pid, self.pid_created) is not None


def digest(token: str) -> str:
    """What may be kept of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def read(run_dir: Path) -> Ticket | None:
    """The ticket of the run in `run_dir`; None where there is none, as of a run of the command line."""
    with contextlib.suppress(RunError, TypeError):
        return Ticket(**read_json(run_dir / _FILE))
    return None


def issue(run_dir: Path, owner: str | None, job: Job = "prune") -> None:
    """Write the ticket of a run that waits for a worker; `owner` as in `Ticket`."""
    write_json(run_dir / _FILE, asdict(Ticket(owner, job=job)))


def take(run_dir: Path) -> None:
    """Make this process the supervisor of the run in `run_dir`.

    Raises:
        OSError: it cannot be written there.
    """
    pid = os.getpid()
    _change(run_dir, host=here(), pid=pid, pid_created=psutil.Process(pid).create_time())


def leave(run_dir: Path) -> None:
    """End what `take` began; a folder that is gone is let be."""
    with contextlib.suppress(OSError):
        _change(run_dir, host="", pid=None, pid_created=None)


def _change(run_dir: Path, **values: Any) -> None:
    write_json(run_dir / _FILE, asdict(replace(read(run_dir) or Ticket(), **values)))

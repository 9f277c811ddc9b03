"""A server that only shows what is there: with `PGB_DEMO_MODE=1` nothing is started, changed or taken in.

Refused here, where things happen, and not by pages alone.
"""

from __future__ import annotations

from pgb_core.errors import JobRejected, RunError
from pgb_core.settings import get_settings

LINE = "This server is a read-only demo: it shows what is there, and starts, changes and takes in nothing."


class ReadOnlyError(RunError, JobRejected):
    """Something was asked of a read-only server that would change it."""


def on() -> bool:
    """Whether this server only shows."""
    return bool(get_settings().demo_mode)


def refuse() -> None:
    """Called by whatever starts, changes or takes in something.

    Raises:
        ReadOnlyError: this server only shows.
    """
    if on():
        raise ReadOnlyError(f"{LINE} Unset PGB_DEMO_MODE, or install PGB on a machine of your own.")

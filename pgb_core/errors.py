"""Every error a user can cause, as one tree; each carries one line that says what is wrong and how to mend it."""

from __future__ import annotations

import errno
import os
import re

_OS_ERROR = re.compile(r"\(os error ([0-9]+)\)")
"""What libraries written in Rust, which save tensors and tokenizers, say of an error of the system."""
_NO_MEMORY = re.compile(
    r"out of memory|can't allocate memory|cannot allocate memory|could not create a (primitive|memory)",  # oneDNN's
    re.IGNORECASE,
)


class PGBError(Exception):
    """Base of all errors that are shown to a user as one line, without a traceback.

    What strangers wrote into a file is part of some lines: none of it breaks the line or steers a terminal.
    """

    def __init__(self, line: str = "") -> None:
        super().__init__(one_line(line))


def one_line(text: str) -> str:
    r"""`text` with single spaces for white space, and question marks for what cannot be printed.

    >>> one_line("two\nlines, \x1b[31mred")
    'two lines, ?[31mred'
    """
    return " ".join("".join(c if c.isprintable() or c.isspace() else "?" for c in text).split())


class SpecError(PGBError):
    """A setting of a run is out of range or contradicts another one."""


class CheckpointError(PGBError):
    """A checkpoint cannot be found, is of an unsupported kind, or is not safe to load."""


class TaskError(PGBError):
    """A dataset cannot be found or read, or its columns or labels do not fit the checkpoint."""


class RunError(PGBError):
    """A run folder is missing, incomplete or damaged."""


class JobRejected(PGBError):
    """The server declines to start a run; the message says which limit and what to do."""


class JobCancelled(PGBError):
    """The run was asked to stop; raised inside the run so that it unwinds cleanly."""


def reason(error: BaseException) -> str:
    """Why a run ended, in one line, for its status."""
    return explain(error) or f"An unexpected error ended the run ({type(error).__name__}); see its log."


def raise_if_cancelled(error: BaseException) -> None:
    """Raise the JobCancelled that `error` is or came of: some libraries catch all that is raised within them."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, JobCancelled):
            raise link
        link = link.__cause__ or link.__context__


def explain(error: BaseException) -> str | None:
    """The one line that tells a user about `error`; None for an error that no user can cause (a fault of ours).

    >>> explain(SpecError("sparsity 2.0 is not in [0, 1)."))
    'sparsity 2.0 is not in [0, 1).'
    """
    if isinstance(error, PGBError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "Interrupted."
    # torch raises a plain RuntimeError when the CPU has no memory left, and a class of its own on a GPU
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error))):
        return "Not enough memory; take a smaller checkpoint, shorter sequences or fewer calibration samples."
    if not isinstance(error, OSError) and (system := _OS_ERROR.search(str(error))):
        error = OSError(number := int(system[1]), os.strerror(number))
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename is not None else ""
        hint = "; free some space and try again" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        return one_line(f"{place}{error.strerror or error}{hint}.")
    return None

"""How much memory is free, and what was freed goes back to the system. Nothing here imports torch."""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Callable
from pathlib import Path

import psutil

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGE_BYTES = 256 * 1024
_CGROUPS = Path("/sys/fs/cgroup")
_LIMITS = (
    ("memory.max", "memory.current", "memory.stat", ""),  # version 2
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_"),
)
"""Files of a control group: its limit, its use, what that is made of, and how the names in there begin."""


def available(groups: Path = _CGROUPS) -> int:
    """Bytes that can be had: of the machine, or of what a container is limited to, whichever is less."""
    free: int = psutil.virtual_memory().available
    for limit, use, table, prefix in _LIMITS:
        try:
            left = int((groups / limit).read_text()) - int((groups / use).read_text())
            # of files that were read, weights for one; what was read twice counts as active, and can be had as well
            cached = re.findall(rf"^{prefix}(?:in)?active_file (\d+)$", (groups / table).read_text(), re.MULTILINE)
        except (OSError, ValueError):  # no such group, or "max": no limit
            continue
        free = min(free, max(0, left + sum(map(int, cached))))
    return free


def release() -> None:
    """Give back what is free, where the C library can (glibc) and on a GPU.

    glibc keeps freed pieces of up to 32 MiB between others that live on: after the scoring pass of a BERT of base size
    1.7 GiB, of which 1.1 GiB are in no use; and a server keeps what its sessions took.
    """
    trim = _of_libc("malloc_trim")
    if trim is not None:
        trim(0)
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def keep_little() -> None:
    """Let what is freed go back at once, where the C library can (glibc): what a server wants, which seldom needs it.

    By itself malloc keeps more the larger the pieces are that it has seen, up to 64 MiB at the end of each heap, and
    there is a heap for every few threads: after fifty sessions five heaps held 20 MB more than before, 1 MB of it used.
    """
    mallopt = _of_libc("mallopt")
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _LARGE_BYTES)


def _of_libc(function: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), function, None) if sys.platform == "linux" else None

"""What is free goes back to the system."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys

import psutil
import pytest
import torch

from pgb_core import memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries give it back by themselves, or not")
def test_what_lies_free_between_what_is_held_is_given_back() -> None:
    pieces = [torch.ones(25_000) for _ in range(2_000)]  # 0.2 GB, in pieces too small to be mapped one by one
    held = pieces[-1]
    del pieces
    before = psutil.Process().memory_info().rss
    memory.release()
    assert before - psutil.Process().memory_info().rss > 1e8
    assert held.sum() == 25_000


def test_a_c_library_without_trimming_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    memory.release()
    memory.keep_little()


_SCRIPT = """
import threading
import psutil
from pgb_core import memory
{first}
rss = psutil.Process().memory_info().rss
large = bytes(30_000_000)
del large  # from now on malloc keeps as much for later
def script():
    pieces = [b"x" * 100_000 for _ in range(200)]
thread = threading.Thread(target=script)
thread.start()
thread.join()
print(psutil.Process().memory_info().rss - rss)
"""


def _kept(first: str) -> int:
    """Bytes that a process holds after a thread of it has let go of everything."""
    code = _SCRIPT.format(first=first)
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries give it back by themselves, or not")
def test_a_server_keeps_little_of_what_its_threads_took() -> None:
    assert _kept("memory.keep_little()") < 0.5 * _kept("")

"""What is free goes back to the system."""

from __future__ import annotations

import ctypes
import platform
import re
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
import ctypes, threading
from pgb_core import memory
{first}
large = bytes(30_000_000)
del large  # from now on malloc keeps as much for later
pieces = [b""] * 200  # nothing that lives on is to lie above them
def script():
    for number in range(200):
        pieces[number] = b"x" * 100_000
    for number in reversed(range(200)):
        pieces[number] = b""
stats = ctypes.CDLL(None).malloc_stats
stats()
thread = threading.Thread(target=script)
thread.start()
thread.join()
stats()
"""


def _kept(first: str) -> int:
    """Bytes that malloc holds on to after a thread has let go of everything."""
    code = _SCRIPT.format(first=first)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = map(int, re.findall(r"Total.*\nsystem bytes +=\s+(\d+)", done.stderr))
    return after - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries give it back by themselves, or not")
def test_a_server_keeps_little_of_what_its_threads_took() -> None:
    assert _kept("") > 15e6
    assert _kept("memory.keep_little()") < 2e6

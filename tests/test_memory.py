"""What is free goes back to the system."""

from __future__ import annotations

import ctypes
import platform
import re
import subprocess
import sys
from pathlib import Path

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


VERSION_2 = {
    "memory.max": "{limit}",
    "memory.current": "7000000",
    "memory.stat": "anon 9\ninactive_file 1500000\nactive_file 500000\n",
}
VERSION_1 = {
    "memory/memory.limit_in_bytes": "{limit}",
    "memory/memory.usage_in_bytes": "7000000",
    "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 1500000\ntotal_active_file 500000\n",
}


@pytest.mark.parametrize("files", [VERSION_1, VERSION_2])
@pytest.mark.parametrize(
    ("limit", "free"), [("10000000", 5_000_000), ("4000000", 0), ("max", None), (str(2**62), None)]
)
def test_a_limit_of_a_container_counts(files: dict[str, str], limit: str, free: int | None, tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content.format(limit=limit))
    found = memory.available(tmp_path)
    assert found == free if free is not None else found > 1e8


def test_without_control_groups_the_machine_counts(tmp_path: Path) -> None:
    assert memory.available(tmp_path) == pytest.approx(psutil.virtual_memory().available, rel=0.2)

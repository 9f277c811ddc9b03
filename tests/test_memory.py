"""What is free goes back to the system."""

from __future__ import annotations

import ctypes
import platform

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

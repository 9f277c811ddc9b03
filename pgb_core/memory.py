"""Memory that a stage has freed goes back to the system."""

from __future__ import annotations

import ctypes
import ctypes.util

import torch


def release() -> None:
    """Give back what is free, where the C library can (glibc) and on a GPU.

    glibc keeps freed pieces of up to 32 MiB between others that live on: after the scoring pass of a BERT of base size
    1.7 GiB, of which 1.1 GiB are in no use.
    """
    trim = getattr(ctypes.CDLL(ctypes.util.find_library("c")), "malloc_trim", None)
    if trim is not None:
        trim(0)
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()

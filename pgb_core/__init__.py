"""PGB: permutation and grouping for BERT (Lim, Lee, Choi, arXiv 2502.03984), and what measures it.

>>> from pgb_core import PruneSpec, prune, load_pruned
>>> result = prune(PruneSpec(checkpoint="demo", task="bbc-news", sparsity=0.5), out="runs/first")  # doctest: +SKIP
>>> model = load_pruned("runs/first/model")  # doctest: +SKIP

`prune` and `load_pruned` are imported on first use: they need torch, which the dashboard's pages never load.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from pgb_core.errors import (
    CheckpointError,
    JobCancelled,
    JobRejected,
    PGBError,
    RunError,
    SpecError,
    TaskError,
)
from pgb_core.spec import PruneSpec

__version__ = "0.1.0"

_LAZY = {"prune": "pgb_core.pruner", "load_pruned": "pgb_core.saving"}

__all__ = [
    "CheckpointError",
    "JobCancelled",
    "JobRejected",
    "PGBError",
    "PruneSpec",
    "RunError",
    "SpecError",
    "TaskError",
    "load_pruned",
    "prune",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'pgb_core' has no attribute {name!r}")

"""The structured pruning methods we are compared with, faithful to their sources, on our sublayers and budget.

Each module cites its source and says what differs here. All have one signature; a sublayer comes out as a rectangle or
dropped.
"""

from __future__ import annotations

from collections.abc import Callable

from pgb_core.baselines import heads_neurons, kprune, kwon
from pgb_core.grouped import PrunedSublayer

BASELINES: dict[str, Callable[..., list[PrunedSublayer]]] = {
    "heads-neurons": heads_neurons.heads_neurons,
    "kwon": kwon.kwon,
    "kprune": kprune.kprune,
}
"""By the name of the method: (model, sublayers, batches, budget, *, cost, step) -> the pruned sublayers."""

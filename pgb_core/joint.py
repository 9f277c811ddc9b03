"""Stage 3c, joint drops: whether sublayers that are to be dropped can do without each other.

The tables price one change of the dense network at a time, and the budget adds prices up. Sublayers that stand in for
each other break that. On BBC news at 94 %, `structured` drops the last three attentions: while any of them is there it
carries the text to the first token, and the whole choice is priced at 0.022; without all three nothing does, and the
divergence is 1.37 (24 % right). With one head of one of them it is 0.025 (96 %). So a choice that drops several
sublayers is tried: only the drops are made, the rest is refitted to them, and where they lose more together than the
tables say, by more than the whole choice is to lose, one is restored and the budget solved anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor, nn

from pgb_core.architectures import Sublayer, predictions_of
from pgb_core.batching import Batch
from pgb_core.budget import Choice
from pgb_core.compensation import compensate
from pgb_core.constraints import Constraints, Pin
from pgb_core.errors import SpecError
from pgb_core.grouped import install
from pgb_core.importance import TokenWeights
from pgb_core.layout import dropped_layout, untouched_layout
from pgb_core.likelihood import likelihood_of
from pgb_core.options import Option

Together = Callable[[frozenset[int]], float]
"""What dropping the sublayers of these places, and nothing else, loses, in nats."""


@dataclass(frozen=True)
class Restored:
    """A sublayer that the tables would have dropped, and what it was restored for; losses in nats, of drops only."""

    pin: Pin
    alone: float
    """The sum of the prices of all sublayers that were to be dropped."""
    together: float
    """What they lost when they were dropped all at once."""
    without: float
    """And without this one among them."""


def settle(
    choose: Callable[[Constraints], Choice],
    sublayers: Sequence[Sublayer],
    tables: Sequence[Sequence[Option]],
    constraints: Constraints,
    together: Together,
) -> tuple[Choice, list[Restored]]:
    """A choice whose drops have been tried together, and what had to be restored for it.

    Each round pins the one sublayer whose return helps the dropped others most. Where the target cannot be met so, the
    choice stays as it is.

    Args:
        choose: stage 3b under these constraints.
        tables: per sublayer, the options that the choice's indices are of.

    Raises:
        SpecError: from `choose`, the first time.
    """
    choice, restored = choose(constraints), list[Restored]()
    while True:
        chosen = [table[option] for table, option in zip(tables, choice.options, strict=True)]
        dropped = frozenset(i for i, option in enumerate(chosen) if option.layout.dropped)
        if len(dropped) < 2:  # the price of one is measured
            return choice, restored
        alone, lost = sum(chosen[i].loss for i in dropped), together(dropped)
        if lost - alone <= choice.loss:
            return choice, restored
        without = {i: together(dropped - {i}) for i in sorted(dropped)}
        best = min(without, key=without.__getitem__)
        pin = Pin(*sublayers[best].key)
        constraints = replace(constraints, pins=(*constraints.pins, pin))
        try:
            choice = choose(constraints)
        except SpecError:
            return choice, restored
        restored.append(Restored(pin, alone, lost, without[best]))


def divergence_of_drops(
    model: nn.Module,
    sublayers: Sequence[Sublayer],
    weights: Sequence[TokenWeights],
    fit: Sequence[Batch],
    test: Sequence[Batch],
) -> Together:
    """The Kullback-Leibler divergence of predictions on `test` from the dense ones, with the rest refitted on `fit`.

    Nothing is computed before it is asked for, and nothing twice.
    """
    likelihood = likelihood_of(model)

    @cache
    def dense() -> list[Tensor]:
        return _predictions(model, test)

    @cache
    def together(dropped: frozenset[int]) -> float:
        layouts = [
            dropped_layout(sub.shape) if i in dropped else untouched_layout(sub.shape)
            for i, sub in enumerate(sublayers)
        ]
        refitted = compensate(model, sublayers, layouts, weights, fit)
        total, pruned = 0.0, _predictions(install(model, sublayers, refitted), test)
        for before, after, batch in zip(dense(), pruned, test, strict=True):
            total += float(likelihood.divergence(before, after, batch.attention_mask).sum())
        return total / sum(len(batch.indices) for batch in test)

    return together


@torch.no_grad()
def _predictions(model: nn.Module, batches: Sequence[Batch]) -> list[Tensor]:
    """Of each batch, float64, on the CPU."""
    device = next(model.parameters()).device
    outputs = (model.eval()(**batch.to(device).inputs) for batch in batches)
    return [predictions_of(output).cpu().double() for output in outputs]

"""What the methods we are compared with share: mask variables of heads and neurons, their cost, and a choice by rank.

Every unit, a head or a neuron, is multiplied by a mask variable that is 1 in the dense model. Its derivative is the sum
over tokens of the unit's activations times the loss's gradient there: one backward pass gives it for every unit and
every sample, since the samples of a batch do not meet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pgb_core.architectures import Sublayer, attention_mask, embed, predict
from pgb_core.batching import Batch
from pgb_core.budget import TOLERANCE
from pgb_core.compensation import ExitSums, States
from pgb_core.fisher import differentiable_activations
from pgb_core.grouped import PrunedSublayer
from pgb_core.layout import IntArray, SublayerLayout, SublayerShape, dropped_layout, rectangle_layout
from pgb_core.likelihood import likelihood_of
from pgb_core.progress import Step, silent

UnitCost = Callable[[SublayerShape], int]
"""What one unit of a sublayer costs, in the unit of the budget."""


def unit_weights(shape: SublayerShape) -> int:
    """Encoder weights of one unit: 4 * width * hidden of a head, 2 * hidden of a neuron.

    >>> unit_weights(SublayerShape("attention", 384, 12, 32)), unit_weights(SublayerShape("feed_forward", 384, 1536, 1))
    (49152, 768)
    """
    return shape.weights // shape.units


def slack_of(shapes: Sequence[SublayerShape], cost: UnitCost) -> int:
    """How much of a budget may stay unspent: `budget.TOLERANCE` of what the dense encoder costs."""
    return round(TOLERANCE * sum(shape.units * cost(shape) for shape in shapes))


def layout_of(shape: SublayerShape, units: IntArray) -> SublayerLayout:
    """The given units with all their inputs and outputs, in the original order; dropped where there are none."""
    return rectangle_layout(shape, np.sort(units)) if len(units) else dropped_layout(shape)


# --- mask variables ------------------------------------------------------------------------------------------------


@torch.enable_grad()
def mask_gradients(
    model: nn.Module, sublayers: Sequence[Sublayer], x: Tensor, mask: Tensor | None, loss: Callable[[Tensor], Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs of the exits, and per sample the gradient of the loss by a mask on each of them.

    Args:
        model: with frozen parameters.
        sublayers: the uppermost of the encoder, up to the last.
        x: (B, L, hidden), what the first of them reads.
        mask: for `Sublayer.mix`.
        loss: predictions -> a sum over samples.

    Returns:
        (B, L, inner) and (B, inner) per sublayer.
    """
    x = x.detach().requires_grad_()
    hidden: list[Tensor] = []
    for sub in sublayers:
        hidden.append(sub.hidden(x, mask))
        x = sub.norm(x + sub.exit(hidden[-1]))
    gradients = torch.autograd.grad(loss(predict(model, x)), hidden)
    inputs = [z.detach() for z in hidden]
    return inputs, [(z * gradient).sum(dim=1) for z, gradient in zip(inputs, gradients, strict=True)]


def label_gradients(
    model: nn.Module, sublayers: Sequence[Sublayer], batches: Sequence[Batch], *, step: Step = silent
) -> list[Tensor]:
    """(samples, units) per sublayer: each sample's gradient of the loss by the mask variable of each unit."""
    likelihood, device = likelihood_of(model), sublayers[0].exit.weight.device
    found: list[list[Tensor]] = [[] for _ in sublayers]
    with differentiable_activations(model):
        for n, batch in enumerate(batches):
            batch = batch.to(device)

            def loss(predictions: Tensor, batch: Batch = batch) -> Tensor:
                return likelihood.loss(predictions, batch.labels, batch.attention_mask, "sum")

            x, mask = embed(model, batch.inputs), attention_mask(batch.attention_mask)
            _, gradients = mask_gradients(model, sublayers, x, mask, loss)
            for sub, rows, gradient in zip(sublayers, found, gradients, strict=True):
                rows.append(gradient.unflatten(1, (sub.shape.units, sub.shape.width)).sum(dim=2))
            step(n + 1, len(batches), "scoring heads and neurons")
    return [torch.cat(rows) for rows in found]


# --- choosing by rank ----------------------------------------------------------------------------------------------


def best_ranked(scores: Sequence[NDArray[np.float64]], costs: Sequence[int], budget: int, slack: int) -> list[IntArray]:
    """The units of highest score that fit into the budget, over all sublayers.

    From the best down, a unit that no longer fits is passed over for cheaper ones. Where that leaves more than `slack`
    because every cheap unit is kept already, the worst of them make room for the best unit that was passed over.

    Args:
        scores: (units,) per sublayer, higher is better.
        costs: per sublayer, of one unit.

    Returns:
        Per sublayer the kept units, ascending.
    """
    owner = np.repeat(np.arange(len(scores)), [len(s) for s in scores])
    price = np.asarray(costs)[owner]
    order = np.argsort(-np.concatenate(scores), kind="stable")
    kept = np.zeros(len(owner), dtype=bool)
    left = budget
    for unit in order:
        if price[unit] <= left:
            kept[unit] = True
            left -= int(price[unit])
    if left > slack:
        _make_room(kept, order, price, left)
    return [np.flatnonzero(k) for k in np.split(kept, np.cumsum([len(s) for s in scores])[:-1])]


def _make_room(kept: NDArray[np.bool_], order: IntArray, price: NDArray[np.int64], left: int) -> None:
    """In place: keep the best unit that has no room in `left` instead of the worst cheaper ones."""
    for unit in order[~kept[order]]:
        cheaper = order[kept[order] & (price[order] < price[unit])][::-1]
        freed = np.cumsum(price[cheaper])
        enough = int(np.searchsorted(freed, price[unit] - left)) + 1
        if enough <= len(cheaper):
            kept[cheaper[:enough]] = False
            kept[unit] = True
            return


# --- towards the dense output --------------------------------------------------------------------------------------


@torch.no_grad()
def exit_sums(
    sub: Sublayer, pruned: PrunedSublayer, states: Sequence[States], *, first_token: bool = False, step: Step = silent
) -> ExitSums:
    """Sums over real tokens, or over first tokens: inputs of the pruned exit, and what is to come out of it.

    That is the dense output plus the dense residual minus the pruned one.
    """
    sums = ExitSums(pruned.layout, sub.exit.weight.device)
    for n, state in enumerate(states):
        counted = state.real.clone()
        if first_token:
            counted[:, 1:] = False
        target = sub.exit(sub.hidden(state.dense, state.mask)) + state.dense - state.pruned
        chosen = target[counted]
        sums.add(pruned.hidden(state.pruned, state.mask)[counted], chosen, chosen.new_ones(len(chosen)))
        step(2 * n, 3 * len(states))
    return sums

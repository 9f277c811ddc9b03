"""Mask search, rearrangement and tuning by Kwon et al., "A Fast Post-Training Pruning Framework for Transformers".

NeurIPS 2022, arXiv 2204.09656; facts that the paper leaves open are from the authors' code
(github.com/WoosukKwon/retraining-free-pruning). Three steps, no training:

1. Search (section 4.1, algorithm 1). The loss of a mask is a quadratic form of the Fisher information of the mask
   variables. With its diagonal alone, and one cost for all heads and one for all neurons, the best n heads and the
   best neurons that still fit are optimal for each n; every n is tried.
2. Rearrangement (section 4.2, algorithm 2). With the blocks of the Fisher information that belong to one sublayer, kept
   and removed units of a sublayer change places, their numbers fixed: from the least important kept unit up, each is
   removed and the one of the removed whose return lowers the quadratic form most comes back.
3. Tuning (section 4.3). Bottom-up, the kept mask variables become scales, fitted by least squares so that a sublayer's
   output plus its residual is the dense model's. LSMR with damping 1 solves the normal equations for the change from 1.
   As in their code: the first attention is left alone; heads get a constant next to them, which is thrown away; of the
   last feed-forward only the first token counts, the one that the classifier reads; and where the solver does not
   converge or a scale leaves [-10, 10], this sublayer and all above it keep scales of 1.

What differs here: the Fisher information is from per-sample gradients and the tuning aims at the dense model, both as
the paper writes it (the code takes one gradient per mini-batch, and aims at a model pruned half way, to the square root
of the density). The budget binds (the code's loop goes on after the heads alone exceed it) and may leave no head at
all; a split that leaves too much of it unspent is passed over. As long as nothing was removed, nothing is tuned. The
scales are absorbed in the exit matrix; a sublayer without units keeps its exit's bias, which the masked original also
adds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import lsmr
from torch import Tensor, nn

from pgb_core.architectures import Sublayer
from pgb_core.baselines.units import UnitCost, exit_sums, label_gradients, layout_of, slack_of, unit_weights
from pgb_core.batching import Batch
from pgb_core.compensation import ExitSums, advance, first_states
from pgb_core.grouped import PrunedSublayer, cut
from pgb_core.importance import solve_dtype
from pgb_core.layout import IntArray, SublayerLayout
from pgb_core.pgb_blocks import Constant
from pgb_core.progress import Step, part, silent

SCALE_LIMIT = 10.0
"""Scales beyond it, on either side, are refused."""
_DAMPING = 1.0
"""LSMR's."""
_ROUNDS = 5
"""LSMR's steps at most, for each unknown: the default of the library that the source calls."""
_CONVERGED = 2
"""LSMR's greatest reason to stop that stands for a solution."""


def kwon(
    model: nn.Module,
    sublayers: Sequence[Sublayer],
    batches: Sequence[Batch],
    budget: int,
    *,
    cost: UnitCost = unit_weights,
    step: Step = silent,
) -> list[PrunedSublayer]:
    """Search, rearrange and tune the mask of heads and neurons (module docstring).

    Args:
        batches: calibration text with its labels.
        budget: encoder weights to keep, or whatever `cost` counts.
    """
    gradients = label_gradients(model, sublayers, batches, step=part(step, 0.0, 0.4))
    shapes = [sub.shape for sub in sublayers]
    heads = np.array([shape.kind == "attention" for shape in shapes])
    diagonal = [g.square().mean(dim=0).double().cpu().numpy() for g in gradients]
    kept = search(diagonal, heads, [cost(shape) for shape in shapes], budget, slack_of(shapes, cost))
    kept = [rearrange(units, (g.T @ g).double().cpu().numpy()) for units, g in zip(kept, gradients, strict=True)]
    layouts = [layout_of(shape, units) for shape, units in zip(shapes, kept, strict=True)]
    return tune(model, sublayers, layouts, batches, step=part(step, 0.4, 1.0))


# --- the mask ------------------------------------------------------------------------------------------------------


def search(
    scores: Sequence[NDArray[np.float64]], heads: NDArray[np.bool_], costs: Sequence[int], budget: int, slack: int
) -> list[IntArray]:
    """The units of greatest total score within the budget: the best n heads and the best neurons that still fit.

    Exact where all heads have one cost and all neurons have one. A split that leaves more than `slack` unspent is
    passed over for one that does not.

    Args:
        scores: (units,) per sublayer, the diagonal of the Fisher information.
        heads: (sublayers,) true for attention.
        costs: per sublayer, of one unit.

    Returns:
        Per sublayer the kept units, ascending.
    """
    owner = np.repeat(np.arange(len(scores)), [len(s) for s in scores])
    flat, price = np.concatenate(scores), np.asarray(costs)[owner]
    ranked = [np.flatnonzero(heads[owner] == kind) for kind in (True, False)]
    ranked = [units[np.argsort(-flat[units], kind="stable")] for units in ranked]
    (head_cost, head_gain), (neuron_cost, neuron_gain) = (
        (np.append(0, np.cumsum(price[units])), np.append(0.0, np.cumsum(flat[units]))) for units in ranked
    )
    head_cost = head_cost[head_cost <= budget]
    counts = np.searchsorted(neuron_cost, budget - head_cost, side="right") - 1  # neurons beside n = 0, 1, ... heads
    spent = head_cost + neuron_cost[counts]
    gain = head_gain[: len(head_cost)] + neuron_gain[counts]
    fitting = np.flatnonzero(spent >= min(budget - slack, int(spent.max())))
    n = int(fitting[gain[fitting].argmax()])
    kept = np.zeros(len(owner), dtype=bool)
    kept[ranked[0][:n]] = True
    kept[ranked[1][: counts[n]]] = True
    return [np.flatnonzero(k) for k in np.split(kept, np.cumsum([len(s) for s in scores])[:-1])]


def rearrange(kept: IntArray, fisher: NDArray[np.float64]) -> IntArray:
    """As many kept units as before, with a quadratic form (1 - m)^T F (1 - m) that is no greater, m the 0-1 mask.

    Args:
        kept: the units that the mask keeps.
        fisher: (units, units) F.

    Returns:
        The kept units, ascending.
    """
    removed = np.ones(len(fisher), dtype=bool)
    removed[kept] = False
    if removed.all() or not removed.any():
        return np.sort(kept)
    diagonal = fisher.diagonal()
    sums = fisher[:, removed].sum(axis=1)  # F (1 - m)
    for unit in kept[np.argsort(diagonal[kept], kind="stable")]:
        removed[unit] = True
        sums += fisher[:, unit]
        # without unit i, the form is the present one - 2 sums_i + F_ii
        back = int(np.where(removed, diagonal - 2 * sums, np.inf).argmin())
        removed[back] = False
        sums -= fisher[:, back]
    return np.flatnonzero(~removed)


# --- its tuning ----------------------------------------------------------------------------------------------------


@torch.no_grad()
def tune(
    model: nn.Module,
    sublayers: Sequence[Sublayer],
    layouts: Sequence[SublayerLayout],
    batches: Sequence[Batch],
    *,
    step: Step = silent,
) -> list[PrunedSublayer]:
    """The kept units of every sublayer, scaled bottom-up towards the dense model; layouts are rectangles or dropped."""
    states = first_states(model, batches)
    tuned: list[PrunedSublayer] = []
    drifted, trusted = False, True
    for i, (sub, layout) in enumerate(zip(sublayers, layouts, strict=True)):
        inner = part(step, i / len(sublayers), (i + 1) / len(sublayers), f"tuning the {sub.name}")
        pruned = cut(sub, layout)
        drifted = drifted or not layout.untouched
        if isinstance(pruned.exit, Constant):
            pruned.exit.bias.copy_(sub.exit.bias)
        elif drifted and trusted and i > 0:
            sums = exit_sums(sub, pruned, states, first_token=i == len(sublayers) - 1, step=inner)
            scales = solve(*scale_system(sub, layout, sums), layout.kept_units)
            trusted = scales is not None
            if scales is not None:
                pruned.exit.weights[0].mul_(scales.to(pruned.exit.weights[0]).repeat_interleave(layout.shape.width))
        states = advance(sub, pruned, states, step=inner)
        tuned.append(pruned)
    return tuned


def scale_system(sub: Sublayer, layout: SublayerLayout, sums: ExitSums) -> tuple[Tensor, Tensor]:
    """Normal equations A s = b of the scales s of the kept units, without ever listing their outputs.

    Unit k adds o_k = W_k z_k to the output. A_jk = sum_t o_j . o_k is the sum of (z z^T) * (W^T W) over the units'
    columns, b_k = sum_t o_k . (y - bias) that of (z y^T) * W^T. For attention a constant for all outputs comes last.

    Returns:
        (k, k) and (k,), one more for attention.
    """
    width = layout.shape.width
    columns = torch.from_numpy(layout.unit_rows(layout.groups[0])).to(sub.exit.weight.device)
    dtype = solve_dtype(columns.device)
    weight, bias = sub.exit.weight[:, columns].to(dtype), sub.exit.bias.to(dtype)
    gram, cross = sums.grams[0].to(dtype), sums.crosses[0].to(dtype)
    gram, total = gram[:-1, :-1], gram[-1, :-1]
    cross, targets = cross[:, :-1] - torch.outer(bias, total), cross[:, -1] - bias * sums.weight

    def by_unit(values: Tensor) -> Tensor:
        """Sums over the columns of each unit, along the last dimension."""
        summed: Tensor = values.unflatten(-1, (-1, width)).sum(dim=-1)
        return summed

    matrix = by_unit(by_unit(gram * (weight.T @ weight)).T)
    right = by_unit((cross * weight).sum(dim=0))
    if layout.shape.kind == "feed_forward":
        return matrix, right
    constant = by_unit(total * weight.sum(dim=0))
    corner = (sums.weight * len(weight)).to(matrix).reshape(1, 1)
    matrix = torch.cat([torch.cat([matrix, constant[:, None]], dim=1), torch.cat([constant[None], corner], dim=1)])
    return matrix, torch.cat([right, targets.sum()[None]])


def solve(matrix: Tensor, right: Tensor, units: int) -> Tensor | None:
    """(units,) scales from the (k, k) normal equations, or None where the solver or the range refuses them.

    The matrix is small and LSMR's steps are short, so it runs on the CPU, as in the source.
    """
    a, b = matrix.double().cpu().numpy(), right.double().cpu().numpy()
    change, reason, *_ = lsmr(a, b - a.sum(axis=1), damp=_DAMPING, maxiter=_ROUNDS * len(a))
    scales = torch.from_numpy(1 + change[:units]).to(matrix)
    return None if reason > _CONVERGED or bool(scales.abs().max() > SCALE_LIMIT) else scales

"""K-prune: Park, Choi and Kang, "Accurate Retraining-free Pruning for Pretrained Encoder-based Language Models".

ICLR 2024, arXiv 2308.03449; facts that the paper leaves open, and all settings, are from the authors' code
(github.com/snudm-starlab/K-prune). No training. From the bottom up, for each sublayer in turn:

1. Knowledge measurement (section 3.2), for this sublayer and all above it, which are still dense, on inputs from the
   pruned sublayers below. Predictive knowledge of a unit: 1/2 (dL/dm)^2 by its mask variable, L the KL divergence from
   the dense model's prediction at temperature gamma, times gamma^2. Representational knowledge: its squared
   contribution to the sublayer's output, mean over tokens and outputs. A head's are means over its rows, each row with
   a mask variable of its own.
2. Knowledge-preserving mask search (section 3.3, algorithm 1): score = predictive + lambda * representational, times mu
   for heads, per cost; over this sublayer and all above it, the units of highest score stay within what is left of the
   budget. Only this sublayer's part is carried out.
3. Knowledge-preserving weight tuning (section 3.4): its exit matrix by least squares, so that output plus residual is
   the dense model's; the bias stays. A sublayer without units loses its bias too.

Settings as in the authors' published command for BERT: gamma = 2, lambda = 0.00025, mu = 64. As in their code, a
gradient is of the mean over a mini-batch of 32, and the squares are summed and divided by the number of samples: lambda
is tuned to that scale. The dense model has no gradient against its own prediction: until something is removed,
representational knowledge decides alone, as it does in their code.

What differs here: they score and tune on 100,000 tokens. We tune on all calibration text (1,024 samples by default) and
score on one batch in `SCORED`, because every sublayer scores anew and a CPU has to do it. A unit that no longer fits is
passed over for cheaper ones, where they stop, so that the budget is met within its tolerance. The least squares leave
out directions with less than `_CUTOFF` of the largest eigenvalue, where theirs has no cutoff and keeps the weights if
it fails. As long as nothing was removed, nothing is tuned.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pgb_core.architectures import Sublayer, predict
from pgb_core.baselines.units import (
    UnitCost,
    best_ranked,
    exit_sums,
    layout_of,
    mask_gradients,
    slack_of,
    unit_weights,
)
from pgb_core.batching import Batch
from pgb_core.compensation import States, advance, first_states
from pgb_core.fisher import differentiable_activations
from pgb_core.grouped import PrunedSublayer, cut
from pgb_core.importance import solve_dtype
from pgb_core.likelihood import likelihood_of
from pgb_core.pgb_blocks import Constant
from pgb_core.progress import Step, part, silent

TEMPERATURE = 2.0
"""gamma: of both predictions."""
REPRESENTATION = 2.5e-4
"""lambda: weight of representational knowledge beside predictive knowledge."""
HEAD_FACTOR = 64.0
"""mu: factor of the scores of heads. It is the width of BERT-base's heads, whose scores are means over their rows."""
MINI_BATCH = 32
"""Samples behind one gradient."""
SCORED = 4
"""One batch in so many is scored."""
_CUTOFF = 1e-6
"""Of the least squares; the sums over tokens are float32."""


@torch.no_grad()
def kprune(
    model: nn.Module,
    sublayers: Sequence[Sublayer],
    batches: Sequence[Batch],
    budget: int,
    *,
    cost: UnitCost = unit_weights,
    step: Step = silent,
) -> list[PrunedSublayer]:
    """Measure, search and tune, sublayer by sublayer from the bottom (module docstring).

    Args:
        batches: calibration text; its labels aren't used.
        budget: encoder weights to keep, or whatever `cost` counts.
    """
    shapes = [sub.shape for sub in sublayers]
    slack = slack_of(shapes, cost)
    states = first_states(model, batches)
    scored = range(0, len(states), SCORED)
    predictions = {n: soft_prediction(model, sublayers, states[n]) for n in scored}
    pruned: list[PrunedSublayer] = []
    drifted = False
    for i, (sub, shape) in enumerate(zip(sublayers, shapes, strict=True)):
        above = sublayers[i:]
        inner = part(step, i / len(sublayers), (i + 1) / len(sublayers), f"pruning the {sub.name}")
        sample = [states[n] for n in scored]
        scores = measure(model, above, sample, [predictions[n] for n in scored], step=part(inner, 0.0, 0.5))
        costs = [cost(s.shape) for s in above]
        per_cost = [s.double().cpu().numpy() / c for s, c in zip(scores, costs, strict=True)]
        units = best_ranked(per_cost, costs, budget, slack)[0]
        budget -= len(units) * costs[0]
        new = cut(sub, layout_of(shape, units))
        drifted = drifted or not new.layout.untouched
        if drifted:
            tune(sub, new, states, step=part(inner, 0.5, 1.0))
        states = advance(sub, new, states, step=part(inner, 0.5, 1.0))
        pruned.append(new)
    return pruned


# --- knowledge -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def soft_prediction(model: nn.Module, sublayers: Sequence[Sublayer], state: States) -> Tensor:
    """Predictions of the dense model at `TEMPERATURE`; `sublayers` is the whole encoder."""
    x = state.dense
    for sub in sublayers:
        x = sub.norm(x + sub.exit(sub.hidden(x, state.mask)))
    return predict(model, x) / TEMPERATURE


def measure(
    model: nn.Module,
    above: Sequence[Sublayer],
    states: Sequence[States],
    predictions: Sequence[Tensor],
    *,
    step: Step = silent,
) -> list[Tensor]:
    """(units,) per sublayer: the knowledge of each unit, as in the mask search but not yet per cost.

    Args:
        above: the sublayers that are still dense, up to the last.
        states: what the first of them reads.
        predictions: per state, of `soft_prediction`.
    """
    squares = [torch.zeros(sub.shape.inner, device=sub.exit.weight.device) for sub in above]
    gradients: list[list[Tensor]] = [[] for _ in above]
    likelihood, tokens = likelihood_of(model), 0
    with differentiable_activations(model):
        for n, (state, prediction) in enumerate(zip(states, predictions, strict=True)):

            def loss(found: Tensor, prediction: Tensor = prediction, real: Tensor = state.real) -> Tensor:
                return TEMPERATURE**2 * likelihood.divergence(prediction, found / TEMPERATURE, real).sum()

            hidden, found = mask_gradients(model, above, state.pruned, state.mask, loss)
            tokens += int(state.real.sum())
            for total, rows, z, gradient in zip(squares, gradients, hidden, found, strict=True):
                total += z[state.real].square().sum(dim=0)
                rows.append(gradient)
            step(n + 1, len(states))
    scores: list[Tensor] = []
    for sub, total, rows in zip(above, squares, gradients, strict=True):
        predictive = predictive_knowledge(torch.cat(rows))
        representational = total / tokens * sub.exit.weight.detach().square().mean(dim=0)
        score = (predictive + REPRESENTATION * representational).unflatten(0, (-1, sub.shape.width)).mean(dim=1)
        scores.append(score * HEAD_FACTOR if sub.shape.kind == "attention" else score)
    return scores


def predictive_knowledge(gradients: Tensor) -> Tensor:
    """(samples, inner) gradients of the KL divergence -> (inner,) knowledge, at the scale of the authors' code."""
    means = [chunk.mean(dim=0) for chunk in gradients.split(MINI_BATCH)]
    return 0.5 * torch.stack(means).square().sum(dim=0) / len(gradients)


# --- weight tuning -------------------------------------------------------------------------------------------------


@torch.no_grad()
def tune(sub: Sublayer, pruned: PrunedSublayer, states: Sequence[States], *, step: Step = silent) -> None:
    """Fit the exit's weights in place so that output plus residual is the dense model's, with the bias as it is."""
    if isinstance(pruned.exit, Constant):
        return
    sums = exit_sums(sub, pruned, states, step=step)
    pruned.exit.weights[0].copy_(least_squares(sums.crosses[0], sums.grams[0], sub.exit.bias))


def least_squares(cross: Tensor, gram: Tensor, bias: Tensor) -> Tensor:
    """(N, k) weights W of least norm that minimize sum_t |W z_t + bias - y_t|^2.

    Args:
        cross: (N, k + 1), sum of y z^T, the constant last.
        gram: (k + 1, k + 1), sum of z z^T.
        bias: (N,).
    """
    dtype = solve_dtype(gram.device)
    gram, cross = gram.to(dtype), cross.to(dtype)
    right = cross[:, :-1] - torch.outer(bias.to(dtype), gram[-1, :-1])
    solution: Tensor = right @ torch.linalg.pinv(gram[:-1, :-1], rtol=_CUTOFF, hermitian=True)
    return solution.to(bias.dtype)

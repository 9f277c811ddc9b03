"""Stage 3b, prices: what each option loses.

The loss of an option is the error that it leaves at the sublayer's output AFTER its own refit,

    1/2 sum_i q_i sum_t w_t (y_ti - yhat_ti)^2 / sum_t w_t,

on dense inputs, measured on text that the refit of the exit has not seen. Adding up the errors of the matrices instead
would misprice groups badly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pgb_core.architectures import Sublayer
from pgb_core.batching import Batch, Example, batches
from pgb_core.compensation import ExitSums, States, advance, first_states, refit_entry, refit_exit
from pgb_core.grouped import cut
from pgb_core.importance import SublayerStatistics
from pgb_core.layout import Layout, untouched_layout
from pgb_core.least_squares import ridge
from pgb_core.options import Option
from pgb_core.progress import Step, silent

FIT_TOKENS, TEST_TOKENS = 12_288, 6_144
"""Calibration tokens on which groups are refitted, and further ones that measure them."""


@torch.no_grad()
def price_rectangle(sub: Sublayer, layout: Layout, statistics: SublayerStatistics) -> float:
    """Loss of keeping some heads or neurons whole, or none: from the Gram matrices of the exit's inputs alone.

    What the kept units give does not change, so the refit and its error are quadratic forms in the Gram matrix H:
    fitted on one half of the samples and measured on the other, both ways.
    """
    dense = torch.cat([sub.exit.weight, sub.exit.bias[:, None]], dim=1)  # (hidden, inner + 1)
    inputs = np.concatenate([*(block.columns for block in layout.exit_linear().blocks), [sub.shape.inner]])
    kept = torch.from_numpy(inputs).to(dense.device)
    first, second = statistics.exit_grams
    losses: list[Tensor] = []
    for fit, test in ((first, second), (second, first)):
        error = -dense
        error[:, kept] += ridge(dense @ fit[:, kept], fit[kept][:, kept], dense[:, kept])
        losses.append((statistics.exit_sensitivity * ((error @ test) * error).sum(dim=1)).sum() / 2)
    return float(losses[0] + losses[1]) / 2


@dataclass(frozen=True, eq=False)
class Sample:
    """Text on which groups are refitted or measured: what the dense sublayer reads, and (T, hidden) what it gives."""

    states: Sequence[States]
    targets: Sequence[Tensor]


@torch.no_grad()
def sample_of(sub: Sublayer, states: Sequence[States]) -> Sample:
    """The dense outputs of `sub` on the real tokens of `states`."""
    return Sample(states, [sub.exit(sub.hidden(s.dense, s.mask))[s.real] for s in states])


@torch.no_grad()
def price_by_running(sub: Sublayer, layout: Layout, statistics: SublayerStatistics, fit: Sample, test: Sample) -> float:
    """Loss of any layout that is not dropped: refitted on `fit`, measured on `test`.

    The entry is refitted to the Gram matrix of all calibration text, as its groups read far fewer inputs than that
    has tokens.
    """
    pruned, weights = cut(sub, layout), statistics.weights.exit
    if layout.partial_entry:
        refit_entry(sub, pruned, statistics.entry_gram, statistics.entry_gram)
    sums = ExitSums(layout, sub.exit.weight.device)
    for state, target in zip(fit.states, fit.targets, strict=True):
        sums.add(pruned.hidden(state.dense, state.mask)[state.real], target, state.weights_of(weights))
    refit_exit(sub, pruned, sums)
    squares, total = torch.zeros_like(sub.exit.bias), torch.zeros_like(sums.weight)
    for state, target in zip(test.states, test.targets, strict=True):
        counted = state.weights_of(weights)
        squares += counted @ (pruned(state.dense, state.mask)[state.real] - target).square()
        total += counted.sum()
    return float((statistics.exit_sensitivity * squares).sum() / (2 * total))


def price(sub: Sublayer, layout: Layout, statistics: SublayerStatistics, fit: Sample, test: Sample) -> float:
    """Loss of one option, in the quickest way that there is."""
    if layout.untouched:
        return 0.0
    if layout.tied and layout.group_count <= 1:
        return price_rectangle(sub, layout, statistics)
    return price_by_running(sub, layout, statistics, fit, test)


@torch.no_grad()
def price_candidates(
    model: nn.Module,
    sublayers: Sequence[Sublayer],
    statistics: Sequence[SublayerStatistics],
    candidates: Sequence[Sequence[Layout]],
    fit: Sequence[Batch],
    test: Sequence[Batch],
    *,
    step: Step = silent,
) -> list[list[Option]]:
    """The option table of every sublayer, cheapest first."""
    tables: list[list[Option]] = []
    fit_states, test_states = first_states(model, fit), first_states(model, test)
    total, done = sum(len(layouts) for layouts in candidates), 0
    for sub, stats, layouts in zip(sublayers, statistics, candidates, strict=True):
        options: list[Option] = []
        fit_sample, test_sample = sample_of(sub, fit_states), sample_of(sub, test_states)
        for n, layout in enumerate(layouts):
            step(done, total, f"pricing the {sub.name}, option {n + 1} of {len(layouts)}")
            options.append(Option(layout, price(sub, layout, stats, fit_sample, test_sample)))
            done += 1
        tables.append(sorted(options, key=lambda option: (option.cost, option.loss)))
        whole = cut(sub, untouched_layout(sub.shape))
        fit_states, test_states = (advance(sub, whole, states) for states in (fit_states, test_states))
    return tables


def pricing_batches(calibration: Sequence[Example], seed: int, batch_size: int) -> tuple[list[Batch], list[Batch]]:
    """Two disjoint samples of the calibration text: one to refit options on, one to measure them on."""
    order = np.random.default_rng(seed).permutation(len(calibration))
    lengths = np.cumsum([len(calibration[i].input_ids) for i in order])
    wanted = min(1.0, lengths[-1] / (FIT_TOKENS + TEST_TOKENS))
    split = max(1, int(np.searchsorted(lengths, wanted * FIT_TOKENS)))
    end = max(split + 1, int(np.searchsorted(lengths, wanted * (FIT_TOKENS + TEST_TOKENS), side="right")))
    fit, test = (np.sort(part).tolist() for part in (order[:split], order[split:end]))
    return (
        list(batches(calibration, batch_size, among=fit)),
        list(batches(calibration, batch_size, among=test)),
    )

"""Stage 3b, prices: what each option loses.

The loss of an option is the error that it leaves at the sublayer's output AFTER its own refit,

    1/2 sum_i q_i sum_t w_t (y_ti - yhat_ti)^2 / sum_t w_t,

on dense inputs, measured on text that the refit of the exit has not seen. Adding up the errors of the matrices instead
would misprice groups badly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pgb_core.architectures import Sublayer
from pgb_core.batching import Batch, Example, batches
from pgb_core.compensation import ExitSums, States, advance, dense_outputs, first_states, refit_entry, refit_exit
from pgb_core.grouped import cut
from pgb_core.importance import SublayerStatistics
from pgb_core.layout import Layout, untouched_layout
from pgb_core.least_squares import ridge
from pgb_core.options import Option
from pgb_core.progress import Step, silent

FIT_TOKENS, TEST_TOKENS = 12_288, 6_144
"""Calibration tokens on which groups are refitted, and further ones that measure them."""


@dataclass(frozen=True, eq=False)
class Fold:
    """Text to refit an exit on and text to measure it on: Gram matrices, and the products that all rectangles share."""

    fit: Tensor
    """(inner + 1, inner + 1)"""
    test: Tensor
    """(inner + 1, inner + 1)"""
    fit_cross: Tensor
    """(hidden, inner + 1), float64, as errors are small differences: the dense weights times `fit`"""
    test_cross: Tensor
    """(hidden, inner + 1), float64: the dense weights times `test`"""


@torch.no_grad()
def folds_of(sub: Sublayer, statistics: SublayerStatistics) -> list[Fold]:
    """One half of the samples to refit on and the other to measure, and the other way round."""
    dense = _dense_exit(sub)
    products = [dense.double() @ gram.double() for gram in statistics.exit_grams]
    (first, second), (of_first, of_second) = statistics.exit_grams, products
    return [Fold(first, second, of_first, of_second), Fold(second, first, of_second, of_first)]


def _dense_exit(sub: Sublayer) -> Tensor:
    """(hidden, inner + 1): weights and, last, the bias."""
    return torch.cat([sub.exit.weight, sub.exit.bias[:, None]], dim=1)


@torch.no_grad()
def price_rectangle(
    sub: Sublayer, layout: Layout, statistics: SublayerStatistics, folds: Sequence[Fold] | None = None
) -> float:
    """Loss of keeping some heads or neurons whole, or none: from the Gram matrices of the exit's inputs alone.

    What the kept units give does not change, so the refit and its error are quadratic forms in the Gram matrix H: with
    the dense weights D and the refitted ones W, zero elsewhere, (D - W) H (D - W)^T = D H D^T - 2 W (D H)^T + W H W^T,
    fitted on one half of the samples and measured on the other, both ways.

    Args:
        folds: `folds_of` the same, where they are known.
    """
    folds = folds_of(sub, statistics) if folds is None else folds
    dense = _dense_exit(sub)
    inputs = np.concatenate([*(block.columns for block in layout.exit_linear().blocks), [sub.shape.inner]])
    kept = torch.from_numpy(inputs).to(dense.device)
    loss = torch.zeros((), dtype=torch.float64, device=dense.device)
    for fold in folds:
        weights = ridge(fold.fit_cross[:, kept], fold.fit[kept][:, kept], dense[:, kept]).double()
        errors = (dense * fold.test_cross).sum(dim=1)
        errors += (weights * (weights @ fold.test[kept][:, kept].double() - 2 * fold.test_cross[:, kept])).sum(dim=1)
        loss += (statistics.exit_sensitivity * errors).sum() / 2
    return float(loss) / len(folds)


@dataclass(frozen=True, eq=False)
class Sample:
    """Text on which groups are refitted or measured: what the dense sublayer reads, and what it gives."""

    states: Sequence[States]
    outputs: Sequence[Tensor]
    """(B, L, hidden) per batch"""

    def targets(self) -> Iterator[tuple[States, Tensor]]:
        """Batch by batch, with (T, hidden) what the dense sublayer gives on real tokens."""
        return ((state, state.on_real(output)) for state, output in zip(self.states, self.outputs, strict=True))


def sample_of(sub: Sublayer, states: Sequence[States]) -> Sample:
    """The dense outputs of `sub` on `states`."""
    return Sample(states, dense_outputs(sub, states))


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
    for state, target in fit.targets():
        sums.add(state.on_real(pruned.hidden(state.dense, state.mask)), target, state.weights_of(weights))
    refit_exit(sub, pruned, sums)
    squares, total = torch.zeros_like(sub.exit.bias), torch.zeros_like(sums.weight)
    for state, target in test.targets():
        counted = state.weights_of(weights)
        squares += counted @ (state.on_real(pruned(state.dense, state.mask)) - target).square()
        total += counted.sum()
    return float((statistics.exit_sensitivity * squares).sum() / (2 * total))


def price(
    sub: Sublayer,
    layout: Layout,
    statistics: SublayerStatistics,
    fit: Sample,
    test: Sample,
    folds: Sequence[Fold] | None = None,
) -> float:
    """Loss of one option, in the quickest way that there is."""
    if layout.untouched:
        return 0.0
    if layout.tied and layout.group_count <= 1:
        return price_rectangle(sub, layout, statistics, folds)
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
        folds, fit_sample, test_sample = folds_of(sub, stats), sample_of(sub, fit_states), sample_of(sub, test_states)
        for n, layout in enumerate(layouts):
            step(done, total, f"pricing the {sub.name}, option {n + 1} of {len(layouts)}")
            options.append(Option(layout, price(sub, layout, stats, fit_sample, test_sample, folds)))
            done += 1
        tables.append(sorted(options, key=lambda option: (option.cost, option.loss)))
        whole = cut(sub, untouched_layout(sub.shape))
        fit_states, test_states = (advance(sub, whole, s.states, s.outputs) for s in (fit_sample, test_sample))
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

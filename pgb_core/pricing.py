"""Stage 3a, prices: what each option loses.

The loss of an option is what the error e that it leaves at the sublayer's output, AFTER its own refit and on dense
inputs, does to the predictions: the second-order change of the loss,

    1/2 mean_n sum_k (sum_t g_nkt . e_nt)^2,

with the gradients g of `fisher.exit_gradients`, over texts n that the refit of the exit has not seen: the KL divergence
of the changed predictions from the dense ones, up to higher orders. Errors add up over outputs and tokens before they
are squared. For 14 options each of 8 sublayers of the tweets demo, its logarithm has a correlation of 0.98 to 1.00 with
that of the measured divergence; that of sums of squares, 1/2 sum_i q_i mean_t e_ti^2, has 0.89 to 0.99, and their
scale differs by up to a factor of two between sublayers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pgb_core.architectures import Sublayer
from pgb_core.batching import Batch, Example, batches
from pgb_core.compensation import ExitSums, States, advance, first_states, refit_entry, refit_exit
from pgb_core.fisher import exit_gradients
from pgb_core.grouped import cut
from pgb_core.importance import SublayerStatistics
from pgb_core.layout import Layout, untouched_layout
from pgb_core.least_squares import ridge
from pgb_core.memory import release
from pgb_core.options import Option
from pgb_core.progress import Step, silent

FIT_TOKENS, TEST_TOKENS = 8_192, 8_192
"""Calibration tokens on which options are refitted, and further ones that measure them."""
AT_ONCE = 4
"""Sublayers whose gradients are held at once: they are larger than the model, and a pass for some more costs little."""


# --- text ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Sample:
    """Text that the dense sublayer has read: T real tokens."""

    states: Sequence[States]
    hidden: Tensor
    """(T, inner), what the exit reads"""
    targets: Tensor
    """(T, hidden), what comes out"""

    def texts(self) -> Tensor:
        """(T,) which sample each token is of."""
        return torch.cat([s.samples[:, None].expand_as(s.real)[s.real] for s in self.states])


@torch.no_grad()
def sample_of(sub: Sublayer, states: Sequence[States]) -> Sample:
    """Run the dense `sub` on `states`."""
    hidden = torch.cat([s.on_real(sub.hidden(s.dense, s.mask)) for s in states])
    return Sample(states, hidden, sub.exit(hidden))


@dataclass(frozen=True, eq=False)
class Probe:
    """What tells the price of an error at the output of a sublayer, on T tokens of several texts."""

    gradients: Tensor
    """(K, T, hidden)"""
    texts: Tensor
    """(T,) of the text that each token is of, 0, 1, ..."""

    @torch.no_grad()
    def loss(self, error: Tensor) -> float:
        """Price of the error (T, hidden); see the module."""
        moved = torch.stack([(g * error).sum(dim=1) for g in self.gradients])  # (K, T)
        count = int(self.texts.max()) + 1
        totals = moved.new_zeros(len(moved), count).index_add_(1, self.texts, moved)
        return float(totals.square().sum()) / (2 * count)


@dataclass(frozen=True, eq=False)
class Market:
    """All that pricing the options of one sublayer takes."""

    sub: Sublayer
    statistics: SublayerStatistics
    fit: Sample
    fit_weights: Tensor
    """(T,)"""
    gram: Tensor
    """(inner + 1, inner + 1) of what the exit reads in `fit`"""
    cross: Tensor
    """(hidden, inner + 1) of what comes out and that"""
    test: Sample
    probe: Probe


@torch.no_grad()
def market_of(
    sub: Sublayer, statistics: SublayerStatistics, fit: Sequence[States], test: Sequence[States], gradients: Tensor
) -> Market:
    """The market of `sub`, whose dense inputs are `fit` and `test`; `gradients` (K, T, hidden) of the latter."""
    fitted, tested = sample_of(sub, fit), sample_of(sub, test)
    weights = torch.cat([state.weights_of(statistics.weights.exit) for state in fit])
    sums = ExitSums(untouched_layout(sub.shape), fitted.hidden.device)
    sums.add(fitted.hidden, fitted.targets, weights)
    (gram,), (cross,) = sums.grams, sums.crosses
    _, texts = torch.unique(tested.texts(), return_inverse=True)
    return Market(sub, statistics, fitted, weights, gram, cross, tested, Probe(gradients, texts))


# --- one option ----------------------------------------------------------------------------------------------------


@torch.no_grad()
def price(market: Market, layout: Layout) -> float:
    """Loss of one option, in the quickest way that there is."""
    if layout.untouched:
        return 0.0
    if layout.tied and layout.group_count <= 1:
        return price_rectangle(market, layout)
    return price_by_running(market, layout)


@torch.no_grad()
def price_rectangle(market: Market, layout: Layout) -> float:
    """Loss of keeping some heads or neurons whole, or none: what they give does not change, nothing has to be run."""
    sub = market.sub
    columns = np.concatenate([*(block.columns for block in layout.exit_linear().blocks), [sub.shape.inner]])
    kept = torch.from_numpy(columns.astype(np.int64)).to(market.gram.device)
    dense = torch.cat([sub.exit.weight, sub.exit.bias[:, None]], dim=1)  # (hidden, inner + 1)
    solution = ridge(market.cross[:, kept], market.gram[kept[:, None], kept], dense[:, kept])
    found = torch.addmm(solution[:, -1], market.test.hidden[:, kept[:-1]], solution[:, :-1].T)
    return market.probe.loss(found - market.test.targets)


@torch.no_grad()
def price_by_running(market: Market, layout: Layout) -> float:
    """Loss of any layout that is not dropped.

    The entry is refitted to the Gram matrix of all calibration text, as its groups read far fewer inputs than that
    has tokens.
    """
    sub, stats = market.sub, market.statistics
    pruned = cut(sub, layout)
    if layout.partial_entry:
        refit_entry(sub, pruned, stats.entry_gram, stats.entry_gram)
    sums = ExitSums(layout, sub.exit.weight.device)
    states, tokens = market.fit.states, [int(state.real.sum()) for state in market.fit.states]
    known = zip(states, market.fit.targets.split(tokens), market.fit_weights.split(tokens), strict=True)
    for state, targets, weights in known:
        sums.add(state.on_real(pruned.hidden(state.dense, state.mask)), targets, weights)
    refit_exit(sub, pruned, sums)
    found = torch.cat([s.on_real(pruned(s.dense, s.mask)) for s in market.test.states])
    return market.probe.loss(found - market.test.targets)


# --- all options ---------------------------------------------------------------------------------------------------


@torch.no_grad()
def markets(
    model: nn.Module,
    sublayers: Sequence[Sublayer],
    statistics: Sequence[SublayerStatistics],
    fit: Sequence[Batch],
    test: Sequence[Batch],
) -> Iterator[Market]:
    """The market of every sublayer in turn, as the dense model reads the text; each is good until the next is made."""
    gradients: list[Tensor] = []
    fit_states, test_states = first_states(model, fit), first_states(model, test)
    for i, (sub, stats) in enumerate(zip(sublayers, statistics, strict=True)):
        if not gradients:
            gradients = exit_gradients(model, sublayers, test, range(i, min(i + AT_ONCE, len(sublayers))))
        release()
        yield market_of(sub, stats, fit_states, test_states, gradients.pop(0))
        whole = cut(sub, untouched_layout(sub.shape))
        fit_states, test_states = (advance(sub, whole, states) for states in (fit_states, test_states))


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
    total, done = sum(len(layouts) for layouts in candidates), 0
    found = markets(model, sublayers, statistics, fit, test)
    for layouts in candidates:
        market = next(found)
        options: list[Option] = []
        for n, layout in enumerate(layouts):
            step(done, total, f"pricing the {market.sub.name}, option {n + 1} of {len(layouts)}")
            options.append(Option(layout, price(market, layout)))
            done += 1
        tables.append(sorted(options, key=lambda option: (option.cost, option.loss)))
        del market  # or it would still be there while the next one is made
    return tables


def pricing_batches(
    calibration: Sequence[Example], seed: int, batch_size: int, tokens: int | None = None
) -> tuple[list[Batch], list[Batch]]:
    """Two disjoint samples of the calibration text: one to refit options on, one to measure them on."""
    order = np.random.default_rng(seed).permutation(len(calibration))
    lengths = np.cumsum([len(calibration[i].input_ids) for i in order])
    wanted = min(1.0, lengths[-1] / (FIT_TOKENS + TEST_TOKENS))
    split = max(1, int(np.searchsorted(lengths, wanted * FIT_TOKENS)))
    end = max(split + 1, int(np.searchsorted(lengths, wanted * (FIT_TOKENS + TEST_TOKENS), side="right")))
    fit, test = (np.sort(part).tolist() for part in (order[:split], order[split:end]))
    return (
        list(batches(calibration, batch_size, tokens=tokens, among=fit)),
        list(batches(calibration, batch_size, tokens=tokens, among=test)),
    )

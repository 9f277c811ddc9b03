"""`pgb-paper`: every matrix is permuted on its own into G equal blocks that tile it, and keeps 1/G of its weights.

This is PGB as its summaries tell it (Lim, Lee, Choi, arXiv 2502.03984): nothing ties the permutation of one matrix to
that of another, and heads and neurons all stay. The numbers of groups are ours to choose (our reading): each choice of
a matrix is priced at the output of its sublayer after the refit, the other matrices untouched; a sublayer's choices
are added up, and of all combinations those that nothing beats in both cost and loss are priced again together. They
are the sublayer's options in the knapsack over the network, beside dropping it and leaving it untouched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor, nn

from pgb_core.architectures import Sublayer
from pgb_core.batching import Batch
from pgb_core.grouping import FloatArray, blocks, equal_shares, group
from pgb_core.importance import SublayerStatistics
from pgb_core.layout import IntArray, MatrixLayout, SublayerShape, dropped_layout, untouched_layout
from pgb_core.matrixwise import MatrixwiseLayout, matrix_sizes, whole_matrix
from pgb_core.options import Option
from pgb_core.pricing import Market, markets, price
from pgb_core.progress import Step, silent

GROUP_COUNTS = (2, 3, 4, 6, 8, 12, 16, 24)
MOST_COMBINATIONS = 24
"""Of a sublayer's options that are priced together: what lies between them costs time and changes little."""
_STARTS = ("greedy", "spectral")


@dataclass(frozen=True, eq=False)
class Choice:
    """One way to group a matrix; `loss` is that of its sublayer when only this matrix is grouped."""

    layout: MatrixLayout
    loss: float


# --- what could be done --------------------------------------------------------------------------------------------


def tiled_matrices(
    shape: SublayerShape, importance: Mapping[str, Tensor], seed: int = 0, step: Step = silent
) -> dict[str, list[MatrixLayout]]:
    """For each matrix of a sublayer, untouched first, its grouping into each of `GROUP_COUNTS` that fits.

    Args:
        importance: (rows, columns) per matrix.
    """
    found: dict[str, list[MatrixLayout]] = {}
    for n, (name, size) in enumerate(matrix_sizes(shape).items()):
        scores = importance[name].double().cpu().numpy()
        counts = [groups for groups in GROUP_COUNTS if groups <= min(size)]
        found[name] = [whole_matrix(name, *size)]
        for groups in counts:
            step(n, len(shape.matrices), f"{name}, {groups} groups")
            found[name].append(tiled_matrix(name, scores, groups, seed))
    return found


def tiled_matrix(name: str, scores: FloatArray, groups: int, seed: int = 0) -> MatrixLayout:
    """`groups` blocks of equal size (to one) that tile the matrix, the most important blocks, rows and columns first.

    Args:
        scores: (rows, columns) importance, non-negative.
    """
    grouping = group(scores, equal_shares(groups), starts=_STARTS, seed=seed)
    rows, columns = zip(*blocks(scores, grouping), strict=True)
    return MatrixLayout(name, len(scores), scores.shape[1], rows, columns)


def all_tiled_matrices(
    sublayers: Sequence[Sublayer],
    importance: Sequence[Mapping[str, Tensor]],
    *,
    seed: int = 0,
    step: Step = silent,
) -> list[dict[str, list[MatrixLayout]]]:
    """Stage 2 for the whole network: `tiled_matrices` of every sublayer."""
    candidates: list[dict[str, list[MatrixLayout]]] = []
    one_thread = ThreadpoolController()  # as in options.all_candidates
    for i, (sub, scores) in enumerate(zip(sublayers, importance, strict=True)):

        def inner(done: int, total: int, message: str = "", i: int = i, name: str = sub.name) -> None:
            step(i * total + done, len(sublayers) * total, f"{name}: {message}")

        with one_thread.limit(limits=1):
            candidates.append(tiled_matrices(sub.shape, scores, seed, inner))
    return candidates


# --- what it loses -------------------------------------------------------------------------------------------------


@torch.no_grad()
def price_untied(
    model: nn.Module,
    sublayers: Sequence[Sublayer],
    statistics: Sequence[SublayerStatistics],
    candidates: Sequence[Mapping[str, Sequence[MatrixLayout]]],
    fit: Sequence[Batch],
    test: Sequence[Batch],
    *,
    step: Step = silent,
) -> list[list[Option]]:
    """The option table of every sublayer, cheapest first: dropped, combinations of its matrices' groups, untouched."""
    tables: list[list[Option]] = []
    for market, matrices in zip(markets(model, sublayers, statistics, fit, test), candidates, strict=True):
        i, name = len(tables), market.sub.name

        def inner(done: int, total: int, message: str = "", i: int = i, name: str = name) -> None:
            step(i * total + done, len(sublayers) * total, f"pricing the {name}, {message}")

        tables.append(_table(market, matrices, inner))
    return tables


def _table(market: Market, candidates: Mapping[str, Sequence[MatrixLayout]], step: Step) -> list[Option]:
    shape = market.sub.shape
    wholes = {name: layouts[0] for name, layouts in candidates.items()}
    total, done = sum(len(layouts) - 1 for layouts in candidates.values()) + MOST_COMBINATIONS, 0
    choices: list[list[Choice]] = []
    for name, layouts in candidates.items():
        choices.append([Choice(layouts[0], 0.0)])
        for layout in layouts[1:]:
            step(done, total, f"{name} in {len(layout.row_groups)} groups")
            alone = MatrixwiseLayout(shape, tuple({**wholes, name: layout}.values()))
            choices[-1].append(Choice(layout, price(market, alone)))
            done += 1
    options = [Option(layout, price(market, layout)) for layout in (dropped_layout(shape), untouched_layout(shape))]
    for n, combination in enumerate(combinations(shape, choices, MOST_COMBINATIONS)):
        step(done + n, total, f"combination {n + 1}")
        options.append(Option(combination, price(market, combination)))
    return sorted(options, key=lambda option: (option.cost, option.loss))


def combinations(shape: SublayerShape, choices: Sequence[Sequence[Choice]], most: int) -> list[MatrixwiseLayout]:
    """At most `most` combinations of one choice per matrix, cheapest first, that none beats in cost and summed loss.

    Where there are more, those nearest to equal steps of the logarithm of the cost. Untouched is not among them.

    Args:
        choices: per matrix, untouched first.
    """
    every = list(product(*choices))[1:]  # the first takes every matrix untouched
    costs = np.array([sum(choice.layout.kept for choice in combination) for combination in every])
    losses = np.array([sum(choice.loss for choice in combination) for combination in every])
    front = pareto_front(costs, losses)
    if len(front) > most:
        scale = np.log(costs[front])
        steps = np.linspace(scale[0], scale[-1], most)
        front = front[np.unique(np.abs(scale[:, None] - steps).argmin(axis=0))]
    return [MatrixwiseLayout(shape, tuple(choice.layout for choice in every[n])) for n in front]


def pareto_front(costs: IntArray, losses: FloatArray) -> IntArray:
    """Indices by rising cost of the points that no other one beats or equals in both."""
    order: IntArray = np.lexsort((losses, costs))
    before = np.minimum.accumulate(np.append(np.inf, losses[order][:-1]))
    return order[losses[order] < before]

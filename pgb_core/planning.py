"""Stages 1 to 3 put together: what is to be kept, by any method, at any target.

The scores and the option table do not depend on the target, and three methods share them: whoever asks for many targets
or methods (a sweep, a benchmark, a what-if) computes them once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import Tensor, nn

from pgb_core.architectures import Sublayer, encoder_sublayers
from pgb_core.baselines.heads_neurons import heads_neurons
from pgb_core.baselines.kprune import kprune
from pgb_core.baselines.kwon import kwon
from pgb_core.batching import Batch, Example, batches
from pgb_core.budget import Choice, allot, cost_of, table_of
from pgb_core.compensation import compensate
from pgb_core.constraints import Constraints
from pgb_core.errors import SpecError
from pgb_core.grouped import PrunedSublayer
from pgb_core.importance import SublayerStatistics, TokenWeights, collect_statistics, matrix_importance
from pgb_core.joint import Restored, Together, divergence_of_drops, settle
from pgb_core.layout import Layout, SublayerShape, rectangle_layout
from pgb_core.magnitude import magnitude_layouts
from pgb_core.memory import release
from pgb_core.options import TABLE_METHODS, Option, all_candidates
from pgb_core.pricing import price_candidates, pricing_batches
from pgb_core.progress import Step, silent
from pgb_core.untied import all_tiled_matrices, price_untied

BATCH = 32
"""Most texts of a batch."""
_MOST_TOKENS = {"cpu": 1024, "cuda": 16_384}
_ACTIVATION_BYTES = {"cpu": 2**29, "cuda": 2**33}
"""Most tokens of a batch by kind of device, and most memory: a backward pass holds the activations of all layers."""
GRAM_TOKENS = 20
"""Tokens behind an exit's Gram matrix, for each of its rows."""

Candidates = Sequence[Any]
"""Per sublayer: layouts, or, where the matrices have nothing to do with each other, layouts of each matrix."""
Tables = list[list[Option]]


@dataclass(frozen=True, eq=False)
class Scores:
    """Stage 1: what one pass over the calibration text says of the network.

    `statistics` may be cleared, to save memory, once there are tables: the refit takes the `weights` alone.
    """

    model: nn.Module
    sublayers: list[Sublayer]
    calibration: Sequence[Example]
    statistics: list[SublayerStatistics]
    importance: list[dict[str, Tensor]]
    weights: list[TokenWeights]

    @property
    def batches(self) -> list[Batch]:
        """The calibration text, from short to long."""
        return list(batches(self.calibration, BATCH, tokens=batch_tokens(self.sublayers)))

    def refit(self, layouts: Sequence[Layout], *, step: Step = silent) -> list[PrunedSublayer]:
        """Stage 4 for any layouts."""
        return compensate(self.model, self.sublayers, layouts, self.weights, self.batches, step=step)


def score(
    model: nn.Module,
    calibration: Sequence[Example],
    *,
    importance: str = "compensated",
    seed: int = 0,
    step: Step = silent,
) -> Scores:
    """Stage 1, importance; `importance` is a key of `spec.IMPORTANCES`."""
    sublayers = encoder_sublayers(model)
    statistics = collect_statistics(
        model,
        sublayers,
        list(batches(calibration, BATCH, tokens=batch_tokens(sublayers))),
        len(calibration),
        exit_every=exit_every(sum(len(example.input_ids) for example in calibration), len(calibration), sublayers),
        fisher=importance == "fisher",
        seed=seed,
        step=step,
    )
    release()
    found = [matrix_importance(sub, stats, importance) for sub, stats in zip(sublayers, statistics, strict=True)]
    release()
    return Scores(model, sublayers, calibration, statistics, found, [stats.weights for stats in statistics])


def batch_tokens(sublayers: Sequence[Sublayer]) -> int:
    """Most tokens of a batch, so that what a backward pass holds of it stays within bounds."""
    kind = "cuda" if sublayers[0].exit.weight.is_cuda else "cpu"
    of_a_token = 0
    for sub in sublayers:
        given, read, hidden = sub.shape.inner * len(sub.entries), sub.shape.inner, sub.shape.hidden
        of_a_token += 4 * (given + read + 4 * hidden)  # of `hidden` values: input, output, their sum and its norm
        of_a_token += 4 * (given + hidden)  # gradients of what the matrices give
    return max(1, min(_MOST_TOKENS[kind], _ACTIVATION_BYTES[kind] // of_a_token))


def exit_every(tokens: int, samples: int, sublayers: Sequence[Sublayer]) -> int:
    """One in how many samples makes `GRAM_TOKENS` tokens for each row of the largest Gram matrix."""
    wanted = GRAM_TOKENS * max(sub.shape.inner for sub in sublayers)
    return max(1, min(tokens // wanted, samples // 4))


# --- methods with an option table ----------------------------------------------------------------------------------


def candidates_of(method: str, scores: Scores, *, seed: int = 0, step: Step = silent) -> Candidates:
    """Stage 2, permutation and grouping: what `method`, and those that share its table, may do with each sublayer.

    For these the Gram matrices of what the exits read are used up: nobody needs them afterwards.

    Raises:
        ValueError: they were used up already.
    """
    if method in TABLE_METHODS:
        if any(not stats.exit_gram.numel() for stats in scores.statistics):
            raise ValueError("these scores have been asked for candidates before")
        found = all_candidates(scores.sublayers, scores.statistics, scores.importance, seed=seed, step=step)
        scores.statistics[:] = [replace(s, exit_gram=s.exit_gram.new_empty(0)) for s in scores.statistics]
        release()
        return found
    return all_tiled_matrices(scores.sublayers, scores.importance, seed=seed, step=step)


def tables_of(method: str, scores: Scores, candidates: Candidates, *, seed: int = 0, step: Step = silent) -> Tables:
    """Stage 3a: the prices of all that `candidates_of` the same method found."""
    price: Callable[..., Tables] = price_candidates if method in TABLE_METHODS else price_untied
    fit, test = pricing_batches(scores.calibration, seed, BATCH, batch_tokens(scores.sublayers))
    return price(scores.model, scores.sublayers, scores.statistics, candidates, fit, test, step=step)


@dataclass(frozen=True)
class Goal:
    """What a choice of options has to meet: the share to remove of `budget` (weights or flops), and the constraints."""

    sparsity: float
    budget: str = "weights"
    constraints: Constraints = field(default_factory=Constraints)


def choose_options(sublayers: Sequence[Sublayer], tables: Tables, method: str, goal: Goal) -> Choice:
    """Stage 3b: the best option per sublayer that `method` may choose, by index into `tables`.

    Raises:
        SpecError: the target is out of reach.
    """
    may_choose = TABLE_METHODS.get(method)
    offered = [
        [n for n, option in enumerate(table) if may_choose is None or may_choose(option.layout)] for table in tables
    ]
    offers = [
        table_of(sub.layer, [(table[n].layout, table[n].loss) for n in indices], goal.budget)
        for sub, table, indices in zip(sublayers, tables, offered, strict=True)
    ]
    choice = allot(offers, [goal.sparsity], goal.constraints)[0]
    return replace(choice, options=tuple(n[option] for n, option in zip(offered, choice.options, strict=True)))


def joint_drops(scores: Scores, *, seed: int = 0) -> Together:
    """What drops lose together, on the text that the prices are measured on."""
    fit, test = pricing_batches(scores.calibration, seed, BATCH, batch_tokens(scores.sublayers))
    return divergence_of_drops(scores.model, scores.sublayers, scores.weights, fit, test)


def choose_settled(
    sublayers: Sequence[Sublayer], tables: Tables, method: str, goal: Goal, together: Together
) -> tuple[Choice, list[Restored]]:
    """Stages 3b and 3c: as `choose_options`, but what is dropped together has been tried together.

    Raises:
        SpecError: the target is out of reach.
    """

    def choose(constraints: Constraints) -> Choice:
        return choose_options(sublayers, tables, method, replace(goal, constraints=constraints))

    return settle(choose, sublayers, tables, goal.constraints, together)


@dataclass(frozen=True)
class Prediction:
    """What a table says that a method would do at a goal."""

    loss: float
    """Sum of the prices, in units of the task's loss."""
    sparsity: float
    """Share of the encoder weights that goes."""
    grouped: int
    """Sublayers, as the next."""
    dropped: int


def predictions(
    sublayers: Sequence[Sublayer], tables: Tables, methods: Sequence[str], goal: Goal, together: Together
) -> dict[str, Prediction | None]:
    """What each of the `methods` that share these tables would do; None for one that cannot reach the goal."""
    found: dict[str, Prediction | None] = {}
    for method in methods:
        try:
            choice, _ = choose_settled(sublayers, tables, method, goal, together)
        except SpecError:
            found[method] = None
            continue
        layouts = [table[option].layout for table, option in zip(tables, choice.options, strict=True)]
        found[method] = Prediction(
            choice.loss,
            1 - sum(layout.cost for layout in layouts) / sum(sub.shape.weights for sub in sublayers),
            sum(layout.group_count > 1 for layout in layouts),
            sum(layout.dropped for layout in layouts),
        )
    return found


# --- methods without one -------------------------------------------------------------------------------------------


def by_baseline(
    method: str, scores: Scores, sparsity: float, *, budget: str = "weights", step: Step = silent
) -> list[PrunedSublayer]:
    """The pruned sublayers of one of `spec.BASELINES`, refitted as it says."""
    if method == "magnitude":
        return scores.refit(magnitude_layouts(scores.sublayers, 1 - sparsity), step=step)

    def unit_cost(shape: SublayerShape) -> int:
        return cost_of(rectangle_layout(shape, np.arange(1)), budget)

    total = sum(sub.shape.units * unit_cost(sub.shape) for sub in scores.sublayers)
    kept = round(total * (1 - sparsity))
    if method == "heads-neurons":
        layouts = heads_neurons(scores.model, scores.sublayers, scores.batches, kept, cost=unit_cost, step=step)
        return scores.refit(layouts, step=step)
    own_refit = {"kwon": kwon, "kprune": kprune}[method]
    return own_refit(scores.model, scores.sublayers, scores.batches, kept, cost=unit_cost, step=step)

"""Stage 3a, the option table: what could be done with each sublayer, what it costs and what it loses.

The loss of an option is the error it leaves at the sublayer's output AFTER its own refit,
1/2 sum_i q_i mean_t (y_ti - yhat_ti)^2, on dense inputs: mask, refit the entry matrices (from the Gram matrix of
all calibration text), run them, refit the exit, measure on text that the exit's refit has not seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor, nn

from pgb_core.architectures import Sublayer
from pgb_core.batching import Batch
from pgb_core.compensation import ExitSums, States, advance, first_states, refit_entry, refit_exit
from pgb_core.grouped import cut
from pgb_core.grouping import STARTS, FloatArray, group
from pgb_core.importance import SublayerStatistics, elimination_order
from pgb_core.layout import (
    EXIT_NAME,
    Group,
    IntArray,
    Layout,
    SublayerLayout,
    SublayerShape,
    dropped_layout,
    rectangle_layout,
    untouched_layout,
)
from pgb_core.progress import Step, silent

GROUP_COUNTS = (2, 3, 4, 6)
NEURON_SHARES = (1, 3 / 4, 1 / 2, 3 / 8, 1 / 4, 3 / 16, 1 / 8, 3 / 32, 1 / 16, 1 / 32, 1 / 64)


@dataclass(frozen=True, eq=False)
class Option:
    """One thing that can be done with a sublayer; `cost` in encoder weights, `loss` in units of the task's loss."""

    layout: Layout
    loss: float

    @property
    def cost(self) -> int:
        return self.layout.cost

    @property
    def label(self) -> str:
        return self.layout.label

    def to_dict(self) -> dict[str, Any]:
        return {
            "label": self.label,
            "tied": self.layout.tied,
            "groups": self.layout.group_count,
            "units": self.layout.kept_units,
            "cost": self.cost,
            "density": self.layout.density,
            "loss": self.loss,
        }


# --- what could be done --------------------------------------------------------------------------------------------


def candidate_layouts(
    shape: SublayerShape,
    method: str,
    importance: Mapping[str, Tensor],
    order: IntArray,
    seed: int = 0,
    step: Step = silent,
) -> list[SublayerLayout]:
    """The layouts that `method` may choose from, dropped and untouched included.

    Args:
        importance: (rows, columns) per matrix.
        order: (units,) the units in the order in which they are least missed.
    """
    layouts = [dropped_layout(shape), untouched_layout(shape)]
    if method == "structured":
        counts = unit_counts(shape, 1)
        layouts += [rectangle_layout(shape, np.sort(order[-n:])) for n in counts if n < shape.units]
    if method == "pgb":
        scores = unit_scores(shape, importance)
        for n, groups in enumerate(GROUP_COUNTS):
            step(n, len(GROUP_COUNTS), f"{groups} groups")
            layouts += grouped_layouts(shape, scores, order, groups, seed)
    return layouts


def unit_counts(shape: SublayerShape, groups: int) -> list[int]:
    """How many heads or neurons an option with `groups` groups may keep, the most first; multiples of `groups`."""
    if shape.kind == "attention":
        wanted = list(range(shape.units, 0, -1))
    else:
        wanted = [round(shape.units * share) for share in NEURON_SHARES]
    counts = {n // groups * groups for n in wanted}
    return sorted((n for n in counts if n >= groups), reverse=True)


def unit_scores(shape: SublayerShape, importance: Mapping[str, Tensor]) -> FloatArray:
    """(units, 2 * hidden): the importance of each unit's weights, by input it reads and by output it writes."""
    per_matrix = [importance[name].double() for name in shape.matrices if name != EXIT_NAME]
    read = torch.stack(per_matrix).sum(dim=0).unflatten(0, (shape.units, shape.width)).sum(dim=1)
    written = importance[EXIT_NAME].double().T.unflatten(0, (shape.units, shape.width)).sum(dim=1)
    scores: FloatArray = torch.cat([read, written], dim=1).cpu().numpy()
    return scores


def grouped_layouts(
    shape: SublayerShape, scores: FloatArray, order: IntArray, groups: int, seed: int = 0
) -> list[SublayerLayout]:
    """One layout per unit count: permutation and grouping of the units that are most missed.

    The most units come first; their grouping is the start for fewer, as good as new starts and twice as fast.
    """
    layouts: list[SublayerLayout] = []
    columns: IntArray | None = None
    for count in unit_counts(shape, groups) if groups <= shape.hidden else []:
        units = order[-count:]
        starts = STARTS if columns is None else ()
        grouping = group(scores[units], groups, sections=[shape.hidden] * 2, starts=starts, columns=columns, seed=seed)
        columns = grouping.columns
        layouts.append(_layout(shape, scores[units], units, grouping.units, columns, groups))
    return layouts


def _layout(
    shape: SublayerShape, scores: FloatArray, units: IntArray, unit_labels: IntArray, columns: IntArray, groups: int
) -> SublayerLayout:
    """The groups, the most important first, and in each the most important units, inputs and outputs first."""
    found: list[tuple[float, Group]] = []
    for g in range(groups):
        u, c = np.flatnonzero(unit_labels == g), np.flatnonzero(columns == g)
        block = scores[np.ix_(u, c)]
        u, c = u[np.argsort(-block.sum(axis=1), kind="stable")], c[np.argsort(-block.sum(axis=0), kind="stable")]
        read, written = c[c < shape.hidden], c[c >= shape.hidden] - shape.hidden
        found.append((float(block.sum()), Group(units[u], read, written)))
    return SublayerLayout(shape, tuple(group for _, group in sorted(found, key=lambda pair: -pair[0])))


# --- what it loses -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Sample:
    """Text on which options are refitted or measured: what the dense sublayer reads, and (T, hidden) what it gives."""

    states: Sequence[States]
    targets: Sequence[Tensor]


@torch.no_grad()
def sample_of(sub: Sublayer, states: Sequence[States]) -> Sample:
    """The dense outputs of `sub` on the real tokens of `states`."""
    return Sample(states, [sub.exit(sub.hidden(s.dense, s.mask))[s.real] for s in states])


@torch.no_grad()
def price(sub: Sublayer, layout: Layout, statistics: SublayerStatistics, fit: Sample, test: Sample) -> float:
    """Loss of one option: refitted on `fit`, measured on `test`, both with dense inputs."""
    if layout.untouched:
        return 0.0
    pruned = cut(sub, layout)
    if layout.partial_entry:  # a rectangle's entry reads everything: nothing to refit
        refit_entry(sub, pruned, statistics.entry_gram, statistics.entry_gram)
    sums = ExitSums(layout, sub.exit.weight.device)
    for state, target in zip(fit.states, fit.targets, strict=True):
        sums.add(pruned.hidden(state.dense, state.mask)[state.real], target)
    refit_exit(sub, pruned, sums)
    squares, tokens = torch.zeros_like(sub.exit.bias), 0
    for state, target in zip(test.states, test.targets, strict=True):
        squares += (pruned(state.dense, state.mask)[state.real] - target).square().sum(dim=0)
        tokens += len(target)
    return float((statistics.exit_sensitivity * squares).sum() / (2 * tokens))


@torch.no_grad()
def all_candidates(
    sublayers: Sequence[Sublayer],
    statistics: Sequence[SublayerStatistics],
    importance: Sequence[Mapping[str, Tensor]],
    method: str,
    *,
    seed: int = 0,
    step: Step = silent,
) -> list[list[SublayerLayout]]:
    """Stage 2 for the whole network: the candidate layouts of every sublayer."""
    candidates: list[list[SublayerLayout]] = []
    # grouping is many small products and clusterings: threads that wait for each other there only cost time
    one_thread = ThreadpoolController()
    for i, (sub, stats, scores) in enumerate(zip(sublayers, statistics, importance, strict=True)):
        step(i, len(sublayers), f"grouping the {sub.name}")

        def inner(done: int, total: int, message: str = "", i: int = i, name: str = sub.name) -> None:
            step(i, len(sublayers), f"{name}: {message}")

        order = elimination_order(sub.exit.weight, stats.exit_gram, stats.exit_sensitivity, sub.shape.width, step=inner)
        with one_thread.limit(limits=1):
            candidates.append(candidate_layouts(sub.shape, method, scores, order.cpu().numpy(), seed, inner))
    return candidates


@torch.no_grad()
def price_candidates(
    model: nn.Module,
    sublayers: Sequence[Sublayer],
    statistics: Sequence[SublayerStatistics],
    candidates: Sequence[Sequence[SublayerLayout]],
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

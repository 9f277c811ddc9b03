"""Stage 2 and 3a: what could be done with each sublayer, by which method, and at what cost.

Every sublayer may be untouched or dropped, keep some heads or neurons whole (a rectangle), or gather some in G groups.
The methods differ in which of these they may choose; they share the scores, the prices (`pricing`) and the refit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

from pgb_core.architectures import Sublayer
from pgb_core.grouping import STARTS, FloatArray, Grouping, blocks, equal_shares, group
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

SPLITS = (*(equal_shares(groups) for groups in (2, 3, 4)), (7 / 8, 1 / 8), (15 / 16, 1 / 16))
"""How groups share units, inputs and outputs; the unequal ones lie between two equal groups and the whole sublayer. Six
groups, or shares of 3/4 and 1/4, would lower the predicted loss by less than 1 % on tweets."""
FINE_STEP, COARSE_STEP = 0.85, 0.7
"""Ratio of one neuron count to the next larger one, of rectangles and of groups, which take longer to price."""
HEAD_STEP = 0.8
"""The same for heads in groups."""
FEWEST_NEURONS = 4

TABLE_METHODS: Mapping[str, Callable[[Layout], bool]] = {
    "pgb": lambda layout: layout.dropped or layout.untouched or layout.group_count > 1,
    "pgb-mixed": lambda layout: True,
    "structured": lambda layout: layout.group_count <= 1,
}
"""Methods that share one option table, each with the layouts that it may choose."""


def choosers(layout: Layout) -> list[str]:
    """The methods of `TABLE_METHODS` that may choose `layout`."""
    return [method for method, may_choose in TABLE_METHODS.items() if may_choose(layout)]


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
    importance: Mapping[str, Tensor],
    order: IntArray,
    seed: int = 0,
    step: Step = silent,
) -> list[SublayerLayout]:
    """The layouts that some method may choose, dropped and untouched included.

    Args:
        importance: (rows, columns) per matrix.
        order: (units,) the units in the order in which they are least missed.
    """
    layouts = [dropped_layout(shape), untouched_layout(shape)]
    layouts += [rectangle_layout(shape, np.sort(order[-n:])) for n in unit_counts(shape, 1)[1:]]
    scores = unit_scores(shape, importance)
    for n, shares in enumerate(SPLITS):
        step(n, len(SPLITS), f"{len(shares)} groups")
        layouts += grouped_layouts(shape, scores, order, shares, seed)
    return layouts


def unit_counts(shape: SublayerShape, groups: int) -> list[int]:
    """How many heads or neurons an option with `groups` groups may keep, the most first.

    All of them, then in equal ratios down to one head, or a handful of neurons, per group; rectangles of heads, which
    are quickly priced, in steps of one.
    """
    if shape.kind == "attention":
        ratio, least = (1.0, 1) if groups == 1 else (HEAD_STEP, groups)
    else:
        ratio, least = (FINE_STEP, FEWEST_NEURONS) if groups == 1 else (COARSE_STEP, FEWEST_NEURONS * groups)
    counts = [shape.units] if groups <= shape.units else []
    while counts and (fewer := min(counts[-1] - 1, int(counts[-1] * ratio))) >= least:
        counts.append(fewer)
    if shape.kind == "attention":
        return counts
    return sorted({n // groups * groups for n in counts}, reverse=True)


def unit_scores(shape: SublayerShape, importance: Mapping[str, Tensor]) -> FloatArray:
    """(units, 2 * hidden): the importance of each unit's weights, by input it reads and by output it writes."""
    per_matrix = [importance[name].double() for name in shape.matrices if name != EXIT_NAME]
    read = torch.stack(per_matrix).sum(dim=0).unflatten(0, (shape.units, shape.width)).sum(dim=1)
    written = importance[EXIT_NAME].double().T.unflatten(0, (shape.units, shape.width)).sum(dim=1)
    scores: FloatArray = torch.cat([read, written], dim=1).cpu().numpy()
    return scores


def grouped_layouts(
    shape: SublayerShape, scores: FloatArray, order: IntArray, shares: Sequence[float], seed: int = 0
) -> list[SublayerLayout]:
    """One layout per unit count: permutation and grouping of the units that are most missed.

    The most units come first; their grouping is the start for fewer, as good as new starts and twice as fast.
    """
    layouts: list[SublayerLayout] = []
    columns: IntArray | None = None
    groups = len(shares)
    for count in unit_counts(shape, groups) if groups <= shape.hidden else []:
        units = order[-count:]
        starts = STARTS if columns is None else ()
        grouping = group(scores[units], shares, sections=[shape.hidden] * 2, starts=starts, columns=columns, seed=seed)
        columns = grouping.columns
        layouts.append(_layout(shape, scores[units], units, grouping))
    return layouts


def _layout(shape: SublayerShape, scores: FloatArray, units: IntArray, grouping: Grouping) -> SublayerLayout:
    """The groups of `units`, whose columns are the inputs and, after these, the outputs."""
    return SublayerLayout(
        shape,
        tuple(
            Group(units[u], c[c < shape.hidden], c[c >= shape.hidden] - shape.hidden)
            for u, c in blocks(scores, grouping)
        ),
    )


@torch.no_grad()
def all_candidates(
    sublayers: Sequence[Sublayer],
    statistics: Sequence[SublayerStatistics],
    importance: Sequence[Mapping[str, Tensor]],
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

        order = elimination_order(sub.exit.weight, stats.exit_gram, stats.exit_metric, sub.shape.width, step=inner)
        with one_thread.limit(limits=1):
            candidates.append(candidate_layouts(sub.shape, scores, order.cpu().numpy(), seed, inner))
    return candidates

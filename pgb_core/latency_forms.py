"""Measures the tables of `latency_table.py`: every form of a sublayer, alone, in turns with all others.

Which units and which inputs a group has does not matter for its time, so each form is tried with random ones.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from pgb_core.architectures import Sublayer, all_shapes, encoder_sublayers, max_length
from pgb_core.evaluation import cpu_threads, device_name
from pgb_core.grouped import PrunedSublayer, cut, install
from pgb_core.grouping import sizes
from pgb_core.latency import DEFAULT, Forward, Shape, forward_of, random_inputs, take_turns
from pgb_core.latency_table import Form, LatencyTable, Setup, machine
from pgb_core.layout import Group, Kind, SublayerLayout, SublayerShape, dropped_layout
from pgb_core.options import FEWEST_NEURONS, SPLITS
from pgb_core.progress import Step, silent

POINTS = (1.0, 0.75, 0.5, 0.25, 0.1)
"""Shares of the units at which a form is measured; fewest come as well."""
ROUNDS = 7
CHECKS = 3
"""Whole models that the times are fitted to, and as many others that they are tried on."""
FORMS = ((1.0,), *SPLITS)


def form_layout(shape: SublayerShape, shares: Sequence[float], count: int) -> SublayerLayout:
    """`count` random units in groups of `shares`; one group reads and writes everything, in its order."""
    rng = np.random.default_rng(0)

    def parts(chosen: np.ndarray) -> list[np.ndarray]:
        return np.split(chosen, np.cumsum(sizes(len(chosen), shares))[:-1])

    whole = len(shares) == 1
    units = parts(np.sort(rng.permutation(shape.units)[:count]) if whole else rng.permutation(shape.units)[:count])
    columns, rows = (
        parts(np.arange(shape.hidden) if whole else rng.permutation(shape.hidden)) for _ in ("read", "written")
    )
    return SublayerLayout(shape, tuple(Group(*group) for group in zip(units, columns, rows, strict=True)))


def counts(shape: SublayerShape, groups: int) -> list[int]:
    """Numbers of units to measure, rising, from the fewest that an option may have to all."""
    fewest = groups * (1 if shape.kind == "attention" else FEWEST_NEURONS)
    found = {round(share * shape.units) // groups * groups for share in POINTS}
    return sorted(n for n in {*found, fewest} if fewest <= n <= shape.units)


def forms_of(sub: Sublayer) -> Iterator[tuple[tuple[Kind, tuple[float, ...], int], PrunedSublayer]]:
    """Every form that a sublayer of this shape is measured in, by kind, shares and units."""
    for shares in FORMS:
        for count in counts(sub.shape, len(shares)) if len(shares) <= sub.shape.hidden else []:
            yield (sub.shape.kind, shares, count), cut(sub, form_layout(sub.shape, shares, count))


def measure(model: nn.Module, shape: Shape = DEFAULT, *, step: Step = silent) -> LatencyTable:
    """The table of a dense model's shape, on its device: medians of rounds in which all forms take turns.

    Inside a model a sublayer takes longer than alone, where its weights and inputs stay in the cache: about an eighth
    on the CPU it was tried on. So some whole models of mixed forms take part: one factor fits the times of the forms to
    some of them, and what the table then predicts of the others tells its error.
    """
    shape = Shape(shape.batch, min(shape.length, max_length(model)))
    sublayers = encoder_sublayers(model)
    inputs = random_inputs(model, shape)
    device = inputs["input_ids"].device
    states = torch.randn(
        shape.batch, shape.length, sublayers[0].shape.hidden, generator=torch.Generator().manual_seed(0)
    )
    empty = [cut(sub, dropped_layout(sub.shape)) for sub in sublayers]
    whole = {"dense": model, "base": install(model, sublayers, empty)}
    mixed = {f"mixed {n}": mixed_layouts(sublayers, n) for n in range(2 * CHECKS)}
    for name, layouts in mixed.items():
        pruned = [cut(sub, layout) for sub, layout in zip(sublayers, layouts, strict=True)]
        whole[name] = install(model, sublayers, pruned)
    tried = {str(name): _alone(pruned) for sub in sublayers[:2] for name, pruned in forms_of(sub)}
    forwards = {**{name: forward_of(module) for name, module in whole.items()}, **tried}
    alone = {"states": states.to(device)}
    given = {name: inputs if name in whole else alone for name in forwards}
    threads = cpu_threads()
    times = take_turns(forwards, given, threads=threads, rounds=ROUNDS, step=step)
    medians = {name: float(np.median(values)) for name, values in times.items()}
    table = LatencyTable(
        Setup(machine(), device_name(device), threads, shape.batch, shape.length, **sizes_of(model)),
        time.time(),
        medians["dense"],
        medians["base"],
        0.0,
        {sub.shape.kind: _forms(sub.shape, medians) for sub in sublayers[:2]},
    )
    return fitted(table, [(layouts, medians[name]) for name, layouts in mixed.items()])


def fitted(table: LatencyTable, measured: Sequence[tuple[Sequence[SublayerLayout], float]]) -> LatencyTable:
    """`table` with its forms scaled to the first half of the `measured` models, and its error on the others."""
    half = len(measured) // 2
    ratios = [(ms - table.base_ms) / (predicted(table, layouts) - table.base_ms) for layouts, ms in measured[:half]]
    scale = float(np.median(ratios))
    forms = {
        kind: tuple(replace(form, milliseconds=tuple(scale * ms for ms in form.milliseconds)) for form in entries)
        for kind, entries in table.forms.items()
    }
    scaled = replace(table, forms=forms)
    return replace(scaled, error=max(abs(predicted(scaled, layouts) / ms - 1) for layouts, ms in measured[half:]))


def mixed_layouts(sublayers: Sequence[Sublayer], seed: int) -> list[SublayerLayout]:
    """A random form of a random size for every sublayer, one in eight dropped."""
    rng = np.random.default_rng(seed)
    layouts = []
    for sub in sublayers:
        shares = FORMS[int(rng.integers(len(FORMS)))]
        shares = shares if len(shares) <= min(sub.shape.units, sub.shape.hidden) else (1.0,)
        fewest = counts(sub.shape, len(shares))[0]
        count = int(rng.integers(fewest, sub.shape.units + 1))
        layouts.append(dropped_layout(sub.shape) if rng.random() < 1 / 8 else form_layout(sub.shape, shares, count))
    return layouts


def predicted(table: LatencyTable, layouts: Sequence[SublayerLayout]) -> float:
    """Milliseconds that a table predicts of a model."""
    total = table.base_ms
    for layout in layouts:
        if units := layout.kept_units:
            fill = layout.density * layout.shape.units / units
            total += table.sublayer_ms(layout.shape.kind, layout.group_count, fill, units)
    return total


def sizes_of(model: nn.Module) -> dict[str, int]:
    """`layers`, `hidden`, `heads` and `neurons` of a dense model, as `Record.sizes`."""
    attention, feed_forward, *_ = shapes = all_shapes(model.config)
    return {
        "layers": len(shapes) // 2,
        "hidden": attention.hidden,
        "heads": attention.units,
        "neurons": feed_forward.units,
    }


def _alone(pruned: PrunedSublayer) -> Forward:
    return torch.inference_mode()(lambda inputs: pruned(inputs["states"], None))


def _forms(shape: SublayerShape, medians: dict[str, float]) -> tuple[Form, ...]:
    found = []
    for shares in FORMS:
        units = [count for count in counts(shape, len(shares)) if str((shape.kind, shares, count)) in medians]
        if units:
            milliseconds = tuple(medians[str((shape.kind, shares, count))] for count in units)
            found.append(Form(len(shares), sum(share**2 for share in shares), tuple(units), milliseconds))
    return tuple(found)

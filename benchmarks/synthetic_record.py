"""A scored record of any shape without a model: the options of a real one, made up prices.

Every option that `options.candidate_layouts` would offer is there with its true cost; its loss rises as weights go,
for each sublayer at a rate of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pgb_core import scored
from pgb_core.architectures import sublayer_shapes
from pgb_core.budget import LENGTH, cost_of
from pgb_core.latency_forms import form_layout
from pgb_core.layout import SublayerLayout, SublayerShape, dropped_layout, rectangle_layout, untouched_layout
from pgb_core.options import SPLITS, Option, choosers, unit_counts

BASE = {"layers": 12, "hidden": 768, "heads": 12, "neurons": 3072}
"""BERT-base."""


def candidates(shape: SublayerShape) -> Iterator[SublayerLayout]:
    """What may be done with a sublayer, in random places."""
    yield dropped_layout(shape)
    yield untouched_layout(shape)
    for count in unit_counts(shape, 1)[1:]:
        yield rectangle_layout(shape, np.arange(count))
    for shares in SPLITS:
        if len(shares) <= min(shape.hidden, shape.units):
            yield from (form_layout(shape, shares, count) for count in unit_counts(shape, len(shares)))


def table(shape: SublayerShape, scale: float, rng: np.random.Generator) -> list[dict[str, Any]]:
    """The options of a sublayer, cheapest first; untouched loses nothing, dropped `scale` nats."""
    options = []
    for layout in candidates(shape):
        noise = 1.0 if layout.dropped else rng.uniform(0.85, 1.15)
        option = Option(layout, scale * (1 - layout.density) ** 2.5 * noise)
        options.append(
            {
                **option.to_dict(),
                "flops": cost_of(layout, "flops"),
                "methods": choosers(layout),
                "group_units": [len(group.units) for group in layout.groups],
            }
        )
    return sorted(options, key=lambda option: (option["cost"], option["loss"]))


def make_record(runs_dir: Path, sizes: dict[str, int] = BASE, seed: int = 0, task: str = "bbc-news") -> str:
    """Write a record of an encoder of `sizes` below `runs_dir`; returns its key."""
    rng = np.random.default_rng(seed)
    shapes = sublayer_shapes(sizes["hidden"], sizes["heads"], sizes["neurons"])
    entries = [
        (layer, shape, table(shape, float(rng.lognormal(-5, 1.2)), rng))
        for layer in range(sizes["layers"])
        for shape in shapes
    ]
    encoder = sum(shape.weights for _, shape, _ in entries)
    others = 31_000 * sizes["hidden"]
    flops = sum(max(option["flops"] for option in options) for _, _, options in entries)
    spec = {
        "checkpoint": "demo",
        "checkpoint_source": "demo",
        "fingerprint": f"{seed:064x}",
        "task": task,
        "importance": "compensated",
        "seed": seed,
        "calibration_samples": 1024,
        "max_length": LENGTH,
        "device": "cpu",
    }
    dense = {"parameters": encoder + others, "flops": flops, "bytes": 4 * (encoder + others)}
    return scored.write(runs_dir, spec, dense, entries)

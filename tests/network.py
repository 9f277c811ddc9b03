"""The tiny checkpoint taken apart for the tests of the stages: model, sublayers, examples and statistics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pgb_core import checkpoints, evaluation, tasks
from pgb_core.architectures import Sublayer, encoder_sublayers
from pgb_core.batching import Batch, Example, batches, encode
from pgb_core.grouped import PrunedSublayer, cut, install
from pgb_core.importance import SublayerStatistics, TokenWeights, collect_statistics, matrix_importance
from pgb_core.layout import Group, Kind, Layout, MatrixLayout, SublayerLayout, SublayerShape, rectangle_layout
from pgb_core.magnitude import magnitude_layouts
from pgb_core.matrixwise import MatrixwiseLayout, whole_matrix
from pgb_core.options import all_candidates
from pgb_core.saving import save_pruned
from pgb_core.untied import tiled_matrix


@dataclass(frozen=True, eq=False)
class Network:
    model: nn.Module
    sublayers: list[Sublayer]
    examples: list[Example]
    statistics: list[SublayerStatistics]
    importance: list[dict[str, torch.Tensor]]
    candidates: list[list[SublayerLayout]]

    @property
    def weights(self) -> list[TokenWeights]:
        return [stats.weights for stats in self.statistics]

    @property
    def equal_weights(self) -> TokenWeights:
        """As if every token counted the same."""
        ones = torch.ones_like(self.statistics[0].weights.entry)
        return TokenWeights(ones, ones)

    @property
    def batches(self) -> list[Batch]:
        return list(batches(self.examples, 16))

    def batches_of(self, samples: Iterable[int]) -> list[Batch]:
        return list(batches(self.examples, 16, among=list(samples)))

    @torch.no_grad()
    def divergence(self, pruned: Sequence[PrunedSublayer], batches: Sequence[Batch]) -> float:
        """Mean KL divergence of the pruned model's predictions from the dense ones, in nats."""
        smaller, total = install(self.model, self.sublayers, pruned), 0.0
        for batch in batches:
            p, q = (model(**batch.inputs).logits.double().log_softmax(dim=1) for model in (self.model, smaller))
            total += float((p.exp() * (p - q)).sum())
        return total / sum(len(batch.indices) for batch in batches)


def take_apart(checkpoint: Path, data: Path, samples: int = 96) -> Network:
    model = checkpoints.load_model(checkpoint)
    rows = tasks.load_task("csv", id2label=evaluation.labels_of(model), train_file=data).train
    examples = encode(rows, checkpoints.load_tokenizer(checkpoint), 32)[:samples]
    sublayers = encoder_sublayers(model)
    statistics = collect_statistics(model, sublayers, list(batches(examples, 16)), len(examples), fisher=True)
    importance = [matrix_importance(s, t, "compensated") for s, t in zip(sublayers, statistics, strict=True)]
    candidates = all_candidates(sublayers, statistics, importance)
    return Network(model, sublayers, examples, statistics, importance, candidates)


def shape(kind: Kind = "feed_forward", hidden: int = 12, units: int = 8, width: int = 1) -> SublayerShape:
    return SublayerShape(kind, hidden, units, width)


def some_layouts(network: Network, seed: int) -> list[SublayerLayout]:
    """A random candidate of each sublayer; seed 0 has rectangles and outputs in no group."""
    if seed == 0:
        partial = Group(np.array([3, 1]), np.array([5, 9, 2]), np.array([0, 31, 7]))
        other = Group(np.array([0]), np.array([1, 30]), np.array([2, 4]))
        return [
            SublayerLayout(sub.shape, (partial, other)) if i % 2 else rectangle_layout(sub.shape, np.array([0, 2]))
            for i, sub in enumerate(network.sublayers)
        ]
    rng = np.random.default_rng(seed)
    return [candidates[rng.integers(len(candidates))] for candidates in network.candidates]


def untied_layouts(network: Network, seed: int) -> list[MatrixwiseLayout]:
    """Every matrix permuted on its own into a random number of groups, or left whole."""
    rng = np.random.default_rng(seed)

    def tiled(name: str, scores: torch.Tensor) -> MatrixLayout:
        groups = int(rng.choice((1, 2, 3, 4, 8)))
        return tiled_matrix(name, scores.double().numpy(), groups) if groups > 1 else whole_matrix(name, *scores.shape)

    return [
        MatrixwiseLayout(sub.shape, tuple(tiled(name, scores[name]) for name in sub.shape.matrices))
        for sub, scores in zip(network.sublayers, network.importance, strict=True)
    ]


def layouts_of_all_kinds(network: Network) -> dict[str, list[Layout]]:
    """Tied groups, untied ones and zeros, one layout for each sublayer; and all three in one network."""
    kinds: dict[str, list[Layout]] = {
        "tied": [*some_layouts(network, 3)],
        "untied": [*untied_layouts(network, 0)],
        "zeros": [*magnitude_layouts(network.sublayers, 0.4)],
    }
    return kinds | {"mixed": [kinds["untied"][0], kinds["zeros"][1], kinds["tied"][2], kinds["untied"][3]]}


def save_network(network: Network, layouts: Sequence[Layout], path: Path) -> nn.Module:
    """The network cut to `layouts`, and saved in folder `path`, without a tokenizer."""
    modules = [cut(sub, layout) for sub, layout in zip(network.sublayers, layouts, strict=True)]
    model = install(network.model, network.sublayers, modules)
    save_pruned(model, [(sub.layer, layout) for sub, layout in zip(network.sublayers, layouts, strict=True)], path)
    return model

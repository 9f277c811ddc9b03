"""The tiny checkpoint taken apart for the tests of the stages: model, sublayers, examples and statistics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from pgb_core import checkpoints, evaluation, tasks
from pgb_core.architectures import Sublayer, encoder_sublayers
from pgb_core.batching import Batch, Example, batches, encode
from pgb_core.grouped import PrunedSublayer, install
from pgb_core.importance import SublayerStatistics, TokenWeights, collect_statistics, matrix_importance
from pgb_core.layout import Kind, SublayerLayout, SublayerShape
from pgb_core.options import all_candidates


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
    def batches(self) -> list[Batch]:
        return list(batches(self.examples, 16))

    def batches_of(self, samples: Iterable[int]) -> list[Batch]:
        return list(batches(self.examples, 16, among=list(samples)))

    @torch.no_grad()
    def divergence(self, pruned: Sequence[PrunedSublayer]) -> float:
        """Mean KL divergence of the pruned model's predictions from the dense ones, in nats."""
        smaller, total = install(self.model, self.sublayers, pruned), 0.0
        for batch in self.batches:
            p, q = (model(**batch.inputs).logits.log_softmax(dim=1) for model in (self.model, smaller))
            total += float((p.exp() * (p - q)).sum())
        return total / len(self.examples)


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

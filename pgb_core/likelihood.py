"""What the predictions of a head mean: a distribution, with its loss, its divergence and its second-order directions.

Pruning asks one thing of a head: how much a change of its predictions matters. For every head that is the Kullback-
Leibler divergence of the changed distribution from the dense one. Its second order is 1/2 d^T F d with d the change and
F the Fisher information of the predictions (Martens, New insights and perspectives on the natural gradient method,
2020, section 9), and directions v_k with sum_k v_k v_k^T = F turn it into 1/2 sum_k (v_k . d)^2:

- classes: softmax, F = diag(p) - p p^T over the labels;
- a regression: a Gaussian of unit variance around the number, F = 1, the divergence half the squared difference;
- the span of an answer: two softmaxes over the real tokens, of its start and of its end, which are independent: F has
  one block for each. There are as many exact directions as tokens, so a few random ones stand for them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from pgb_core.architectures import head_of
from pgb_core.batching import Batch
from pgb_core.families import Head
from pgb_core.metrics import compute_score

Reduction = Literal["mean", "sum"]

DRAWS = 4
"""Random directions where the exact ones are more than that."""


class Likelihood(ABC):
    """One kind of head. Predictions have the samples first; masks (B, L) are 1 on real tokens, as in a `Batch`."""

    @abstractmethod
    def size(self, labels: int, length: int) -> tuple[int, ...]:
        """Shape of one sample's predictions, of a model with so many labels and texts of so many tokens."""

    @abstractmethod
    def random_direction(self, predictions: Tensor, signs: Tensor, mask: Tensor) -> Tensor:
        """V like the predictions, with E[v v^T] = F for each sample over random signs.

        Args:
            signs: (B, *size) of -1 and 1; of spans, maybe for more tokens than these texts have.
        """

    @abstractmethod
    def loss(self, predictions: Tensor, labels: Tensor, mask: Tensor, reduction: Reduction = "mean") -> Tensor:
        """Negative log-likelihood of the labels, up to a constant; its mean or sum over samples."""

    @abstractmethod
    def divergence(self, dense: Tensor, other: Tensor, mask: Tensor) -> Tensor:
        """(B,) Kullback-Leibler divergence of `other` from `dense`, in nats."""

    @abstractmethod
    def points(self, predictions: Tensor, labels: Tensor) -> Tensor:
        """(N,) how good each answer is by itself, higher is better: what two models are compared by in pairs."""

    def directions(self, predictions: Tensor, signs: Tensor, mask: Tensor) -> Tensor:
        """(K, *predictions) v_k with sum_k v_k v_k^T = F, exactly where that takes few, else in expectation.

        Args:
            signs: (DRAWS, B, *size).
        """
        return torch.stack([self.random_direction(predictions, e, mask) for e in signs]) / math.sqrt(len(signs))

    def score(self, metric: str, predictions: Tensor, labels: Tensor, positive: int = 1) -> float:
        """`metric` of predictions (N, *size) on labels, as `compute_score`, where single answers suffice for it."""
        return compute_score(metric, self.answers(predictions).numpy(), labels.numpy(), positive)

    def answers(self, predictions: Tensor) -> Tensor:
        """What the model says: (N,) label ids or values, (N, 2) first and last token."""
        return predictions.argmax(dim=-1)


class Classes(Likelihood):
    """(B, labels) logits of one label."""

    def size(self, labels: int, length: int) -> tuple[int, ...]:
        return (labels,)

    def random_direction(self, predictions: Tensor, signs: Tensor, mask: Tensor) -> Tensor:
        return _softmax_direction(predictions, signs)

    def directions(self, predictions: Tensor, signs: Tensor, mask: Tensor) -> Tensor:
        labels = predictions.shape[-1]
        if labels > DRAWS:
            return super().directions(predictions, signs, mask)
        p = predictions.softmax(dim=-1)
        units = torch.eye(labels, dtype=p.dtype, device=p.device)
        exact: Tensor = p.T.sqrt()[:, :, None] * (units[:, None] - p)  # v_k = sqrt(p_k) (e_k - p)
        return exact

    def loss(self, predictions: Tensor, labels: Tensor, mask: Tensor, reduction: Reduction = "mean") -> Tensor:
        return functional.cross_entropy(predictions, labels, reduction=reduction)

    def divergence(self, dense: Tensor, other: Tensor, mask: Tensor) -> Tensor:
        return _softmax_divergence(dense, other)

    def points(self, predictions: Tensor, labels: Tensor) -> Tensor:
        """1 for a right answer, else 0."""
        return (self.answers(predictions) == labels).float()


class Gaussian(Likelihood):
    """(B, 1) means of a Gaussian with unit variance."""

    def size(self, labels: int, length: int) -> tuple[int, ...]:
        return (1,)

    def random_direction(self, predictions: Tensor, signs: Tensor, mask: Tensor) -> Tensor:
        return signs

    def directions(self, predictions: Tensor, signs: Tensor, mask: Tensor) -> Tensor:
        return torch.ones_like(predictions)[None]

    def loss(self, predictions: Tensor, labels: Tensor, mask: Tensor, reduction: Reduction = "mean") -> Tensor:
        return functional.mse_loss(predictions[:, 0], labels, reduction=reduction) / 2

    def divergence(self, dense: Tensor, other: Tensor, mask: Tensor) -> Tensor:
        return (other - dense).square()[:, 0] / 2

    def points(self, predictions: Tensor, labels: Tensor) -> Tensor:
        """Less the squared error."""
        return -(self.answers(predictions) - labels).square()

    def answers(self, predictions: Tensor) -> Tensor:
        return predictions[:, 0]


class Spans(Likelihood):
    """(B, L, 2) logits of an answer's start and end at each token."""

    def size(self, labels: int, length: int) -> tuple[int, ...]:
        return (length, 2)

    def random_direction(self, predictions: Tensor, signs: Tensor, mask: Tensor) -> Tensor:
        logits, fitting = _by_end(_real(predictions, mask)), _by_end(signs[:, : predictions.shape[1]])
        return _softmax_direction(logits, fitting).transpose(1, 2)

    def loss(self, predictions: Tensor, labels: Tensor, mask: Tensor, reduction: Reduction = "mean") -> Tensor:
        """The sum for start and end; `labels` (B, 2) are their tokens."""
        logits = _real(predictions, mask)
        ends = (functional.cross_entropy(logits[..., k], labels[:, k], reduction=reduction) for k in (0, 1))
        return torch.stack(list(ends)).sum()

    def divergence(self, dense: Tensor, other: Tensor, mask: Tensor) -> Tensor:
        p, q = (_by_end(_real(logits, mask)) for logits in (dense, other))
        return _softmax_divergence(p, q).sum(dim=1)

    def points(self, predictions: Tensor, labels: Tensor) -> Tensor:
        """F1 of the tokens of the span said and the right one; the texts of answers are compared in `squad`."""
        said = self.answers(predictions)
        first, last = torch.maximum(said[:, 0], labels[:, 0]), torch.minimum(said[:, 1], labels[:, 1])
        common = (last - first + 1).clamp(min=0)
        lengths = (said[:, 1] - said[:, 0] + 1) + (labels[:, 1] - labels[:, 0] + 1)
        return 2 * common / lengths

    def score(self, metric: str, predictions: Tensor, labels: Tensor, positive: int = 1) -> float:
        """Mean of the points, whatever the metric: near enough to its F1 to choose between states of a model."""
        return float(self.points(predictions, labels).mean())

    def answers(self, predictions: Tensor) -> Tensor:
        """The likeliest start, and the likeliest end from there on."""
        first = predictions[..., 0].argmax(dim=1)
        before = torch.arange(predictions.shape[1], device=first.device) < first[:, None]
        return torch.stack([first, predictions[..., 1].masked_fill(before, -math.inf).argmax(dim=1)], dim=1)


_KINDS: dict[Head, Likelihood] = {
    "classification": Classes(),
    "regression": Gaussian(),
    "question_answering": Spans(),
}


def likelihood_of(model: nn.Module) -> Likelihood:
    """That of the model's head."""
    return _KINDS[head_of(model)]


def random_signs(model: nn.Module, batches: Sequence[Batch], samples: int, seed: int, draws: int = 1) -> Tensor:
    """(draws, samples, *size) of -1 and 1, the same for a sample whatever batch of `batches` it comes in."""
    labels: int = model.config.num_labels  # type: ignore[union-attr,assignment]
    longest = max(batch.input_ids.shape[1] for batch in batches)
    shape = (draws, samples, *likelihood_of(model).size(labels, longest))
    return torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed)).float() * 2 - 1


# --- softmaxes over the last dimension -----------------------------------------------------------------------------


def _softmax_direction(logits: Tensor, signs: Tensor) -> Tensor:
    """V = sqrt(p) e - p (sqrt(p) . e): over random signs e, E[v v^T] = diag(p) - p p^T."""
    p = logits.softmax(dim=-1)
    root = p.sqrt() * signs
    return root - p * root.sum(dim=-1, keepdim=True)


def _softmax_divergence(dense: Tensor, other: Tensor) -> Tensor:
    """Over the last dimension; what is impossible in both, a token of padding, counts for nothing."""
    p, q = dense.log_softmax(dim=-1), other.log_softmax(dim=-1)
    return (p.exp() * (p - q).masked_fill(p.isneginf(), 0.0)).sum(dim=-1)


def _real(logits: Tensor, mask: Tensor) -> Tensor:
    """(B, L, 2) with -inf on padding, so that it has no share in the softmax."""
    return logits.masked_fill(mask[..., None] == 0, -math.inf)


def _by_end(values: Tensor) -> Tensor:
    """(B, L, 2) -> (B, 2, L)"""
    return values.transpose(1, 2)

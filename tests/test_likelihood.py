"""Every kind of head: its directions give the second order of its divergence, which is that of its loss."""

from __future__ import annotations

from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pgb_core.batching import Example, batches
from pgb_core.likelihood import DRAWS, Classes, Gaussian, Likelihood, Spans, likelihood_of, random_signs
from tests.network import Network

HEADS = {"classes": (Classes(), (5,)), "regression": (Gaussian(), (1,)), "spans": (Spans(), (6, 2))}
seeds = st.integers(0, 10_000)


def some(head: str, seed: int, samples: int = 3) -> tuple[Likelihood, Tensor, Tensor, Tensor]:
    """Predictions, a direction to change them in, and a mask under which the last sample has two tokens of padding."""
    likelihood, size = HEADS[head]
    generator = torch.Generator().manual_seed(seed)
    predictions, change = torch.randn(2, samples, *size, generator=generator, dtype=torch.float64)
    mask = torch.ones(samples, 6)
    mask[-1, -2:] = 0
    return likelihood, predictions, change, mask


def information(likelihood: Likelihood, predictions: Tensor, mask: Tensor) -> Tensor:
    """(N, S, S) Hessian of the divergence at the predictions themselves: the Fisher information of the S of each."""
    samples = len(predictions)

    def one(n: int) -> Tensor:
        def from_dense(values: Tensor) -> Tensor:
            changed = values.reshape(1, *predictions.shape[1:])
            return likelihood.divergence(predictions[n : n + 1], changed, mask[n : n + 1])[0]

        return torch.autograd.functional.hessian(from_dense, predictions[n].flatten())  # type: ignore[no-any-return]

    return torch.stack([one(n) for n in range(samples)])


@pytest.mark.parametrize("head", HEADS)
@settings(max_examples=10)
@given(seeds)
def test_half_the_sum_of_squared_directions_is_the_divergence_of_a_small_change(head: str, seed: int) -> None:
    """With the mean over all the signs that a direction can be drawn with."""
    likelihood, predictions, change, mask = some(head, seed)
    step = 1e-4 * change
    size = int(np.prod(predictions.shape[1:]))
    signs = torch.tensor(list(product([-1.0, 1.0], repeat=size)), dtype=torch.float64)
    for n in range(len(predictions)):
        every = predictions[n : n + 1].expand(len(signs), *predictions.shape[1:])
        masks = mask[n : n + 1].expand(len(signs), -1)
        vs = likelihood.random_direction(every, signs.reshape(every.shape), masks).flatten(1)
        second = float((vs @ step[n].flatten()).square().mean()) / 2
        divergence = float(
            likelihood.divergence(predictions[n : n + 1], predictions[n : n + 1] + step[n], mask[n : n + 1])
        )
        assert second == pytest.approx(divergence, rel=1e-2, abs=1e-16)


@pytest.mark.parametrize("head", HEADS)
@settings(max_examples=10)
@given(seeds)
def test_the_directions_have_the_information_of_the_divergence(head: str, seed: int) -> None:
    likelihood, predictions, _, mask = some(head, seed, samples=1)
    signs = torch.randint(0, 2, (DRAWS, 4000, *predictions.shape[1:]), generator=torch.Generator().manual_seed(seed))
    many = predictions.expand(4000, *predictions.shape[1:])
    vs = likelihood.directions(many, signs.double() * 2 - 1, mask.expand(4000, -1)).flatten(2)
    mean = torch.einsum("kni,knj->ij", vs, vs) / 4000
    assert torch.allclose(mean, information(likelihood, predictions, mask)[0], atol=2e-2)


@given(st.integers(2, DRAWS), seeds)
def test_few_classes_have_exact_directions(labels: int, seed: int) -> None:
    logits = torch.randn(3, labels, generator=torch.Generator().manual_seed(seed))
    v = Classes().directions(logits, torch.zeros(DRAWS, 3, labels), torch.ones(3, 4))
    assert len(v) == labels
    for n in range(3):
        p = logits[n].softmax(dim=0)
        assert torch.allclose(v[:, n].T @ v[:, n], torch.diag(p) - torch.outer(p, p), atol=1e-6)


def test_a_regression_has_one_exact_direction() -> None:
    predictions = torch.randn(3, 1)
    assert torch.equal(
        Gaussian().directions(predictions, torch.zeros(DRAWS, 3, 1), torch.ones(3, 4)), torch.ones(1, 3, 1)
    )


@given(seeds)
def test_start_and_end_are_independent_and_padding_has_no_share(seed: int) -> None:
    likelihood, predictions, _, mask = some("spans", seed)
    whole = information(likelihood, predictions, mask)
    by_end = whole.unflatten(1, (6, 2)).unflatten(3, (6, 2))
    assert by_end[:, :, 0, :, 1].abs().max() < 1e-9
    assert by_end[-1, 4:].abs().max() == 0
    signs = torch.ones(3, 9, 2)  # for longer texts than these
    assert likelihood.random_direction(predictions, signs, mask)[-1, 4:].abs().max() == 0


@pytest.mark.parametrize("head", HEADS)
@settings(max_examples=10)
@given(seeds)
def test_the_loss_is_the_likelihood_whose_divergence_is_measured(head: str, seed: int) -> None:
    """The expected loss of labels drawn from the dense prediction grows by the divergence."""
    likelihood, predictions, change, mask = some(head, seed)
    other = predictions + change
    if head == "regression":  # over labels around the prediction: only the mean counts
        labels = [(predictions[:, 0] + noise, 0.5 * torch.ones(3).double()) for noise in (-1.0, 1.0)]
    elif head == "classes":
        p = predictions.softmax(1)
        labels = [(torch.full((3,), label), p[:, label]) for label in range(5)]
    else:
        p = predictions.masked_fill(mask[..., None] == 0, -torch.inf).softmax(1)
        labels = [(torch.tensor([[i, j]] * 3), p[:, i, 0] * p[:, j, 1]) for i, j in product(range(6), repeat=2)]
    grown = torch.zeros(3, dtype=torch.float64)
    for label, weights in labels:
        for n in range(3):
            if weights[n] > 0:
                losses = [
                    likelihood.loss(values[n : n + 1], label[n : n + 1], mask[n : n + 1])
                    for values in (predictions, other)
                ]
                grown[n] += weights[n] * (losses[1] - losses[0])
    assert torch.allclose(grown, likelihood.divergence(predictions, other, mask), atol=1e-9)


@pytest.mark.parametrize("head", HEADS)
def test_the_sum_of_losses_is_n_times_their_mean(head: str) -> None:
    likelihood, predictions, _, mask = some(head, 1)
    labels = {
        "classes": torch.tensor([0, 1, 4]),
        "regression": torch.rand(3).double(),
        "spans": torch.zeros(3, 2).long(),
    }
    total, mean = (likelihood.loss(predictions, labels[head], mask, how) for how in ("sum", "mean"))  # type: ignore[arg-type]
    assert float(total) == pytest.approx(3 * float(mean))


def test_points_and_answers() -> None:
    logits = torch.tensor([[0.0, 2.0], [3.0, 1.0]])
    assert Classes().points(logits, torch.tensor([1, 1])).tolist() == [1, 0]
    assert Gaussian().points(torch.tensor([[1.0], [3.0]]), torch.tensor([1.0, 1.0])).tolist() == [0, -4]
    spans = torch.full((3, 6, 2), -5.0)
    for n, (first, last) in enumerate([(1, 2), (3, 1), (0, 0)]):
        spans[n, first, 0] = spans[n, last, 1] = 5.0
    spans[1, 4, 1] = 1.0  # the likeliest end that is not before the start
    assert Spans().answers(spans).tolist() == [[1, 2], [3, 4], [0, 0]]
    labels = torch.tensor([[2, 4], [3, 4], [1, 1]])
    assert Spans().points(spans, labels).tolist() == pytest.approx([0.4, 1.0, 0.0])
    assert Spans().score("f1", spans, labels) == pytest.approx(1.4 / 3)


def test_signs_belong_to_samples_not_to_batches(network: Network) -> None:
    one, several = (list(batches(network.examples[:20], size)) for size in (20, 7))
    signs = [random_signs(network.model, parts, 20, 3, 2) for parts in (one, several)]
    assert torch.equal(*signs)
    assert signs[0].shape == (2, 20, 2)
    assert set(signs[0].unique().tolist()) == {-1.0, 1.0}


def test_a_models_head_decides() -> None:
    def model(labels: int, **modules: object) -> SimpleNamespace:
        return SimpleNamespace(config=SimpleNamespace(num_labels=labels), **modules)

    assert isinstance(likelihood_of(model(2)), Classes)  # type: ignore[arg-type]
    assert isinstance(likelihood_of(model(1)), Gaussian)  # type: ignore[arg-type]
    answering = model(2, qa_outputs=None)
    assert isinstance(likelihood_of(answering), Spans)  # type: ignore[arg-type]
    texts = list(batches([Example((1,) * n, (0,) * n, (0, 0)) for n in (3, 5)], 1))
    assert random_signs(answering, texts, 2, 0).shape == (1, 2, 5, 2)  # type: ignore[arg-type]

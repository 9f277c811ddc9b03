"""Gradients of mask variables against autograd, sample by sample; the choice by rank against every subset."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from pgb_core.baselines.units import best_ranked, label_gradients, layout_of, slack_of, unit_weights
from pgb_core.batching import batches
from pgb_core.fisher import differentiable_activations
from tests.network import Network, shape

SCORES = st.lists(st.integers(0, 50), min_size=1, max_size=5)


def test_gradients_equal_autograd_on_mask_variables_sample_by_sample(network: Network) -> None:
    """Masks as forward hooks on the untouched transformers model, one unpadded sample at a time."""
    masks = [torch.ones(sub.shape.units, requires_grad=True) for sub in network.sublayers]
    handles = [
        sub.exit.register_forward_pre_hook(
            lambda module, args, mask=mask, width=sub.shape.width: (args[0] * mask.repeat_interleave(width),)
        )
        for sub, mask in zip(network.sublayers, masks, strict=True)
    ]
    expected: list[tuple[torch.Tensor, ...]] = []
    for example in network.examples[:12]:
        ids = torch.tensor([example.input_ids])
        logits = network.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        loss = functional.cross_entropy(logits, torch.tensor([example.label]))
        expected.append(torch.autograd.grad(loss, masks))
    for handle in handles:
        handle.remove()
    ready = list(batches(network.examples[:12], 5))
    found = label_gradients(network.model, network.sublayers, ready)
    order = torch.cat([batch.indices for batch in ready])
    for i, gradients in enumerate(found):
        reference = torch.stack([row[i] for row in expected])[order]
        assert torch.allclose(gradients, reference, rtol=1e-3, atol=1e-5 * float(reference.abs().max()))


def test_parameters_ask_for_gradients_again_afterwards(network: Network) -> None:
    with pytest.raises(KeyError), differentiable_activations(network.model):
        assert not any(parameter.requires_grad for parameter in network.model.parameters())
        raise KeyError
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.model.parameters())


def test_costs_add_up_to_the_sublayer(network: Network) -> None:
    for sub in network.sublayers:
        assert unit_weights(sub.shape) * sub.shape.units == sub.shape.weights
        assert layout_of(sub.shape, np.array([2, 0])).cost == 2 * unit_weights(sub.shape)
        assert layout_of(sub.shape, np.array([2, 0])).groups[0].units.tolist() == [0, 2]
        assert layout_of(sub.shape, np.empty(0, dtype=np.int64)).dropped
    assert slack_of([sub.shape for sub in network.sublayers], unit_weights) == round(
        0.004 * sum(sub.shape.weights for sub in network.sublayers)
    )
    assert slack_of([shape()], lambda _: 1000) == 32


@given(SCORES, SCORES, st.integers(0, 12))
def test_at_equal_cost_the_choice_is_the_best_of_all(first: list[int], second: list[int], budget: int) -> None:
    kept = best_ranked([np.array(first, dtype=float), np.array(second, dtype=float)], [1, 1], budget, 0)
    flat = first + second
    best = max(
        sum(score for score, bit in zip(flat, bits, strict=True) if bit)
        for bits in product([0, 1], repeat=len(flat))
        if sum(bits) <= budget
    )
    assert sum(first[u] for u in kept[0]) + sum(second[u] for u in kept[1]) == best
    assert sum(len(units) for units in kept) == min(budget, len(flat))


@given(SCORES, st.lists(st.integers(0, 50), min_size=8, max_size=30), st.integers(2, 8), st.integers(0, 70))
def test_less_than_a_neuron_stays_unspent(heads: list[int], neurons: list[int], price: int, budget: int) -> None:
    kept = best_ranked([np.array(heads, dtype=float), np.array(neurons, dtype=float)], [price, 1], budget, 0)
    spent = price * len(kept[0]) + len(kept[1])
    assert spent == min(budget, price * len(heads) + len(neurons))
    for scores, units in ((heads, kept[0]), (neurons, kept[1])):
        gone = np.delete(scores, units)
        assert not len(gone) or not len(units) or min(np.take(scores, units)) >= max(gone)
        assert sorted(set(units)) == units.tolist()


def test_a_unit_that_does_not_fit_is_passed_over_for_cheaper_ones() -> None:
    kept = best_ranked([np.array([5.0, 4.0]), np.array([3.0, 2.0, 1.0])], [4, 1], 6, 0)
    assert [units.tolist() for units in kept] == [[0], [0, 1]]


def test_cheap_units_make_room_only_where_too_much_stays_unspent() -> None:
    scores = [np.array([2.0, 1.0]), np.array([9.0, 8.0, 7.0])]
    assert [units.tolist() for units in best_ranked(scores, [4, 1], 6, 3)] == [[], [0, 1, 2]]
    assert [units.tolist() for units in best_ranked(scores, [4, 1], 6, 2)] == [[0], [0, 1]]

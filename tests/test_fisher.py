"""Directions in the space of the logits, and what they send back."""

from __future__ import annotations

from itertools import product

import torch
from hypothesis import given
from hypothesis import strategies as st

from pgb_core.fisher import DRAWS, directions, exit_gradients, random_direction, random_signs
from tests.network import Network


def information(logits: torch.Tensor) -> torch.Tensor:
    p = logits.softmax(dim=0)
    return torch.diag(p) - torch.outer(p, p)


@given(st.integers(2, 5), st.integers(0, 1000))
def test_a_random_direction_has_the_fisher_information_of_the_logits(labels: int, seed: int) -> None:
    logits = torch.randn(labels, generator=torch.Generator().manual_seed(seed))
    signs = torch.tensor(list(product([-1.0, 1.0], repeat=labels)))  # all of them: an exact expectation
    v = random_direction(logits.expand(len(signs), -1), signs)
    assert torch.allclose(v.T @ v / len(signs), information(logits), atol=1e-6)


@given(st.integers(2, DRAWS), st.integers(0, 1000))
def test_few_classes_have_exact_directions(labels: int, seed: int) -> None:
    logits = torch.randn(3, labels, generator=torch.Generator().manual_seed(seed))
    v = directions(logits, torch.zeros(DRAWS, 3, labels))
    for n in range(3):
        assert torch.allclose(v[:, n].T @ v[:, n], information(logits[n]), atol=1e-6)


def test_many_classes_have_drawn_ones_that_are_right_on_average() -> None:
    logits = torch.randn(7, generator=torch.Generator().manual_seed(3))
    signs = torch.randint(0, 2, (DRAWS, 20_000, 7), generator=torch.Generator().manual_seed(4)) * 2.0 - 1
    v = directions(logits.expand(20_000, -1), signs)
    assert v.shape == (DRAWS, 20_000, 7)
    mean = torch.einsum("kni,knj->ij", v, v) / 20_000
    assert torch.allclose(mean, information(logits), atol=5e-3)


def test_exit_gradients_equal_autograd_sample_by_sample(network: Network) -> None:
    model, batch = network.model, network.batches[1]
    found = exit_gradients(model, network.sublayers, [batch])
    outputs: list[torch.Tensor] = []
    hooks = [s.exit.register_forward_hook(lambda module, args, out: outputs.append(out)) for s in network.sublayers]
    token = 0
    for n in range(len(batch.indices)):
        length = int(batch.attention_mask[n].sum())
        inputs = {name: values[n : n + 1, :length] for name, values in batch.inputs.items()}
        outputs.clear()
        logits = model(**inputs).logits
        signs = random_signs(1 + int(batch.indices.max()), model, 0, DRAWS)[:, batch.indices[n : n + 1]]
        for k, v in enumerate(directions(logits.detach(), signs)):
            expected = torch.autograd.grad(logits, outputs, grad_outputs=v, retain_graph=True)
            for mine, theirs in zip(found, expected, strict=True):
                assert torch.allclose(mine[k, token : token + length], theirs[0], rtol=1e-3, atol=1e-6)
        token += length
    for hook in hooks:
        hook.remove()
    for mine, again in zip(found[1:3], exit_gradients(model, network.sublayers, [batch], range(1, 3)), strict=True):
        assert torch.equal(mine, again)
    assert all(g.shape[1] == token for g in found)
    assert all(parameter.requires_grad for parameter in model.parameters())

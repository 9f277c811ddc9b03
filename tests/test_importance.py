"""Stage 1 against autograd, sample by sample, and against explicit inverses."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import torch

from pgb_core.batching import batches
from pgb_core.formulas import compensated_importance, damped
from pgb_core.importance import (
    GramSum,
    collect_statistics,
    elimination_order,
    inverse_diagonal,
    matrix_importance,
)
from pgb_core.likelihood import likelihood_of, random_signs
from tests.network import Network, take_apart


@pytest.fixture(scope="module")
def network(tiny_checkpoint: Path, tiny_csv: Path) -> Network:
    return take_apart(tiny_checkpoint, tiny_csv, samples=24)


def test_statistics_equal_autograd_sample_by_sample(network: Network) -> None:
    """Per-sample weight gradients, unpadded, one sample at a time through the untouched transformers model."""
    model, sub = network.model, network.sublayers[2]
    (signs,) = random_signs(model, network.batches, len(network.examples), 0)
    fisher = torch.zeros_like(sub.entries[1].weight)
    gram, total = torch.zeros(sub.shape.hidden + 1, sub.shape.hidden + 1), 0.0
    inputs: list[torch.Tensor] = []
    hook = sub.entries[1].register_forward_hook(lambda module, args, output: inputs.append(args[0].detach()[0]))
    outputs: list[torch.Tensor] = []
    others = [e.register_forward_hook(lambda module, args, output: outputs.append(output)) for e in sub.entries]
    for example, sign in zip(network.examples, signs, strict=True):
        ids = torch.tensor([example.input_ids])
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        direction = likelihood_of(model).random_direction(logits.detach(), sign[None], torch.ones_like(ids))
        gradient, *sent = torch.autograd.grad(logits, [sub.entries[1].weight, *outputs], grad_outputs=direction)
        outputs.clear()
        fisher += gradient.square()
        x = torch.cat([inputs.pop(), torch.ones(ids.shape[1], 1)], dim=1)
        length = torch.cat([g[0] for g in sent], dim=1).norm(dim=1)  # of query, key and value together
        weights = length / length.sum() + 0.02 / len(length)
        gram += x.T @ (weights[:, None] * x)
        total += float(weights.sum())
    for registered in (hook, *others):
        registered.remove()
    found = network.statistics[2]
    assert found.fisher is not None
    assert torch.allclose(found.fisher[1], fisher / len(network.examples), rtol=1e-3, atol=1e-4 * float(fisher.max()))
    assert torch.allclose(found.entry_gram, gram / total, rtol=1e-3, atol=1e-4)


def test_the_metric_is_made_of_the_gradient_at_the_output(network: Network) -> None:
    model, sub = network.model, network.sublayers[3]
    (signs,) = random_signs(model, network.batches, len(network.examples), 0)
    squares, tokens = torch.zeros(sub.shape.hidden, sub.shape.hidden), 0
    outputs: list[torch.Tensor] = []
    hook = sub.exit.register_forward_hook(lambda module, args, output: outputs.append(output))
    for example, sign in zip(network.examples, signs, strict=True):
        ids = torch.tensor([example.input_ids])
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        direction = likelihood_of(model).random_direction(logits.detach(), sign[None], torch.ones_like(ids))
        (gradient,) = torch.autograd.grad(logits, outputs.pop(), grad_outputs=direction)
        squares += gradient[0].T @ gradient[0]
        tokens += ids.shape[1]
    hook.remove()
    found = network.statistics[3]
    assert torch.allclose(found.exit_metric, squares / tokens, rtol=1e-3, atol=1e-9)
    assert torch.equal(found.exit_sensitivity, found.exit_metric.diagonal())


def test_scores_depend_neither_on_batch_size_nor_on_order(network: Network) -> None:
    other = collect_statistics(
        network.model,
        network.sublayers,
        list(batches(network.examples, 5, order="shuffled", seed=9)),
        len(network.examples),
        fisher=True,
    )
    for kind in ("compensated", "fisher"):
        for sub, a, b in zip(network.sublayers, network.statistics, other, strict=True):
            first, second = matrix_importance(sub, a, kind), matrix_importance(sub, b, kind)
            for name in sub.shape.matrices:
                assert torch.allclose(first[name], second[name], rtol=1e-3, atol=1e-5 * float(first[name].max()))


def test_the_model_is_left_as_it_was(network: Network) -> None:
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.model.parameters())


def test_compensated_importance_is_the_loss_after_the_row_made_up_for_it() -> None:
    """Remove one weight, solve for the others exactly, and measure the quadratic loss."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(200, 5, generator=generator, dtype=torch.float64) @ torch.randn(
        5, 5, generator=generator, dtype=torch.float64
    )
    x = torch.cat([x, torch.ones(200, 1, dtype=torch.float64)], dim=1)
    gram = damped(x.T @ x / 200)
    weight, q = torch.randn(3, 5, generator=generator, dtype=torch.float64), torch.tensor([0.5, 1.0, 2.0])
    # inverse_diagonal damps again: hand it what is damped to `gram`
    found = compensated_importance(weight, q.double(), torch.linalg.inv(gram).diagonal()[:-1])
    for i, j in product(range(3), range(5)):
        full = torch.cat([weight[i], torch.tensor([0.3], dtype=torch.float64)])
        keep = [k for k in range(6) if k != j]
        change = torch.zeros(6, dtype=torch.float64)
        change[j] = -full[j]
        change[keep] = torch.linalg.solve(gram[keep][:, keep], gram[keep][:, j] * full[j])
        assert float(0.5 * q[i] * change @ gram @ change) == pytest.approx(float(found[i, j]))


@pytest.mark.parametrize("size", [1, 191, 192, 400])
def test_gram_sums_equal_the_product_with_a_constant_appended(size: int) -> None:
    generator = torch.Generator().manual_seed(size)
    x, weights = torch.randn(50, size, generator=generator), torch.rand(50, generator=generator)
    gram = GramSum(size, torch.device("cpu"))
    for part in (slice(0, 20), slice(20, 50)):
        gram.add(x[part], weights[part])
    extended = torch.cat([x, torch.ones(50, 1)], dim=1)
    expected = (extended * weights[:, None]).T @ extended
    assert torch.allclose(gram.total(), expected, atol=1e-4)
    assert torch.equal(gram.total(), gram.total().T)
    assert torch.allclose(gram.mean(), expected / weights.sum(), atol=1e-4)


def test_inverse_diagonal_leaves_the_constant_out() -> None:
    gram = torch.eye(4)
    assert inverse_diagonal(gram).tolist() == pytest.approx([1 / 1.001] * 3)


@pytest.mark.parametrize(("width", "updates"), [(1, 8), (2, 8), (1, 3)])
def test_downdated_order_equals_the_order_from_fresh_inverses(width: int, updates: int) -> None:
    generator = torch.Generator().manual_seed(7)
    units, hidden = 8, 6
    x = torch.randn(300, units * width, generator=generator) * (1 + torch.rand(units * width, generator=generator))
    x = torch.cat([x + x.roll(1, dims=1), torch.ones(300, 1)], dim=1)
    gram = x.T @ x / 300
    weight = torch.randn(hidden, units * width, generator=generator)
    root = torch.randn(hidden, hidden, generator=generator)
    q = root @ root.T

    full = damped(gram.double())
    target = torch.cat([weight, torch.zeros(hidden, 1)], dim=1).double()

    def loss_without(gone: list[int]) -> float:
        keep = [k for k in range(units * width + 1) if k // width not in gone or k == units * width]
        solution = torch.zeros_like(target)
        solution[:, keep] = torch.linalg.solve(full[keep][:, keep], full[keep] @ target.T).T
        change = solution - target
        return float(0.5 * torch.trace(q.double() @ change @ full @ change.T))

    expected: list[int] = []
    while len(expected) < units:
        left = [u for u in range(units) if u not in expected]
        expected += sorted(left, key=lambda u: loss_without([*expected, u]))[: max(1, len(left) // updates)]
    assert elimination_order(weight, gram, q, width, updates=updates).tolist() == expected

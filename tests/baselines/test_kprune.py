"""Knowledge against autograd, weight tuning against numpy's least squares."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from pgb_core.architectures import predict
from pgb_core.baselines import kprune as module
from pgb_core.baselines.kprune import kprune, least_squares, measure, predictive_knowledge, soft_prediction, tune
from pgb_core.baselines.units import layout_of
from pgb_core.compensation import advance, first_states
from pgb_core.grouped import cut
from pgb_core.layout import dropped_layout
from tests.network import Network


def test_predictions_are_softened(network: Network) -> None:
    state, batch = first_states(network.model, network.batches)[2], network.batches[2]
    with torch.no_grad():
        expected = network.model(**batch.inputs).logits / 2
    assert torch.allclose(soft_prediction(network.model, network.sublayers, state), expected, atol=1e-6)


def test_knowledge_equals_autograd_on_mask_variables(network: Network) -> None:
    """Sublayer 0 dropped; masks for every row, one loss for each mini-batch of 32 (two batches of 16)."""
    dense = first_states(network.model, network.batches)
    predictions = [soft_prediction(network.model, network.sublayers, s) for s in dense]
    states = advance(network.sublayers[0], cut(network.sublayers[0], dropped_layout(network.sublayers[0].shape)), dense)
    above = network.sublayers[1:]
    masks = [torch.ones(sub.shape.inner, requires_grad=True) for sub in above]
    squares = [torch.zeros(sub.shape.inner) for sub in above]
    outputs = [torch.zeros(sub.shape.inner) for sub in above]
    for pair in range(0, len(states), 2):
        losses = []
        for state, prediction in zip(states[pair : pair + 2], predictions[pair : pair + 2], strict=True):
            x = state.pruned
            for i, (sub, mask) in enumerate(zip(above, masks, strict=True)):
                z = sub.hidden(x, state.mask) * mask
                for j in range(sub.shape.inner):  # the output that row j alone gives
                    outputs[i][j] += (z[state.real][:, j, None] * sub.exit.weight[:, j]).detach().square().sum()
                x = sub.norm(x + sub.exit(z))
            log_q = functional.log_softmax(predict(network.model, x) / 2, dim=1)
            log_p = functional.log_softmax(prediction, dim=1)
            losses.append((log_p.exp() * (log_p - log_q)).sum() * 4)
        for total, gradient in zip(squares, torch.autograd.grad(sum(losses) / 32, masks), strict=True):  # type: ignore[arg-type]
            total += gradient.square() / 2
    found = measure(network.model, above, states, predictions)
    tokens = sum(int(s.real.sum()) for s in states)
    for sub, square, output, scores in zip(above, squares, outputs, found, strict=True):
        rows = square / len(network.examples) + 0.00025 * output / tokens / sub.shape.hidden
        expected = 64 * rows.unflatten(0, (-1, 8)).mean(dim=1) if sub.shape.kind == "attention" else rows
        assert torch.allclose(scores, expected, rtol=1e-3, atol=1e-6 * float(expected.max()))


def test_the_dense_model_has_no_gradient_against_itself(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    states = first_states(network.model, network.batches)
    predictions = [soft_prediction(network.model, network.sublayers, s) for s in states]
    monkeypatch.setattr(module, "REPRESENTATION", 0.0)
    largest = [float(s.max()) for s in measure(network.model, network.sublayers, states, predictions)]
    assert max(largest) < 1e-10


def test_squares_are_of_mini_batches() -> None:
    gradients = torch.cat([torch.full((32, 1), 2.0), torch.tensor([[3.0], [-1.0]])])
    assert predictive_knowledge(gradients).tolist() == pytest.approx([0.5 * (4 + 1) / 34])


@given(st.integers(0, 2**20), st.integers(1, 6), st.integers(1, 4))
def test_weights_equal_least_squares(seed: int, inputs: int, outputs: int) -> None:
    rng = np.random.default_rng(seed)
    z, y, bias = rng.normal(size=(40, inputs)), rng.normal(size=(40, outputs)), rng.normal(size=outputs)
    with_one = np.column_stack([z, np.ones(40)])
    found = least_squares(*(torch.from_numpy(a) for a in (y.T @ with_one, with_one.T @ with_one, bias)))
    assert np.allclose(found, np.linalg.lstsq(z, y - bias, rcond=None)[0].T, atol=1e-6)


def test_weights_of_inputs_that_repeat_each_other_stay_small() -> None:
    z = np.random.default_rng(0).normal(size=(50, 2))
    z = np.column_stack([z, z[:, 0], np.zeros(50), np.ones(50)])
    y = z[:, :1] * 4
    found = least_squares(torch.from_numpy(y.T @ z), torch.from_numpy(z.T @ z), torch.zeros(1, dtype=torch.float64))
    assert np.allclose(found, [[2, 0, 2, 0]], atol=1e-6)


@pytest.mark.parametrize("index", [1, 2])
def test_tuning_fits_the_dense_output_with_its_residual(network: Network, index: int) -> None:
    """The fit leaves an error that none of the kept inputs can explain; the bias and the entry are left alone."""
    states = first_states(network.model, network.batches)
    for sub in network.sublayers[:index]:
        states = advance(sub, cut(sub, layout_of(sub.shape, np.arange(sub.shape.units // 2))), states)
    sub = network.sublayers[index]
    layout = layout_of(sub.shape, np.arange(sub.shape.units // 2))
    before, pruned = cut(sub, layout), cut(sub, layout)
    tune(sub, pruned, states)
    assert pruned.entry is not None
    assert before.entry is not None
    assert torch.equal(pruned.exit.bias, sub.exit.bias)
    assert torch.equal(pruned.entry.weights[0], before.entry.weights[0])
    left, inputs, untuned = [], [], 0.0
    with torch.no_grad():
        for s in states:
            target = sub.exit(sub.hidden(s.dense, s.mask)) + s.dense - s.pruned
            left.append((target - pruned(s.pruned, s.mask))[s.real])
            inputs.append(pruned.hidden(s.pruned, s.mask)[s.real])
            untuned += float((target - before(s.pruned, s.mask))[s.real].square().sum())
    error, z = torch.cat(left), torch.cat(inputs)
    assert float((error.T @ z).abs().max()) < 1e-2 * float(error.square().sum().sqrt() * z.square().sum().sqrt())
    assert float(error.square().sum()) < untuned


def test_every_sublayer_is_scored_on_what_the_pruned_ones_below_give(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, float]] = []

    def recorded(model, above, states, predictions, **more):  # type: ignore[no-untyped-def]
        assert not any(s.pruned.requires_grad for s in states)  # no graph that grows with every sublayer
        seen.append((len(above), max(float((s.pruned - s.dense).abs().max()) for s in states)))
        return measure(model, above, states, predictions, **more)

    monkeypatch.setattr(module, "measure", recorded)
    kprune(network.model, network.sublayers, network.batches, sum(s.shape.weights for s in network.sublayers) // 3)
    assert [above for above, _ in seen] == [4, 3, 2, 1]
    assert seen[0][1] == 0
    assert seen[-1][1] > 0

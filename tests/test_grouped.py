"""Grouped execution equals the masked dense model."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from torch import nn

from pgb_core import evaluation
from pgb_core.architectures import encoder_sublayers
from pgb_core.grouped import cut, install
from pgb_core.layout import Layout, SublayerLayout
from pgb_core.magnitude import magnitude_layouts
from pgb_core.matrixwise import MatrixwiseLayout, matrix_sizes, whole_matrix
from tests.network import Network, layouts_of_all_kinds, some_layouts


def masked_dense(network: Network, layouts: Sequence[Layout]) -> nn.Module:
    """The same removal by the simplest means: zeros in a copy of the dense model."""
    model = copy.deepcopy(network.model)
    with torch.no_grad():
        for sub, layout in zip(encoder_sublayers(model), layouts, strict=True):
            for matrix, linear in zip(layout.matrices(), (*sub.entries, sub.exit), strict=True):
                linear.weight.mul_(torch.from_numpy(matrix.mask()))
            if layout.dropped:
                sub.exit.bias.zero_()
    return model


@pytest.mark.parametrize("seed", range(8))
def test_grouped_execution_equals_the_masked_dense_model(network: Network, seed: int) -> None:
    check_against_zeros(network, some_layouts(network, seed))


@pytest.mark.parametrize("kind", ["untied", "zeros", "mixed"])
def test_matrices_that_stand_alone_equal_the_masked_dense_model(network: Network, kind: str) -> None:
    check_against_zeros(network, layouts_of_all_kinds(network)[kind])


def check_against_zeros(network: Network, layouts: Sequence[Layout]) -> None:
    pruned = [cut(sub, layout) for sub, layout in zip(network.sublayers, layouts, strict=True)]
    small, masked = install(network.model, network.sublayers, pruned), masked_dense(network, layouts)
    with torch.no_grad():
        for batch in network.batches:
            difference = small(**batch.inputs).logits - masked(**batch.inputs).logits
            assert float(difference.abs().max()) < 1e-4
    assert evaluation.encoder_weights(small) == sum(layout.cost for layout in layouts)


def test_installing_leaves_the_dense_model_alone(network: Network) -> None:
    before = {name: tensor.clone() for name, tensor in network.model.state_dict().items()}
    layouts = some_layouts(network, 1)
    small = install(
        network.model, network.sublayers, [cut(s, p) for s, p in zip(network.sublayers, layouts, strict=True)]
    )
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.model.state_dict().items())


def of_kind(network: Network, kind: str) -> nn.Module:
    """The network pruned to layouts of that kind."""
    pairs = zip(network.sublayers, layouts_of_all_kinds(network)[kind], strict=True)
    return install(network.model, network.sublayers, [cut(sub, layout) for sub, layout in pairs])


@pytest.mark.parametrize("kind", ["tied", "mixed", "zeros"])
def test_it_compiles_into_one_graph_for_any_batch_and_length(network: Network, kind: str) -> None:
    small = of_kind(network, kind)
    torch.compiler.reset()
    compiled = torch.compile(small, backend="eager", fullgraph=True, dynamic=True)
    with torch.inference_mode():
        for batch, length in ((2, 8), (3, 16), (5, 7)):
            ids = torch.arange(batch * length).reshape(batch, length) % 20 + 5
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            torch.testing.assert_close(compiled(**inputs).logits, small(**inputs).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["tied", "mixed", "zeros"])
def test_autocast_runs_and_trains(network: Network, kind: str, dtype: torch.dtype) -> None:
    small = of_kind(network, kind)
    batch = network.batches[0]
    with torch.no_grad():
        exact = small(**batch.inputs).logits
    with torch.autocast("cpu", dtype):
        close = small.train()(**batch.inputs).logits
        assert close.shape == exact.shape
        close.float().square().sum().backward()
    grads = [p.grad for name, p in small.named_parameters() if "encoder.layer" in name]
    assert all(grad is not None and grad.dtype == torch.float32 and bool(grad.isfinite().all()) for grad in grads)
    with torch.autocast("cpu", dtype), torch.no_grad():
        close = small.eval()(**batch.inputs).logits.float()
    assert float((close - exact).abs().max()) < 0.05 * float(exact.abs().max())


@pytest.mark.parametrize("length", [1, 7])
def test_dropped_sublayers_work_for_any_batch_and_length_and_in_training(network: Network, length: int) -> None:
    layouts = [SublayerLayout(sub.shape, ()) for sub in network.sublayers]
    small = install(
        network.model, network.sublayers, [cut(s, p) for s, p in zip(network.sublayers, layouts, strict=True)]
    )
    ids = torch.full((3, length), 5)
    output = small.train()(input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True)
    assert output.logits.shape == (3, 2)
    assert len(output.hidden_states) == 3


def test_matrices_that_stand_alone_and_keep_everything_change_nothing(network: Network) -> None:
    whole = [
        MatrixwiseLayout(s.shape, tuple(whole_matrix(n, *size) for n, size in matrix_sizes(s.shape).items()))
        for s in network.sublayers
    ]
    assert all(layout.untouched for layout in whole)
    modules = [cut(sub, layout) for sub, layout in zip(network.sublayers, whole, strict=True)]
    same = install(network.model, network.sublayers, modules)
    with torch.no_grad():
        for batch in network.batches:
            assert torch.equal(same(**batch.inputs).logits, network.model(**batch.inputs).logits)


def test_zeros_stay_zeros_in_training_and_all_else_learns(network: Network) -> None:
    layouts = magnitude_layouts(network.sublayers, 0.3)
    modules = [cut(sub, layout) for sub, layout in zip(network.sublayers, layouts, strict=True)]
    model = copy.deepcopy(install(network.model, network.sublayers, modules))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items() if ".weights." in name}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    model.train()
    for batch in network.batches[:3]:
        torch.autograd.backward(nn.functional.cross_entropy(model(**batch.inputs).logits, batch.labels))
        optimizer.step()
        optimizer.zero_grad()
    assert len(before) == 12
    for name, tensor in before.items():
        after = model.state_dict()[name]
        assert not bool(after[tensor == 0].any())
        assert bool((after[tensor != 0] != tensor[tensor != 0]).float().mean() > 0.99)
    assert evaluation.encoder_weights(model) == sum(layout.cost for layout in layouts)

"""Linear layers in blocks: they train, and take columns in the same way however many threads there are."""

from __future__ import annotations

import pytest
import torch

from pgb_core import pgb_blocks
from pgb_core.pgb_blocks import BlockSizes, GroupedLinear


def test_a_grouped_linear_trains() -> None:
    layer = GroupedLinear(BlockSizes((2, 3), (2, 2), rest=1, gather=True, scatter=True))
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    layer.gather, layer.scatter = torch.tensor([3, 0, 1, 2]), torch.tensor([5, 4, 3, 2, 1, 0])
    layer(torch.randn(2, 3, 4)).square().sum().backward()
    assert all(parameter.grad is not None and bool((parameter.grad != 0).any()) for parameter in layer.parameters())


def test_columns_are_the_same_however_many_threads_take_them(monkeypatch: pytest.MonkeyPatch) -> None:
    x, order = torch.randn(7, 5), torch.tensor([4, 0, 2])
    for threads in (1, 4):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        with torch.no_grad():
            assert torch.equal(pgb_blocks.take_columns(x, order), x[:, order])
    trained = x.clone().requires_grad_()
    pgb_blocks.take_columns(trained, order).sum().backward()
    assert trained.grad is not None
    assert torch.equal(trained.grad.sum(dim=0), torch.tensor([7.0, 0, 7, 0, 7]))

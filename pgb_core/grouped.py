"""Grouped execution: from a layout to modules that hold only the kept blocks, and these into a model.

With tied groups, permutations of heads and neurons are absorbed in the weights. What remains is at most one gather of
the inputs where a sublayer is entered and one scatter of the outputs where it is left (stage 5 of PGB, re-permutation).
Matrices that were permuted each on its own need both. The modules themselves are in `pgb_blocks.py`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pgb_core.architectures import Mix, Sublayer, put
from pgb_core.layout import BoolArray, IntArray, Layout, LinearLayout
from pgb_core.pgb_blocks import BlockSizes, Constant, Entry, GroupedLinear, entry_module, run_sublayer


@dataclass(frozen=True, eq=False)
class PrunedSublayer:
    """The modules of one pruned sublayer; `entry` is None when it is dropped."""

    layout: Layout
    entry: Entry | None
    exit: GroupedLinear | Constant
    mix: Mix

    def hidden(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, L, hidden) -> (B, L, kept inner), what the exit reads: the kept units, tied ones group by group."""
        if self.entry is None:
            return x
        return self.mix(self.entry.forward_parts(x), mask)

    def __call__(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, L, hidden) -> (B, L, hidden), before residual and LayerNorm."""
        if self.entry is None or isinstance(self.exit, Constant):
            constant: Tensor = self.exit(x)
            return constant
        return run_sublayer(self.entry, self.exit, lambda parts: self.mix(parts, mask), x)


# --- building ------------------------------------------------------------------------------------------------------


def block_sizes(layout: LinearLayout) -> BlockSizes:
    """What a `GroupedLinear` has to know of its layout."""
    return BlockSizes(
        tuple(len(block.rows) // layout.parts for block in layout.blocks),
        tuple(len(block.columns) for block in layout.blocks),
        layout.parts,
        rest=len(layout.rest),
        gather=layout.gather is not None,
        scatter=layout.scatter is not None,
        zeros=any(block.support is not None for block in layout.blocks),
    )


def empty_sublayer(layout: Layout, mix: Mix) -> PrunedSublayer:
    """The modules of `layout` with uninitialized weights and with its permutations set."""
    if layout.dropped:
        return PrunedSublayer(layout, None, Constant(layout.shape.hidden), mix)
    entry = entry_module([_empty_linear(linear) for linear in layout.entry_linears()])
    return PrunedSublayer(layout, entry, _empty_linear(layout.exit_linear()), mix)


def _empty_linear(layout: LinearLayout) -> GroupedLinear:
    linear = GroupedLinear(block_sizes(layout))
    if layout.gather is not None:
        linear.gather = torch.from_numpy(layout.gather)
    if layout.scatter is not None:
        linear.scatter = torch.from_numpy(layout.scatter)
    return linear


@torch.no_grad()
def cut(sublayer: Sublayer, layout: Layout) -> PrunedSublayer:
    """The dense sublayer with everything outside the layout removed; biases as they were, none where it is dropped."""
    device = sublayer.exit.weight.device
    pruned = empty_sublayer(layout, sublayer.mix)
    pruned.exit.to(device)
    if pruned.entry is None or isinstance(pruned.exit, Constant):
        pruned.exit.bias.zero_()
        return pruned
    pruned.entry.to(device)
    weight, bias = stacked_entry(sublayer)
    for linear, plan in zip(pruned.entry.linears, layout.entry_linears(), strict=True):
        _fill(linear, plan, weight, bias)
    _fill(pruned.exit, layout.exit_linear(), sublayer.exit.weight, sublayer.exit.bias)
    return pruned


def _fill(linear: GroupedLinear, layout: LinearLayout, weight: Tensor, bias: Tensor) -> None:
    """Give `linear` the weights of its blocks out of the dense `weight` and `bias`."""
    for held, block in zip(linear.weights, layout.blocks, strict=True):
        rows, columns = on(block.rows, weight), on(block.columns, weight)
        kept = weight[rows][:, columns]
        held.copy_(kept if block.support is None else kept * on(block.support, weight))
    linear.bias.copy_(bias[on(layout.order, bias)])


def stacked_entry(sublayer: Sublayer) -> tuple[Tensor, Tensor]:
    """The entry matrices one below the other, (parts * inner, hidden), and their biases, (parts * inner,)."""
    weight = torch.cat([entry.weight for entry in sublayer.entries]).detach()
    return weight, torch.cat([entry.bias for entry in sublayer.entries]).detach()


def on(array: IntArray | BoolArray, like: Tensor) -> Tensor:
    """A layout's array as a tensor on the device of `like`."""
    return torch.from_numpy(array).to(like.device)


def install(model: nn.Module, sublayers: Sequence[Sublayer], pruned: Sequence[PrunedSublayer]) -> nn.Module:
    """A copy of `model` whose encoder runs the pruned sublayers (in the order of `sublayers`)."""
    # the dense matrices are not copied, only to be thrown away
    memo = {id(module): module for sub in sublayers for module in (*sub.entries, sub.exit)}
    smaller = copy.deepcopy(model, memo)
    for sub, new in zip(sublayers, pruned, strict=True):
        put(smaller, sub, new.entry, new.exit)
    return smaller.eval()

"""Grouped execution: modules that hold only the kept blocks, and the surgery that puts them into a model.

With tied groups, permutations of heads and neurons are absorbed in the weights. What remains is at most one gather of
the inputs where a sublayer is entered and one scatter of the outputs where it is left (stage 5 of PGB, re-permutation).
Matrices that were permuted each on its own need both.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pgb_core.architectures import Mix, Sublayer, grouped_attention, replace_sublayer
from pgb_core.layout import BoolArray, IntArray, Layout, LinearLayout


@dataclass(frozen=True)
class BlockSizes:
    """Sizes of a `GroupedLinear`: group g maps `columns[g]` inputs to `parts` times `rows[g]` outputs."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    parts: int = 1
    rest: int = 0
    """Outputs in no group: they are their bias."""
    gather: bool = False
    scatter: bool = False
    zeros: bool = False
    """Removed weights are still there, as zeros: what is zero stays zero."""


class GroupedLinear(nn.Module):
    """A linear layer of G blocks: y_g = x_g W_g^T + b_g, inputs gathered by `gather`, outputs scattered by `scatter`.

    With `parts` > 1 each block stacks the rows of several matrices that read the same inputs (query, key and value).
    """

    gather: Tensor | None
    scatter: Tensor | None

    def __init__(self, sizes: BlockSizes) -> None:
        super().__init__()
        self.sizes = sizes
        pairs = list(zip(sizes.rows, sizes.columns, strict=True))
        self.weights = nn.ParameterList([nn.Parameter(torch.empty(sizes.parts * r, c)) for r, c in pairs])
        outputs = sizes.parts * sum(sizes.rows) + sizes.rest
        self.bias = nn.Parameter(torch.empty(outputs))  # groups one after another, then the rest
        self.register_buffer("gather", torch.empty(sum(sizes.columns), dtype=torch.int64) if sizes.gather else None)
        self.register_buffer("scatter", torch.empty(outputs, dtype=torch.int64) if sizes.scatter else None)

    @property
    def linears(self) -> tuple[GroupedLinear, ...]:
        """As an entry: this one alone."""
        return (self,)

    @property
    def part_size(self) -> int:
        """Outputs of each part."""
        return sum(self.sizes.rows)

    @property
    def removed(self) -> int:
        """Weights that are held, and multiplied with, although they were removed."""
        if not self.sizes.zeros:
            return 0
        return sum(weight.numel() - int(torch.count_nonzero(weight)) for weight in self.weights)

    def block_weights(self) -> Sequence[Tensor]:
        """(parts * rows[g], columns[g]) of each group; in training, zeros get no gradient where they are to stay."""
        if self.sizes.zeros and torch.is_grad_enabled():
            return [weight * (weight.detach() != 0) for weight in self.weights]
        return list(self.weights)

    def blocks(self, x: Tensor) -> list[Tensor]:
        """(..., inputs) -> one (tokens, parts * rows[g]) per group."""
        x = x.flatten(0, -2)  # two dimensions: a slice of columns then needs no copy before the product
        if self.gather is not None:
            x = x.index_select(1, self.gather)
        inputs = x.split(self.sizes.columns, dim=1)
        biases = self.bias.split([*(self.sizes.parts * r for r in self.sizes.rows), self.sizes.rest])
        return [F.linear(i, w, b) for i, w, b in zip(inputs, self.block_weights(), biases, strict=False)]

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs), for `parts` = 1."""
        outputs = self.blocks(x)
        if self.sizes.rest:
            outputs.append(self.bias[-self.sizes.rest :].expand(outputs[0].shape[0], -1).to(outputs[0].dtype))
        y = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)
        if self.scatter is not None:
            y = y.index_select(1, self.scatter)
        output: Tensor = y.unflatten(0, x.shape[:-1])
        return output

    def forward_parts(self, x: Tensor) -> tuple[Tensor, ...]:
        """(..., inputs) -> `parts` tensors (..., part_size); of several, each has the groups one after another."""
        if self.sizes.parts == 1:
            return (self(x),)
        by_group = [block.chunk(self.sizes.parts, dim=1) for block in self.blocks(x)]
        return tuple(torch.cat(part, dim=1).unflatten(0, x.shape[:-1]) for part in zip(*by_group, strict=True))


class SeparateLinears(nn.Module):
    """Entry matrices that share nothing but their input: one `GroupedLinear` for each."""

    linears: Sequence[GroupedLinear]

    def __init__(self, linears: Sequence[GroupedLinear]) -> None:
        super().__init__()
        self.linears = nn.ModuleList(linears)  # type: ignore[assignment]

    @property
    def part_size(self) -> int:
        """Outputs of each matrix."""
        return self.linears[0].part_size

    def forward_parts(self, x: Tensor) -> tuple[Tensor, ...]:
        """(..., inputs) -> one (..., part_size) per matrix."""
        return tuple(linear(x) for linear in self.linears)


Entry = GroupedLinear | SeparateLinears
"""What reads the hidden state in a pruned sublayer: `linears`, `part_size` and `forward_parts`."""


class Constant(nn.Module):
    """What is left of a dropped sublayer before its LayerNorm: a bias, whatever the input."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.empty(size))

    def forward(self, x: Tensor) -> Tensor:
        return self.bias.expand(*x.shape[:-1], -1)


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
        output: Tensor = self.exit(self.hidden(x, mask))
        return output


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


def entry_module(linears: Sequence[GroupedLinear]) -> Entry:
    """The entry of a sublayer that is not dropped."""
    return linears[0] if len(linears) == 1 else SeparateLinears(linears)


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
        replace(smaller, sub, new.entry, new.exit)
    return smaller.eval()


def replace(model: nn.Module, sub: Sublayer, entry: Entry | None, exit_: nn.Module) -> None:
    """Put the modules of a pruned sublayer into the place that `sub` has in `model`."""
    module: nn.Module | None = entry
    if sub.shape.kind == "attention" and entry is not None:
        module = grouped_attention(model, entry, sub.shape.width)
    replace_sublayer(model, sub.layer, sub.shape.kind, module, exit_)

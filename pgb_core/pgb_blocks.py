"""Linear layers in blocks: what runs where permutation and grouping (PGB) took weights away.

It needs torch and nothing else. `pgb_sublayers.py` builds the sublayers of a pruned encoder from it; an exported folder
holds a copy of both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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


def take_columns(x: Tensor, order: Tensor) -> Tensor:
    """(T, n) -> (T, m), x[:, order].

    On a CPU `index_select` works on one thread, however many there are, and `gather` on all; its gradient is slow.
    """
    threads = 1 if torch.compiler.is_compiling() or x.device.type != "cpu" else torch.get_num_threads()
    if threads == 1 or torch.is_grad_enabled():
        return x.index_select(1, order)
    return x.gather(1, order.expand(len(x), -1))


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
        # groups one after another, then the rest
        self._outputs = [*(sizes.parts * r for r in sizes.rows), *([sizes.rest] if sizes.rest else ())]
        outputs = sum(self._outputs)
        self.bias = nn.Parameter(torch.empty(outputs))
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

    def feeds(self, exit_: GroupedLinear) -> bool:
        """Whether block g of `exit_` reads what block g of this entry gives, and nothing else."""
        moved = self.scatter is not None or exit_.gather is not None
        return not moved and not self.sizes.rest and self.sizes.rows == exit_.sizes.columns

    def inputs(self, x: Tensor) -> tuple[Tensor, ...]:
        """(..., inputs) -> one (tokens, columns[g]) per group."""
        x = x.flatten(0, -2)  # two dimensions: a slice of columns then needs no copy before the product
        if self.gather is not None:
            x = take_columns(x, self.gather)
        inputs: tuple[Tensor, ...] = x.split(self.sizes.columns, dim=1)
        return inputs

    def blocks(self) -> list[tuple[Tensor, Tensor]]:
        """Weight and bias of each group: all at once, as looking one up costs as much as a small product.

        So does `parameters()`, which sees to names and duplicates.
        """
        weights: list[Any] = list(self.weights._parameters.values())  # noqa: SLF001
        if self.sizes.zeros and torch.is_grad_enabled():
            # in training, zeros get no gradient where they are to stay
            weights = [weight * (weight.detach() != 0) for weight in weights]
        return list(zip(weights, self.bias.split(self._outputs), strict=False))  # the rest has a bias alone

    def join(self, outputs: Sequence[Tensor], leading: Sequence[int]) -> Tensor:
        """(tokens, rows[g]) of each group -> (*leading, outputs), for `parts` = 1."""
        found = list(outputs)
        if self.sizes.rest:
            found.append(self.bias[-self.sizes.rest :].expand(found[0].shape[0], -1).to(found[0].dtype))
        y = found[0] if len(found) == 1 else torch.cat(found, dim=1)
        if self.scatter is not None:
            y = take_columns(y, self.scatter)
        return y.view(*leading, y.shape[1])

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs), for `parts` = 1."""
        pairs = zip(self.inputs(x), self.blocks(), strict=True)
        return self.join([F.linear(z, *block) for z, block in pairs], x.shape[:-1])

    def groups(self, x: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """(..., inputs) -> for each group in turn, `parts` tensors (..., rows[g])."""
        for z, block in zip(self.inputs(x), self.blocks(), strict=True):
            y = F.linear(z, *block)
            yield y.view(*x.shape[:-1], y.shape[1]).chunk(self.sizes.parts, dim=-1)

    def forward_parts(self, x: Tensor) -> tuple[Tensor, ...]:
        """(..., inputs) -> `parts` tensors (..., part_size); of several, each has the groups one after another."""
        if self.sizes.parts == 1:
            return (self(x),)
        return tuple(torch.cat(part, dim=-1) for part in zip(*self.groups(x), strict=True))


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
        # detached, or tools that hook modules (MemTracker) take it for the parameter that it is a view of
        bias = self.bias if torch.is_grad_enabled() else self.bias.detach()
        return bias.expand(*x.shape[:-1], -1)


def run_sublayer(entry: Entry, exit_: GroupedLinear, mix: Callable[[tuple[Tensor, ...]], Tensor], x: Tensor) -> Tensor:
    """(B, L, hidden) -> (B, L, hidden), before residual and LayerNorm.

    Where groups own whole units each is run from the entry to the exit by itself. Nothing is put together in between,
    and what a group computes stays in the cache: the feed-forward of BERT-base, 8 x 128 tokens on one core, reaches
    0.99, 0.84 and 0.68 of its ideal speed-up with 2, 4 and 8 groups; put together before the activation, 0.78, 0.77 and
    0.59; as batched products, with their transposed copies, 0.86, 0.71 and 0.65. Only of a single short text (1 x 32)
    are batched products an eighth faster.

    Args:
        mix: from the outputs of the entry matrices, each (B, L, units), to what the exit reads, (B, L, units).
    """
    if isinstance(entry, SeparateLinears) or not entry.feeds(exit_):
        output: Tensor = exit_(mix(entry.forward_parts(x)))
        return output
    pairs = zip(entry.groups(x), exit_.blocks(), strict=True)
    return exit_.join([F.linear(mix(parts).flatten(0, -2), *block) for parts, block in pairs], x.shape[:-1])


def entry_module(linears: Sequence[GroupedLinear]) -> Entry:
    """The entry of a sublayer that is not dropped."""
    return linears[0] if len(linears) == 1 else SeparateLinears(linears)

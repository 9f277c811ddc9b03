"""Magnitude pruning: the smallest weights become zeros, wherever they are (Han et al., 2015, arXiv 1506.02626).

The baseline for what zeros alone do: every matrix keeps its full size, so nothing gets faster or smaller. As in the
source, each matrix loses the same share of its weights below a threshold of its own. What differs: one shot instead of
several rounds of pruning and training; biases stay; and the kept weights can be refitted like those of every other
method (`least_squares.ridge`), which the source does not do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pgb_core.architectures import Sublayer
from pgb_core.layout import BoolArray, MatrixLayout
from pgb_core.matrixwise import MatrixwiseLayout, matrix_sizes, whole_matrix


@torch.no_grad()
def magnitude_layouts(
    sublayers: Sequence[Sublayer], density: float, *, whole_network: bool = False
) -> list[MatrixwiseLayout]:
    """One layout per sublayer, in which the share `density` of the weights, the largest by magnitude, is kept.

    Args:
        whole_network: one threshold for all matrices, so that each may lose another share; by default each has its own.
    """
    weights = [linear.weight.abs() for sub in sublayers for linear in (*sub.entries, sub.exit)]
    if whole_network:
        sizes = [weight.numel() for weight in weights]
        kept = list(_largest(torch.cat([weight.flatten() for weight in weights]), density).split(sizes))
    else:
        kept = [_largest(weight.flatten(), density) for weight in weights]
    supports = iter([mask.view_as(weight).cpu().numpy() for mask, weight in zip(kept, weights, strict=True)])
    return [
        MatrixwiseLayout(sub.shape, tuple(_sparse(name, next(supports)) for name in matrix_sizes(sub.shape)))
        for sub in sublayers
    ]


def _largest(values: Tensor, share: float) -> Tensor:
    """(n,) boolean, true for `share` of the (n,) values, rounded down: the largest."""
    kept = torch.zeros_like(values, dtype=torch.bool)
    kept[values.topk(math.floor(share * len(values) + 1e-6), sorted=False).indices] = True
    return kept


def _sparse(name: str, support: BoolArray) -> MatrixLayout:
    whole = whole_matrix(name, *support.shape)
    return MatrixLayout(name, whole.rows, whole.columns, whole.row_groups, whole.column_groups, support)

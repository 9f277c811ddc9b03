"""Magnitude pruning: the smallest weights become zeros, wherever they are (Han et al., 2015, arXiv 1506.02626).

The baseline for what zeros alone do: every matrix keeps its full size, so nothing gets faster or smaller. As in the
source, each matrix loses the same share of its weights below a threshold of its own. What differs: one shot instead of
several rounds of pruning and training; biases stay; and the kept weights can be refitted like those of every other
method (`least_squares.ridge`), which the source does not do.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from pgb_core.architectures import Sublayer
from pgb_core.matrixwise import MatrixwiseLayout, largest, matrix_sizes, sparse_matrix


@torch.no_grad()
def magnitude_layouts(
    sublayers: Sequence[Sublayer], density: float, *, whole_network: bool = False
) -> list[MatrixwiseLayout]:
    """One layout per sublayer, in which the share `density` of the weights, the largest by magnitude, is kept.

    Args:
        whole_network: one threshold for all matrices, so that each may lose another share; by default each has its own.
    """
    weights = [linear.weight.abs().cpu().numpy() for sub in sublayers for linear in (*sub.entries, sub.exit)]
    if whole_network:
        kept = largest(np.concatenate([weight.ravel() for weight in weights]), density)
        places = np.cumsum([weight.size for weight in weights])[:-1]
        flat = np.split(kept, places)
        supports = iter([mask.reshape(weight.shape) for mask, weight in zip(flat, weights, strict=True)])
    else:
        supports = iter([largest(weight, density) for weight in weights])
    return [
        MatrixwiseLayout(sub.shape, tuple(sparse_matrix(name, next(supports)) for name in matrix_sizes(sub.shape)))
        for sub in sublayers
    ]

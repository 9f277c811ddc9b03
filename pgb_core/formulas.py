"""The formulas of importance and refit, written once for arrays of numpy and of torch.

The stages compute with torch, on whole networks. The Learn page shows the same formulas on a matrix of 12 x 12 and must
not wait for torch, whose import takes seconds; so what both use is here, and nothing in this file imports torch.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Array = TypeVar("Array", "Tensor", NDArray[np.float64])

GRAM_DAMPING = 1e-3
"""Added to a Gram matrix's diagonal before it is inverted, relative to the mean of the diagonal."""
REFIT_DAMPING = 1e-2
"""Pull towards the current weights, relative to the Gram matrix's mean diagonal. On tweets 1e-3 fits the calibration
text too closely where little is removed, 1e-1 too loosely where much is."""
_BIAS_DAMPING = 1e-6
"""Of the other inputs' damping: the bias may move freely, but a constant input stays solvable."""


def compensated_importance(weight: Array, sensitivity: Array, inverse_diag: Array) -> Array:
    """s_ij = 1/2 q_i w_ij^2 / [H^-1]_jj: the loss when w_ij goes and its row makes up for it (Hassibi and Stork, 1993).

    Args:
        weight: (N, M).
        sensitivity: (N,) q.
        inverse_diag: (M,) diagonal of H^-1.
    """
    return 0.5 * sensitivity[:, None] * (weight * weight) / inverse_diag


def fisher_importance(weight: Array, fisher: Array) -> Array:
    """s_ij = 1/2 w_ij^2 F_ij: the loss when w_ij goes and nothing makes up for it (LeCun et al., 1990)."""
    return 0.5 * (weight * weight) * fisher


def damped(gram: Array, damping: float = GRAM_DAMPING) -> Array:
    """`gram` with `damping` times its mean diagonal added to the diagonal."""
    return _raised(gram, damping * gram.diagonal().mean())


def ridge_equations(cross: Array, gram: Array, current: Array, damping: float = REFIT_DAMPING) -> tuple[Array, Array]:
    """The A and C of the refit's equations W A = C: A = H + lambda D, C = B + lambda W0 D.

    H = X X^T, B = Y X^T, D = identity with almost 0 for the bias; lambda = `damping` times the mean diagonal of H, the
    constant left out. Ridge regression towards W0.

    Args:
        cross: (N, k + 1), B.
        gram: (k + 1, k + 1), H, the constant last.
        current: (N, k + 1), W0.
    """
    library = _library(gram)
    scale = gram.diagonal()[:-1].mean() if len(gram) > 1 else gram[-1, -1]
    pull = library.full((len(gram),), float(damping * scale), dtype=gram.dtype, device=gram.device)
    pull[-1] *= _BIAS_DAMPING
    return _raised(gram, pull), cross + current * pull


def _raised(gram: Array, pull: Any) -> Array:
    """A copy of `gram` with `pull` added to its diagonal; a matrix of zeros beside it would take as much again."""
    raised: Any = gram + 0.0
    raised.reshape(-1)[:: len(gram) + 1] += pull
    found: Array = raised
    return found


def _library(array: Any) -> Any:
    """The module that makes arrays like this one; whoever has a tensor has loaded torch."""
    return np if isinstance(array, np.ndarray) else sys.modules["torch"]

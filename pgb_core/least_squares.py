"""The refit of one block of weights by ridge regression, whole or where zeros have to stay zeros.

Weights W0 that are to give Y from inputs X become

    W = (B + lambda W0 D) (H + lambda D)^-1,   H = X X^T,  B = Y X^T,  D = identity with almost 0 for the bias

(`formulas.ridge_equations`). With zeros every row has inputs of its own, its support S, and solves its own system:
A = H + lambda D restricted to S.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pgb_core.formulas import REFIT_DAMPING, ridge_equations
from pgb_core.importance import solve_dtype

_CHUNK_BYTES = 2**27
"""Systems that are held at once, by their size."""


def ridge(
    cross: Tensor, gram: Tensor, current: Tensor, support: Tensor | None = None, damping: float = REFIT_DAMPING
) -> Tensor:
    """(N, k + 1) weights and bias (last) that fit the targets, drawn towards `current` (module docstring).

    Args:
        cross: (N, k + 1), B.
        gram: (k + 1, k + 1), H, the constant last.
        current: (N, k + 1), W0.
        support: (N, k), true where a weight may differ from zero; None: everywhere.
    """
    dtype = solve_dtype(gram.device)
    gram, cross, current = gram.to(dtype), cross.to(dtype), current.to(dtype)
    for _ in range(4):  # float32 on a GPU may need more damping than asked for
        system, target = ridge_equations(cross, gram, current, damping)
        factor, failed = torch.linalg.cholesky_ex(system)
        if not bool(failed):
            break
        damping *= 10
    if support is None:
        solution: Tensor = torch.cholesky_solve(target.T, factor).T
    else:
        solution = _sparse(system, factor, target, torch.cat([support, support.new_ones(len(support), 1)], dim=1))
    return solution.to(torch.float32)


def _sparse(system: Tensor, factor: Tensor, target: Tensor, support: Tensor) -> Tensor:
    """Row by row w A = t on its support, zero elsewhere; (N, k + 1).

    Where fewer weights are removed than stay, they are eliminated instead (Hassibi and Stork, Optimal Brain Surgeon,
    1993, for sets): with P = A^-1, R the removed ones and u = t P, w = u - u_R (P_RR)^-1 P_R.
    """
    if 2 * int(support.sum()) <= support.numel():
        return principal_solve(system, support, target)
    inverse = torch.cholesky_inverse(factor)
    whole = target @ inverse
    removed: Tensor = whole - principal_solve(inverse, ~support, whole) @ inverse
    return removed * support


def principal_solve(matrix: Tensor, chosen: Tensor, target: Tensor) -> Tensor:
    """(N, k): x_S with matrix[S, S] x_S = target_S for the set S of each row, zero outside.

    Args:
        matrix: (k, k), symmetric positive definite.
        chosen: (N, k) boolean, the sets.
        target: (N, k).
    """
    solution = torch.zeros_like(target)
    counts = chosen.sum(dim=1)
    order = counts.argsort(descending=True, stable=True)  # rows of like size together: less to pad
    start = 0
    while start < len(order) and (size := int(counts[order[start]])):
        rows = order[start : start + max(1, _CHUNK_BYTES // (size * size * matrix.element_size()))]
        start += len(rows)
        index = chosen[rows].to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :size]  # (n, size)
        real = torch.arange(size, device=matrix.device) < counts[rows][:, None]
        systems = matrix[index[:, :, None], index[:, None, :]]
        systems *= real[:, :, None] & real[:, None, :]
        systems.diagonal(dim1=1, dim2=2)[~real] = 1.0  # padding: equations x = 0
        right = target[rows].gather(1, index) * real
        found = torch.cholesky_solve(right[:, :, None], torch.linalg.cholesky(systems)).squeeze(2)
        solution[rows] = torch.zeros_like(solution[rows]).scatter(1, index, found)
    return solution

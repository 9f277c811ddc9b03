"""PGB on one small matrix, every intermediate value at hand: what the Learn page shows.

One linear layer y = W x of 12 outputs and 12 inputs stands for a network: no bias, no layers around it, and every
output counts the same. The stages are the pruner's own: importance and the refit's equations from `formulas`, grouping
from `grouping`, layouts from `layout` and `matrixwise`. They run in numpy, in this process: whoever edits the matrix
waits milliseconds, where a child process that imports torch would take seconds. Only the refit's small linear systems
are solved by numpy here and by torch there (`least_squares`).

Beside PGB the same matrix is pruned in three other shapes at the same density and by the same importance: single
weights, whole rows, and heads of three consecutive rows. Only the shape differs, so only the shape explains the errors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pgb_core.formulas import compensated_importance, damped, ridge_equations
from pgb_core.grouping import FloatArray, blocks, equal_shares, group
from pgb_core.layout import IntArray, MatrixLayout, unit_rows
from pgb_core.matrixwise import largest, sparse_matrix

SIZE = 12
"""Rows and columns of the matrix."""
HEAD = 3
"""Consecutive rows that make up a head."""
LARGEST = 9.9
"""Largest magnitude of a weight; weights have one decimal."""
DENSITIES = (0.25, 0.5)
"""Those that whole heads of three rows and equal groups can reach exactly."""
CORRELATIONS = (0.0, 0.6, 0.9)
"""Share of each input's variance that it has in common with the others."""
Method = Literal["unstructured", "rows", "heads", "pgb"]
STRUCTURED: tuple[Method, ...] = ("pgb", "rows", "heads")


@dataclass(frozen=True, eq=False)
class Outcome:
    """The matrix, pruned by one method; errors are shares of the mean squared output, mean |y|^2."""

    method: Method
    layout: MatrixLayout
    kept_importance: float
    """Share of the importance of all weights that lies in what is kept."""
    pruned: FloatArray
    """(12, 12), zero where weights are removed, the others as they were"""
    refitted: FloatArray
    """(12, 12), after the refit"""
    error_before: float
    """mean |W x - W_pruned x|^2 / mean |W x|^2"""
    error_after: float


@dataclass(frozen=True, eq=False)
class Lesson:
    """All that the steps show of one matrix."""

    matrix: FloatArray
    """(12, 12) W"""
    gram: FloatArray
    """(12, 12) H = mean x x^T"""
    importance: FloatArray
    """(12, 12)"""
    groups: int
    density: float
    outcomes: dict[Method, Outcome]

    @property
    def pgb(self) -> Outcome:
        return self.outcomes["pgb"]

    @property
    def best_structured(self) -> Outcome:
        """The structured method with the least error after the refit; among equals the one named first."""
        return min((self.outcomes[method] for method in STRUCTURED), key=lambda outcome: outcome.error_after)


def group_choices(density: float) -> tuple[int, ...]:
    """Numbers of equal groups that reach `density` exactly: G groups over all rows and columns keep 1/G at most.

    >>> group_choices(0.25), group_choices(0.5)
    ((2, 3, 4), (2,))
    """
    return tuple(g for g in range(2, SIZE + 1) if SIZE % g == 0 and density * g <= 1 + 1e-9)


def inputs_gram(correlation: float, seed: int = 0) -> FloatArray:
    """(12, 12) Gram matrix of inputs with mean 0 and variance 1 that share three hidden causes.

    Args:
        correlation: 0 (independent, H is the identity) to below 1: the share of the variance that the causes explain.
        seed: of the causes' random weights.
    """
    causes = np.random.default_rng(seed).standard_normal((SIZE, 3))
    causes /= np.linalg.norm(causes, axis=1, keepdims=True)
    shared: FloatArray = (1 - correlation) * np.eye(SIZE) + correlation * causes @ causes.T
    return shared


def learn(matrix: FloatArray, *, groups: int, density: float, correlation: float = 0.0, seed: int = 0) -> Lesson:
    """Prune `matrix` in all four shapes.

    Args:
        matrix: (12, 12).
        groups: of PGB, one of `group_choices(density)`.
        density: one of `DENSITIES`.
        correlation: of the inputs, see `inputs_gram`.
        seed: of the inputs.

    Raises:
        ValueError: another shape, a weight that is not finite, or a density or number of groups that cannot be.
    """
    if matrix.shape != (SIZE, SIZE) or not np.isfinite(matrix).all():
        raise ValueError(f"The lesson needs {SIZE} x {SIZE} finite weights.")
    if density not in DENSITIES or groups not in group_choices(density):
        raise ValueError(f"{groups} equal groups cannot keep {density:.0%} of the weights.")
    gram = inputs_gram(correlation, seed)
    inverse: FloatArray = np.asarray(np.linalg.inv(damped(_with_constant(gram))), dtype=np.float64)
    importance: FloatArray = compensated_importance(matrix, np.ones(SIZE), inverse.diagonal()[:-1])
    layouts: dict[Method, MatrixLayout] = {
        "unstructured": sparse_matrix("matrix", largest(importance, density)),
        "rows": _units(importance, density, 1),
        "heads": _units(importance, density, HEAD),
        "pgb": _groups(importance, density, groups),
    }
    outcomes = {method: _outcome(method, matrix, gram, importance, layout) for method, layout in layouts.items()}
    return Lesson(matrix, gram, importance, groups, density, outcomes)


# --- what stays ----------------------------------------------------------------------------------------------------


def _units(importance: FloatArray, density: float, width: int) -> MatrixLayout:
    """Classical structured pruning: the units of `width` consecutive rows with the greatest sums of importance."""
    units = _most_important(importance.reshape(SIZE // width, -1).sum(axis=1), round(density * SIZE / width))
    return MatrixLayout("matrix", SIZE, SIZE, (unit_rows(units, width),), (np.arange(SIZE),))


def _groups(importance: FloatArray, density: float, groups: int) -> MatrixLayout:
    """PGB: the most important rows, as many as the density allows, in equal groups that share out all columns.

    The start that needs scikit-learn is left out, for its import takes seconds; so small a matrix is served as well by
    a few more random ones.
    """
    rows = _most_important(importance.sum(axis=1), round(density * groups * SIZE))
    scores = importance[rows]
    starts = [("greedy", 0), *(("random", seed) for seed in range(9))]
    found = [group(scores, equal_shares(groups), starts=(start,), seed=seed) for start, seed in starts]
    units, columns = zip(*blocks(scores, max(found, key=lambda grouping: grouping.kept)), strict=True)
    return MatrixLayout("matrix", SIZE, SIZE, tuple(rows[u] for u in units), columns)


def _most_important(importance: FloatArray, count: int) -> IntArray:
    """(count,) indices in ascending order; of equals the first."""
    return np.sort(np.argsort(-importance, kind="stable")[:count])


# --- what it costs -------------------------------------------------------------------------------------------------


def _outcome(
    method: Method, matrix: FloatArray, gram: FloatArray, importance: FloatArray, layout: MatrixLayout
) -> Outcome:
    pruned = np.where(layout.mask(), matrix, 0.0)
    refitted = _refit(matrix, gram, layout)
    total = float(importance.sum())
    return Outcome(
        method,
        layout,
        sum(layout.block_sums(importance)) / total if total else 1.0,
        pruned,
        refitted,
        reconstruction_error(matrix, pruned, gram),
        reconstruction_error(matrix, refitted, gram),
    )


def reconstruction_error(matrix: FloatArray, pruned: FloatArray, gram: FloatArray) -> float:
    """Mean |W x - W' x|^2 / mean |W x|^2 over inputs with Gram matrix `gram`; 0 where W gives nothing anyway."""
    change = matrix - pruned
    total = float(np.einsum("ij,jk,ik", matrix, gram, matrix))
    return float(np.einsum("ij,jk,ik", change, gram, change)) / total if total else 0.0


def _refit(matrix: FloatArray, gram: FloatArray, layout: MatrixLayout) -> FloatArray:
    """(12, 12): the equations of the refit, block by block, each row solved over its kept inputs and the bias.

    The inputs have mean 0 and the targets no bias, so that the one fitted is 0.
    """
    full = _with_constant(gram)
    dense = np.pad(matrix, ((0, 0), (0, 1)))  # (12, 13), the bias last
    cross = dense @ full  # B = Y X^T, for Y = W X
    refitted = np.zeros_like(matrix)
    kept = layout.mask()
    for rows, columns in zip(layout.row_groups, layout.column_groups, strict=True):
        inputs = np.append(columns, SIZE)
        system, target = ridge_equations(
            cross[np.ix_(rows, inputs)], full[np.ix_(inputs, inputs)], dense[np.ix_(rows, inputs)]
        )
        for row, right in zip(rows, target, strict=True):
            stays = np.append(kept[row, columns], True)
            refitted[row, columns[stays[:-1]]] = np.linalg.solve(system[np.ix_(stays, stays)], right[stays])[:-1]
    return refitted


def _with_constant(gram: FloatArray) -> FloatArray:
    """(13, 13) Gram matrix of the inputs with a constant 1 appended; as their mean is 0, it correlates with none."""
    full = np.eye(SIZE + 1)
    full[:-1, :-1] = gram
    return full


# --- matrices to begin with ----------------------------------------------------------------------------------------


def preset(name: str, seed: int) -> FloatArray:
    """(12, 12) matrix of one of `PRESETS`, rounded to one decimal.

    Raises:
        KeyError: there is no such preset.
    """
    rng = np.random.default_rng(seed)
    return rounded(PRESETS[name](rng))


def rounded(matrix: NDArray[np.float64]) -> FloatArray:
    """`matrix` with one decimal, within +-9.9, and without negative zeros."""
    kept: FloatArray = np.clip(np.round(matrix, 1), -LARGEST, LARGEST) + 0.0
    return kept


def _magnitudes(rng: np.random.Generator, low: float, high: float) -> FloatArray:
    """(12, 12) of random signs, with magnitudes between `low` and `high`."""
    signs = rng.choice([-1.0, 1.0], (SIZE, SIZE))
    found: FloatArray = signs * rng.uniform(low, high, (SIZE, SIZE))
    return found


def _planted(rng: np.random.Generator) -> FloatArray:
    """Four blocks of 3 x 3 large weights, hidden by shuffled rows and columns."""
    rows, columns = (rng.permutation(np.repeat(np.arange(4), SIZE // 4)) for _ in range(2))
    small = _magnitudes(rng, 0.0, 0.2)
    return np.where(rows[:, None] == columns, _magnitudes(rng, 0.8, 1.6), small)


def _scaled_rows(rng: np.random.Generator) -> FloatArray:
    """Three rows of large weights."""
    strong = rng.permutation(SIZE) < SIZE // 4
    return np.where(strong[:, None], _magnitudes(rng, 0.5, 1.6), _magnitudes(rng, 0.0, 0.12))


def _random(rng: np.random.Generator) -> FloatArray:
    return rng.standard_normal((SIZE, SIZE))


def _heavy_tailed(rng: np.random.Generator) -> FloatArray:
    """Student's t with 2 degrees of freedom: a few weights are very large."""
    return 0.5 * rng.standard_t(2, (SIZE, SIZE))


PRESETS: dict[str, Callable[[np.random.Generator], FloatArray]] = {
    "planted": _planted,
    "rows": _scaled_rows,
    "random": _random,
    "heavy": _heavy_tailed,
}

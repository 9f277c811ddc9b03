"""The refit of a block against numpy's least squares."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pgb_core import least_squares
from pgb_core.least_squares import principal_solve, ridge

FloatArray = NDArray[np.float64]


def problem(seed: int, inputs: int, outputs: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Inputs with a constant, targets and present weights."""
    rng = np.random.default_rng(seed)
    x = np.column_stack([rng.normal(size=(40, inputs)), np.ones(40)])
    return x, rng.normal(size=(40, outputs)), rng.normal(size=(outputs, inputs + 1))


def reference(x: FloatArray, y: FloatArray, current: FloatArray, damping: float) -> FloatArray:
    """Ridge regression as plain least squares with one more row for each weight; for any subset of the inputs."""
    pull = damping * np.append(np.ones(x.shape[1] - 1), 1e-6)
    rows = np.vstack([x, np.diag(np.sqrt(pull))])
    targets = np.vstack([y, np.sqrt(pull)[:, None] * current.T])
    return np.linalg.lstsq(rows, targets, rcond=None)[0].T


def fitted(x: FloatArray, y: FloatArray, current: FloatArray, support: NDArray[np.bool_] | None = None) -> FloatArray:
    cross, gram, current = (torch.from_numpy(a) for a in (y.T @ x, x.T @ x, current))
    found = ridge(cross, gram, current, None if support is None else torch.from_numpy(support), damping=1e-2)
    return found.numpy()


@given(st.integers(0, 2**20), st.integers(1, 6), st.integers(1, 4))
def test_ridge_equals_augmented_least_squares(seed: int, inputs: int, outputs: int) -> None:
    x, y, current = problem(seed, inputs, outputs)
    damping = 1e-2 * np.mean(np.diag(x.T @ x)[:-1])
    assert np.allclose(fitted(x, y, current), reference(x, y, current, damping), atol=1e-4)


@given(st.integers(0, 2**20), st.integers(1, 9), st.integers(1, 6), st.floats(0, 1))
def test_with_zeros_each_row_is_least_squares_on_its_own_inputs(
    seed: int, inputs: int, outputs: int, density: float
) -> None:
    x, y, current = problem(seed, inputs, outputs)
    support = np.random.default_rng(seed).random((outputs, inputs)) < density
    current[:, :-1] *= support
    damping = 1e-2 * np.mean(np.diag(x.T @ x)[:-1])
    found = fitted(x, y, current, support)
    assert not found[:, :-1][~support].any()
    for i in range(outputs):
        kept = np.append(support[i], True)
        expected = reference(x[:, kept], y[:, i : i + 1], current[i : i + 1, kept], damping)
        assert np.allclose(found[i, kept], expected[0], atol=1e-4)


def test_a_full_support_is_no_support() -> None:
    x, y, current = problem(0, 5, 3)
    assert np.allclose(fitted(x, y, current, np.ones((3, 5), dtype=bool)), fitted(x, y, current), atol=1e-6)


@pytest.mark.parametrize("memory", [1, 700, 2**27])
def test_sets_of_any_size_are_solved_whatever_fits_into_memory(memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(least_squares, "_CHUNK_BYTES", memory)
    rng = np.random.default_rng(0)
    root = rng.normal(size=(9, 9))
    matrix, target = root @ root.T + np.eye(9), rng.normal(size=(20, 9))
    chosen = rng.random((20, 9)) < np.linspace(0, 1, 20)[:, None]
    chosen[0], chosen[-1] = False, True
    found = principal_solve(*(torch.from_numpy(a) for a in (matrix, chosen, target))).numpy()
    for i, kept in enumerate(chosen):
        assert not found[i, ~kept].any()
        assert np.allclose(matrix[np.ix_(kept, kept)] @ found[i, kept], target[i, kept])

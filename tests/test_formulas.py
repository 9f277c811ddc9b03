"""One formula, two libraries: what numpy computes for the lesson is what torch computes for the network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pgb_core import importance
from pgb_core.formulas import compensated_importance, damped, fisher_importance, ridge_equations
from pgb_core.least_squares import ridge


def problem(seed: int, inputs: int, outputs: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """B, H and W0 of inputs with a constant."""
    rng = np.random.default_rng(seed)
    x = np.column_stack([rng.normal(size=(50, inputs)), np.ones(50)])
    return rng.normal(size=(50, outputs)).T @ x, x.T @ x, rng.normal(size=(outputs, inputs + 1))


@given(st.integers(0, 2**20), st.integers(1, 8), st.integers(1, 5))
def test_numpy_and_torch_give_the_same(seed: int, inputs: int, outputs: int) -> None:
    cross, gram, current = problem(seed, inputs, outputs)
    weight, q = current[:, :-1], np.abs(cross[:, 0])
    b, h, w0, w, s = (torch.from_numpy(np.ascontiguousarray(a)) for a in (cross, gram, current, weight, q))
    np.testing.assert_allclose(damped(gram), damped(h).numpy())
    variance = np.linalg.inv(damped(gram)).diagonal()[:-1]
    found = compensated_importance(weight, q, variance)
    np.testing.assert_allclose(found, compensated_importance(w, s, importance.inverse_diagonal(h)).numpy(), rtol=1e-6)
    np.testing.assert_allclose(fisher_importance(weight, weight), fisher_importance(w, w).numpy())
    for ours, theirs in zip(ridge_equations(cross, gram, current), ridge_equations(b, h, w0), strict=True):
        np.testing.assert_allclose(ours, theirs.numpy())


@given(st.integers(0, 2**20), st.integers(1, 8), st.integers(1, 5))
def test_the_equations_solved_by_numpy_are_the_refit_of_the_network(seed: int, inputs: int, outputs: int) -> None:
    cross, gram, current = problem(seed, inputs, outputs)
    system, target = ridge_equations(cross, gram, current)
    solved = np.linalg.solve(system, target.T).T
    np.testing.assert_allclose(solved, ridge(*map(torch.from_numpy, (cross, gram, current))).numpy(), atol=1e-4)


def test_the_pull_leaves_the_bias_nearly_free() -> None:
    cross, gram, current = problem(0, 3, 2)
    system, target = ridge_equations(cross, gram, current, damping=0.5)
    pull = (system - gram).diagonal()
    assert pull[:-1] == pytest.approx(0.5 * gram.diagonal()[:-1].mean())
    assert pull[-1] == pytest.approx(1e-6 * pull[0])
    np.testing.assert_allclose(target, cross + current * pull)

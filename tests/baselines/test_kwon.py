"""Mask search against every subset, rearrangement by its objective, tuning against numpy's least squares."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pgb_core.baselines import kwon as module
from pgb_core.baselines.kwon import rearrange, scale_system, search, solve, tune
from pgb_core.baselines.units import exit_sums, layout_of
from pgb_core.compensation import States, advance, first_states
from pgb_core.grouped import cut
from pgb_core.layout import dropped_layout, unit_rows, untouched_layout
from tests.network import Network

SCORES = st.lists(st.integers(0, 50), min_size=1, max_size=3)


@given(SCORES, SCORES, SCORES, st.integers(2, 5), st.integers(0, 16))
def test_the_search_finds_the_best_of_all_masks(
    heads: list[int], neurons: list[int], more: list[int], price: int, budget: int
) -> None:
    """Two feed-forward sublayers share one ranking; nothing has to be spent."""
    scores = [np.array(s, dtype=float) for s in (heads, neurons, more)]
    kept = search(scores, np.array([True, False, False]), [price, 1, 1], budget, slack=budget)
    flat, costs = heads + neurons + more, [price] * len(heads) + [1] * len(neurons + more)
    best = max(float(np.dot(flat, bits)) for bits in product([0, 1], repeat=len(flat)) if np.dot(costs, bits) <= budget)
    assert sum(float(s[units].sum()) for s, units in zip(scores, kept, strict=True)) == best
    assert sum(c * len(units) for c, units in zip([price, 1, 1], kept, strict=True)) <= budget


def test_the_search_spends_the_budget_where_it_can() -> None:
    scores, heads = [np.array([3.0, 1.0]), np.array([9.0, 8.0, 7.0])], np.array([True, False])
    found = [[units.tolist() for units in search(scores, heads, [4, 1], 6, slack)] for slack in (3, 2)]
    assert found == [[[], [0, 1, 2]], [[0], [0, 1]]]
    assert [len(units) for units in search(scores, heads, [4, 1], 100, 0)] == [2, 3]


@given(st.integers(0, 2**20), st.integers(2, 9), st.integers(1, 6))
def test_rearrangement_never_raises_the_quadratic_form(seed: int, units: int, samples: int) -> None:
    rng = np.random.default_rng(seed)
    gradients = rng.normal(size=(samples, units)) + rng.normal(size=(samples, 1))
    fisher = gradients.T @ gradients
    kept = np.sort(rng.permutation(units)[: rng.integers(0, units + 1)])

    def form(keep: np.ndarray) -> float:
        return float(np.square(np.delete(gradients, keep, axis=1).sum(axis=1)).sum())

    found = rearrange(kept, fisher)
    assert len(found) == len(kept)
    assert sorted(set(found)) == found.tolist()
    assert form(found) <= form(kept) * (1 + 1e-9) + 1e-9


def test_rearrangement_removes_units_that_cancel_each_other() -> None:
    """By the diagonal units 0 and 1 go; 2 and 3 are larger, but their gradients are opposite."""
    gradients = np.array([[1.0, 1.0, 1.5, -1.5], [0.0, 0.0, 0.1, 0.0]])
    assert rearrange(np.array([2, 3]), gradients.T @ gradients).tolist() == [0, 1]


def drifted_states(network: Network, index: int) -> list[States]:
    """What sublayer `index` reads where every one below it kept two thirds of its units."""
    states = first_states(network.model, network.batches)
    for sub in network.sublayers[:index]:
        states = advance(sub, cut(sub, layout_of(sub.shape, np.arange(sub.shape.units * 2 // 3))), states)
    return states


@pytest.mark.parametrize(("index", "kept", "first_token"), [(1, 9, False), (2, 3, False), (3, 20, True)])
def test_the_normal_equations_equal_those_of_listed_outputs(
    network: Network, index: int, kept: int, first_token: bool
) -> None:
    sub, states = network.sublayers[index], drifted_states(network, index)
    layout = layout_of(sub.shape, np.arange(0, sub.shape.units)[-kept:])
    pruned = cut(sub, layout)
    with torch.no_grad():
        matrix, right = scale_system(sub, layout, exit_sums(sub, pruned, states, first_token=first_token))
        columns = torch.from_numpy(unit_rows(layout.groups[0].units, sub.shape.width))
        rows, targets = [], []
        for state in states:
            counted = state.real & (torch.arange(state.real.shape[1]) < (1 if first_token else 99))
            z = sub.hidden(state.pruned, state.mask)[counted][:, columns].unflatten(1, (kept, sub.shape.width))
            outputs = torch.einsum("tkw,hkw->thk", z, sub.exit.weight[:, columns].unflatten(1, (kept, -1)))
            rows.append(outputs.flatten(0, 1))
            dense = sub.exit(sub.hidden(state.dense, state.mask)) + state.dense
            targets.append((dense - state.pruned - sub.exit.bias)[counted].flatten())
    design, target = torch.cat(rows).double().numpy(), torch.cat(targets).double().numpy()
    if sub.shape.kind == "attention":
        design = np.column_stack([design, np.ones(len(design))])
    assert np.allclose(matrix, design.T @ design, rtol=1e-4, atol=1e-4 * np.abs(design.T @ design).max())
    assert np.allclose(right, design.T @ target, rtol=1e-4, atol=1e-4 * np.abs(design.T @ target).max())


@given(st.integers(0, 2**20), st.integers(1, 6))
def test_the_solver_equals_least_squares(seed: int, units: int) -> None:
    rng = np.random.default_rng(seed)
    design = rng.normal(size=(400, units + 1))
    target = design @ rng.uniform(0.5, 2, size=units + 1) + rng.normal(size=400)
    found = solve(torch.from_numpy(design.T @ design), torch.from_numpy(design.T @ target), units)
    assert found is not None
    assert np.allclose(found, np.linalg.lstsq(design, target, rcond=None)[0][:units], atol=1e-3)


@pytest.mark.parametrize("sign", [1, -1])
def test_scales_out_of_range_are_refused(sign: int) -> None:
    matrix = 1000 * torch.eye(3)
    assert solve(matrix, sign * matrix @ torch.tensor([1.0, 9.9, 50.0]), units=2) is not None
    assert solve(matrix, sign * matrix @ torch.tensor([1.0, 10.1, 0.0]), units=2) is None


@pytest.mark.parametrize(("reason", "trusted"), [(1, True), (2, True), (3, False), (7, False)])
def test_a_solver_that_does_not_converge_is_refused(
    monkeypatch: pytest.MonkeyPatch, reason: int, trusted: bool
) -> None:
    monkeypatch.setattr(module, "lsmr", lambda *_, **__: (np.zeros(2), reason, 0, 0.0))
    assert (solve(torch.eye(2), torch.ones(2), units=2) is not None) == trusted


def test_tuning_lowers_the_error_of_a_feed_forward(network: Network) -> None:
    layouts = [untouched_layout(sub.shape) for sub in network.sublayers]
    layouts[1] = layout_of(network.sublayers[1].shape, np.arange(24))
    sub, states = network.sublayers[1], drifted_states(network, 0)
    states = advance(network.sublayers[0], cut(network.sublayers[0], layouts[0]), states)
    tuned = tune(network.model, network.sublayers, layouts, network.batches)[1]

    def error(pruned: object) -> float:
        with torch.no_grad():
            return sum(
                float((pruned(s.pruned, s.mask) - sub.exit(sub.hidden(s.dense, s.mask)))[s.real].square().sum())  # type: ignore[operator]
                for s in states
            )

    assert error(tuned) < 0.9 * error(cut(sub, layouts[1]))


def test_tuning_scales_the_exit_unit_by_unit_and_nothing_else(network: Network) -> None:
    layouts = [layout_of(sub.shape, np.arange(sub.shape.units * 2 // 3)) for sub in network.sublayers]
    tuned = tune(network.model, network.sublayers, layouts, network.batches)
    for i, (sub, layout, new) in enumerate(zip(network.sublayers, layouts, tuned, strict=True)):
        before = cut(sub, layout)
        assert before.entry is not None
        assert new.entry is not None
        assert torch.equal(new.entry.weights[0], before.entry.weights[0])
        assert torch.equal(new.exit.bias, before.exit.bias)
        ratio = (new.exit.weights[0] / before.exit.weights[0]).unflatten(1, (layout.kept_units, sub.shape.width))  # type: ignore[union-attr,index,operator]
        assert torch.allclose(ratio, ratio[:1, :, :1].expand_as(ratio), rtol=1e-3)
        assert bool((ratio == 1).all()) == (i == 0)  # the first attention is left alone


def test_all_above_refused_scales_stay_as_they_were(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([torch.full((42,), 2.0), None])
    monkeypatch.setattr(module, "solve", lambda *_: next(answers))
    layouts = [layout_of(sub.shape, np.arange(sub.shape.units * 2 // 3)) for sub in network.sublayers]
    tuned = tune(network.model, network.sublayers, layouts, network.batches)
    for sub, layout, new, factor in zip(network.sublayers, layouts, tuned, [1, 2, 1, 1], strict=True):
        assert torch.equal(new.exit.weights[0], factor * cut(sub, layout).exit.weights[0])  # type: ignore[union-attr,index,operator]


def test_a_sublayer_without_units_keeps_its_bias_as_the_masked_original_does(network: Network) -> None:
    layouts = [dropped_layout(sub.shape) for sub in network.sublayers]
    for sub, new in zip(
        network.sublayers, tune(network.model, network.sublayers, layouts, network.batches), strict=True
    ):
        assert torch.equal(new.exit.bias, sub.exit.bias)

"""Stage 4 against numpy's least squares and by what it must never do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from pgb_core.compensation import (
    ExitSums,
    States,
    advance,
    compensate,
    entry_sums,
    first_states,
    refit,
    refit_entry,
    refit_exit,
)
from pgb_core.formulas import REFIT_DAMPING
from pgb_core.grouped import cut, install
from pgb_core.layout import dropped_layout, rectangle_layout, untouched_layout
from tests.network import Network, layouts_of_all_kinds


def copies(states: Sequence[States]) -> list[States]:
    """For a refit that leaves `states` as they are."""
    return [replace(state, dense=state.dense.clone(), pruned=state.pruned.clone()) for state in states]


def test_a_dropped_sublayer_keeps_the_mean_of_its_target(network: Network) -> None:
    sub = network.sublayers[1]
    states = first_states(network.model, network.batches)
    pruned = cut(sub, dropped_layout(sub.shape))
    refit(sub, pruned, copies(states), network.weights[1])
    with torch.no_grad():
        outputs = torch.cat([sub.exit(sub.hidden(s.dense, s.mask))[s.real] for s in states])
        weights = torch.cat([s.weights_of(network.weights[1].exit) for s in states])
    assert torch.allclose(pruned.exit.bias, weights @ outputs / weights.sum(), atol=1e-5)


@pytest.mark.parametrize("index", range(4))
def test_the_refit_never_raises_the_calibration_error_of_its_matrix(network: Network, index: int) -> None:
    sub, weights = network.sublayers[index], network.weights[index]
    states = first_states(network.model, network.batches)
    for earlier in network.sublayers[:index]:
        states = advance(earlier, cut(earlier, untouched_layout(earlier.shape)), states)
    for layout in network.candidates[index]:
        if layout.dropped:
            continue
        pruned = cut(sub, layout)
        assert pruned.entry is not None

        def errors(pruned=pruned, layout=layout) -> tuple[float, float]:
            entry = exit_ = 0.0
            with torch.no_grad():
                for s in states:
                    x = s.dense[s.real]
                    heard, sent = (s.weights_of(w)[:, None] for w in (weights.entry, weights.exit))
                    kept = torch.from_numpy(np.concatenate([layout.unit_rows(g) for g in layout.groups]))
                    for part, linear in zip(pruned.entry.forward_parts(x), sub.entries, strict=True):
                        entry += float((heard * (part - linear(x)[:, kept]).square()).sum())
                    target = sub.exit(sub.hidden(s.dense, s.mask))
                    exit_ += float((sent * (pruned(s.dense, s.mask) - target)[s.real].square()).sum())
            return entry, exit_

        rounding = 1e-6 * sub.shape.inner * float(weights.entry.sum() + weights.exit.sum())
        before = errors()[0]
        gram, cross = entry_sums(sub, states, network.weights[index].entry)
        refit_entry(sub, pruned, gram, cross)
        after, exit_before = errors()
        assert after <= before * (1 + 1e-4) + rounding
        sums = ExitSums(layout, torch.device("cpu"))
        with torch.no_grad():
            for s in states:
                target = sub.exit(sub.hidden(s.dense, s.mask))
                hidden = pruned.hidden(s.dense, s.mask)
                sums.add(hidden[s.real], target[s.real], s.weights_of(network.weights[index].exit))
        refit_exit(sub, pruned, sums)
        assert errors()[1] <= exit_before * (1 + 1e-4) + rounding


def test_compensation_brings_the_logits_back_towards_the_dense_ones(network: Network) -> None:
    layouts = [candidates[-1] for candidates in network.candidates]
    batch = network.batches[0]
    refitted = compensate(network.model, network.sublayers, layouts, network.weights, network.batches)
    masked = [cut(sub, layout) for sub, layout in zip(network.sublayers, layouts, strict=True)]
    with torch.no_grad():
        dense = network.model(**batch.inputs).logits
        errors = [
            float((install(network.model, network.sublayers, p)(**batch.inputs).logits - dense).square().mean())
            for p in (masked, refitted)
        ]
    assert errors[1] < 0.2 * errors[0]


def test_keeping_everything_changes_nothing(network: Network) -> None:
    layouts = [untouched_layout(sub.shape) for sub in network.sublayers]
    kept = install(
        network.model,
        network.sublayers,
        compensate(network.model, network.sublayers, layouts, network.weights, network.batches),
    )
    with torch.no_grad():
        for batch in network.batches:
            assert torch.equal(kept(**batch.inputs).logits, network.model(**batch.inputs).logits)


# --- matrices that stand alone -------------------------------------------------------------------------------------


def augmented(x: np.ndarray, y: np.ndarray, current: np.ndarray, damping: float) -> np.ndarray:
    """Weights and bias, (k + 1,), of one output: ridge towards `current` as plain least squares in float64."""
    x = np.column_stack([x, np.ones(len(x))])
    pull = np.sqrt(damping * np.append(np.ones(x.shape[1] - 1), 1e-6))
    return np.linalg.lstsq(np.vstack([x, np.diag(pull)]), np.append(y, pull * current), rcond=None)[0]


@pytest.mark.parametrize("kind", ["untied", "zeros"])
@pytest.mark.parametrize("index", range(2))
def test_each_row_of_a_matrix_that_stands_alone_is_the_least_squares_fit_of_its_kept_inputs(
    network: Network, kind: str, index: int
) -> None:
    sub, layout = network.sublayers[index], layouts_of_all_kinds(network)[kind][index]
    states = first_states(network.model, network.batches)
    if index:
        first = network.sublayers[0]
        states = advance(first, cut(first, rectangle_layout(first.shape, np.array([0, 2, 3]))), states)
    pruned = cut(sub, layout)
    refit(sub, pruned, copies(states), network.equal_weights)
    assert pruned.entry is not None
    with torch.no_grad():
        dense, ours, hidden, target = (
            torch.cat(parts).double().numpy()
            for parts in zip(
                *(
                    (
                        s.dense[s.real],
                        s.pruned[s.real],
                        pruned.hidden(s.pruned, s.mask)[s.real],
                        (sub.exit(sub.hidden(s.dense, s.mask)) + s.dense - s.pruned)[s.real],
                    )
                    for s in states
                ),
                strict=True,
            )
        )
    problems = [
        (linear, ours, dense @ old.weight.detach().double().numpy().T + old.bias.detach().double().numpy(), old)
        for linear, old in zip(pruned.entry.linears, sub.entries, strict=True)
    ]
    for matrix, (linear, x, y, old) in zip(
        layout.matrices(), [*problems, (pruned.exit, hidden, target, sub.exit)], strict=True
    ):
        mask, eye = matrix.mask(), torch.eye(matrix.columns)
        with torch.no_grad():
            bias = linear(torch.zeros_like(eye[:1]))[0]
            found = (linear(eye) - bias).T.numpy()  # the module as a matrix, in the original order
        assert not found[~mask & (np.abs(found) > 1e-5)].any()
        for row in range(0, matrix.rows, 7):
            kept = np.flatnonzero(mask[row])
            # damping is relative to the Gram matrix that the fit is made of: the block's, or all inputs' with zeros
            inputs = x if kind == "zeros" else x[:, kept]
            damping = REFIT_DAMPING * float(np.square(inputs).sum(axis=0).mean())
            current = torch.cat([old.weight[row, kept], old.bias[row, None]]).detach().numpy()
            expected = augmented(x[:, kept], y[:, row], current, damping)
            np.testing.assert_allclose(found[row, kept], expected[:-1], atol=2e-3)
            np.testing.assert_allclose(bias[row], expected[-1], atol=5e-3)


@pytest.mark.parametrize("kind", ["untied", "zeros"])
@pytest.mark.parametrize("index", range(4))
def test_the_refit_of_a_matrix_that_stands_alone_never_raises_its_calibration_error(
    network: Network, kind: str, index: int
) -> None:
    sub, layout = network.sublayers[index], layouts_of_all_kinds(network)[kind][index]
    states = first_states(network.model, network.batches)
    for earlier in network.sublayers[:index]:
        states = advance(earlier, cut(earlier, untouched_layout(earlier.shape)), states)
    pruned = cut(sub, layout)
    assert pruned.entry is not None
    x = torch.cat([s.dense[s.real] for s in states])

    def entry_errors() -> list[float]:
        assert pruned.entry is not None
        pairs = zip(pruned.entry.forward_parts(x), sub.entries, strict=True)
        return [float((found - dense(x)).square().sum()) for found, dense in pairs]

    def exit_error() -> float:
        return sum(float((pruned(s.dense, s.mask) - t)[s.real].square().sum()) for s, t in targets)

    with torch.no_grad():
        targets = [(s, sub.exit(sub.hidden(s.dense, s.mask))) for s in states]
        before = entry_errors()
        refit_entry(sub, pruned, *entry_sums(sub, states, network.equal_weights.entry))
        after = entry_errors()
        for matrix, old, new in zip(layout.matrices(), before, after, strict=False):
            assert new <= old * (1 + 1e-4) + 1e-6 * len(x)
            assert matrix.density == 1 or new < 0.9 * old
        sums = ExitSums(layout, torch.device("cpu"))
        for s, target in targets:
            sums.add(pruned.hidden(s.dense, s.mask)[s.real], target[s.real], torch.ones(int(s.real.sum())))
        unfitted = exit_error()
        refit_exit(sub, pruned, sums)
        assert exit_error() <= unfitted * (1 + 1e-4)
    for linear in (*pruned.entry.linears, pruned.exit):
        held = sum(weight.numel() for weight in linear.weights)
        assert linear.removed == (0 if kind == "untied" else held - int(0.4 * held + 1e-6))

"""Stage 4 against numpy's least squares and by what it must never do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pgb_core.compensation import (
    ExitSums,
    advance,
    compensate,
    entry_sums,
    first_states,
    refit,
    refit_entry,
    refit_exit,
    ridge,
    with_constant,
)
from pgb_core.grouped import cut, install
from pgb_core.layout import dropped_layout, untouched_layout
from tests.network import Network


@given(st.integers(0, 2**20), st.integers(1, 6), st.integers(1, 4))
def test_ridge_equals_augmented_least_squares(seed: int, inputs: int, outputs: int) -> None:
    rng = np.random.default_rng(seed)
    x = np.column_stack([rng.normal(size=(40, inputs)), np.ones(40)])
    y, current = rng.normal(size=(40, outputs)), rng.normal(size=(outputs, inputs + 1))
    pull = 1e-2 * np.mean(np.diag(x.T @ x)[:-1]) * np.append(np.ones(inputs), 1e-6)
    rows = np.vstack([x, np.diag(np.sqrt(pull))])
    targets = np.vstack([y, np.sqrt(pull)[:, None] * current.T])
    expected = np.linalg.lstsq(rows, targets, rcond=None)[0].T
    found = ridge(*(torch.from_numpy(a) for a in (y.T @ x, x.T @ x, current)), damping=1e-2)
    assert np.allclose(found.numpy(), expected, atol=1e-4)


def test_a_dropped_sublayer_keeps_the_mean_of_its_target(network: Network) -> None:
    sub = network.sublayers[1]
    states = first_states(network.model, network.batches)
    pruned = cut(sub, dropped_layout(sub.shape))
    refit(sub, pruned, states, network.weights[1])
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


def test_with_constant_appends_ones() -> None:
    assert with_constant(torch.zeros(2, 1)).tolist() == [[0, 1], [0, 1]]

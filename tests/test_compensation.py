"""Stage 4 against numpy's least squares and by what it must never do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pgb_core.compensation import (
    ExitSums,
    advance,
    compensate,
    entry_sums,
    first_states,
    refit,
    refit_entry,
    refit_exit,
    with_constant,
)
from pgb_core.grouped import cut, install
from pgb_core.layout import dropped_layout, untouched_layout
from tests.network import Network


def test_a_dropped_sublayer_keeps_the_mean_of_its_target(network: Network) -> None:
    sub = network.sublayers[1]
    states = first_states(network.model, network.batches)
    pruned = cut(sub, dropped_layout(sub.shape))
    refit(sub, pruned, states)
    with torch.no_grad():
        outputs = torch.cat([sub.exit(sub.hidden(s.dense, s.mask))[s.real] for s in states])
    assert torch.allclose(pruned.exit.bias, outputs.mean(dim=0), atol=1e-5)


@pytest.mark.parametrize("index", range(4))
def test_the_refit_never_raises_the_calibration_error_of_its_matrix(network: Network, index: int) -> None:
    sub = network.sublayers[index]
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
                    kept = torch.from_numpy(np.concatenate([layout.unit_rows(g) for g in layout.groups]))
                    for part, linear in zip(pruned.entry.forward_parts(x), sub.entries, strict=True):
                        entry += float((part - linear(x)[:, kept]).square().sum())
                    target = sub.exit(sub.hidden(s.dense, s.mask))
                    exit_ += float((pruned(s.dense, s.mask) - target)[s.real].square().sum())
            return entry, exit_

        rounding = 1e-6 * sum(int(s.real.sum()) * sub.shape.inner for s in states)
        before = errors()[0]
        gram, cross = entry_sums(sub, states)
        refit_entry(sub, pruned, gram, cross)
        after, exit_before = errors()
        assert after <= before * (1 + 1e-4) + rounding
        sums = ExitSums(layout, torch.device("cpu"))
        with torch.no_grad():
            for s in states:
                target = sub.exit(sub.hidden(s.dense, s.mask))
                sums.add(pruned.hidden(s.dense, s.mask)[s.real], target[s.real])
        refit_exit(sub, pruned, sums)
        assert errors()[1] <= exit_before * (1 + 1e-4) + rounding


def test_compensation_brings_the_logits_back_towards_the_dense_ones(network: Network) -> None:
    layouts = [candidates[-1] for candidates in network.candidates]
    batch = network.batches[0]
    refitted = compensate(network.model, network.sublayers, layouts, network.batches)
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
        network.model, network.sublayers, compensate(network.model, network.sublayers, layouts, network.batches)
    )
    with torch.no_grad():
        for batch in network.batches:
            assert torch.equal(kept(**batch.inputs).logits, network.model(**batch.inputs).logits)


def test_with_constant_appends_ones() -> None:
    assert with_constant(torch.zeros(2, 1)).tolist() == [[0, 1], [0, 1]]

"""The classical baseline: its layouts from its scores, and our own refit."""

from __future__ import annotations

import numpy as np
import torch

from pgb_core.baselines.heads_neurons import choose_units, fisher, heads_neurons
from pgb_core.baselines.units import label_gradients
from pgb_core.compensation import compensate
from tests.network import Network


def test_scores_are_means_of_squares_not_squares_of_means() -> None:
    assert fisher(torch.tensor([[1.0, 2.0], [-1.0, 4.0]])).tolist() == [1.0, 10.0]


def test_a_score_is_weighed_against_the_cost(network: Network) -> None:
    """A head costs 1024 weights, a neuron 64: at 16 times a neuron's score it is worth as much."""
    scores = [torch.full((sub.shape.units,), 1.0 if sub.shape.width == 1 else 15.9) for sub in network.sublayers]
    scores[2][3] = 16.1
    layouts = choose_units(network.sublayers, scores, budget=1024 + 128 * 64)
    assert [layout.kept_units for layout in layouts] == [0, 64, 1, 64]
    assert layouts[2].groups[0].units.tolist() == [3]


def test_the_kept_weights_get_our_refit(network: Network) -> None:
    budget = sum(sub.shape.weights for sub in network.sublayers) // 2
    pruned = heads_neurons(network.model, network.sublayers, network.batches, budget)
    gradients = label_gradients(network.model, network.sublayers, network.batches)
    layouts = choose_units(network.sublayers, [g.square().mean(dim=0) for g in gradients], budget)
    expected = compensate(network.model, network.sublayers, layouts, network.batches)
    for new, old, layout in zip(pruned, expected, layouts, strict=True):
        for mine, theirs in zip(new.layout.groups, layout.groups, strict=True):
            assert np.array_equal(mine.units, theirs.units)
        state, reference = new.exit.state_dict(), old.exit.state_dict()
        assert all(torch.equal(state[name], reference[name]) for name in reference)

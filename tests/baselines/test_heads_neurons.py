"""The classical baseline: its layouts from its scores."""

from __future__ import annotations

import torch

from pgb_core.baselines.heads_neurons import choose_units, fisher, heads_neurons
from pgb_core.baselines.units import label_gradients
from pgb_core.layout import SublayerLayout
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


def test_the_best_by_mean_squared_gradient_stay(network: Network) -> None:
    budget = sum(sub.shape.weights for sub in network.sublayers) // 2
    found = heads_neurons(network.model, network.sublayers, network.batches, budget)
    gradients = label_gradients(network.model, network.sublayers, network.batches)
    expected = choose_units(network.sublayers, [g.square().mean(dim=0) for g in gradients], budget)
    assert [units(layout) for layout in found] == [units(layout) for layout in expected]
    assert len({layout.density for layout in found}) > 1


def units(layout: SublayerLayout) -> list[int]:
    return [int(unit) for group in layout.groups for unit in group.units]

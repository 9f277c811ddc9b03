"""Magnitude pruning: the largest weights stay, the shares are exact, and nothing gets smaller."""

from __future__ import annotations

import numpy as np
import pytest

from pgb_core import evaluation
from pgb_core.grouped import cut, install
from pgb_core.magnitude import magnitude_layouts
from tests.network import Network


@pytest.mark.parametrize("density", [0.0, 0.06, 0.5, 1.0])
def test_each_matrix_keeps_its_share_of_the_largest_weights(network: Network, density: float) -> None:
    for sub, layout in zip(network.sublayers, magnitude_layouts(network.sublayers, density), strict=True):
        assert not layout.dropped
        for matrix, linear in zip(layout.matrices(), (*sub.entries, sub.exit), strict=True):
            magnitudes, mask = linear.weight.detach().abs().numpy(), matrix.mask()
            assert matrix.kept == mask.sum() == int(density * mask.size + 1e-6)
            if 0 < density < 1:
                assert magnitudes[mask].min() >= magnitudes[~mask].max()


def test_one_threshold_for_the_whole_network(network: Network) -> None:
    layouts = magnitude_layouts(network.sublayers, 0.3, whole_network=True)
    total = sum(sub.shape.weights for sub in network.sublayers)
    assert sum(layout.cost for layout in layouts) == int(0.3 * total + 1e-6)
    kept, removed = [], []
    for sub, layout in zip(network.sublayers, layouts, strict=True):
        for matrix, linear in zip(layout.matrices(), (*sub.entries, sub.exit), strict=True):
            magnitudes, mask = linear.weight.detach().abs().numpy(), matrix.mask()
            kept.append(magnitudes[mask].min())
            removed.append(magnitudes[~mask].max())
    assert min(kept) >= max(removed)
    assert len({layout.cost / layout.shape.weights for layout in layouts}) > 1


def test_zeros_count_as_removed_but_are_multiplied_and_stored(network: Network) -> None:
    layouts = magnitude_layouts(network.sublayers, 0.25)
    modules = [cut(sub, layout) for sub, layout in zip(network.sublayers, layouts, strict=True)]
    model = install(network.model, network.sublayers, modules)
    dense = evaluation.encoder_weights(network.model)
    assert evaluation.encoder_weights(model) == sum(layout.cost for layout in layouts) == np.floor(0.25 * dense)
    assert evaluation.flops(model, length=16) == evaluation.flops(network.model, length=16)
    assert evaluation.parameters(model) == evaluation.parameters(network.model)

"""What holds for every method we are compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import nn

from pgb_core import JobCancelled
from pgb_core.architectures import Sublayer
from pgb_core.baselines.heads_neurons import heads_neurons
from pgb_core.baselines.kprune import kprune
from pgb_core.baselines.kwon import kwon
from pgb_core.baselines.units import UnitCost, unit_weights
from pgb_core.batching import Batch
from pgb_core.compensation import compensate
from pgb_core.grouped import PrunedSublayer, install
from pgb_core.importance import TokenWeights
from pgb_core.layout import SublayerShape
from pgb_core.progress import Step, part, silent
from tests.baselines.planted import USELESS, plant
from tests.network import Network

Method = Callable[..., list[PrunedSublayer]]


def heads_neurons_refitted(
    model: nn.Module,
    sublayers: Sequence[Sublayer],
    batches: Sequence[Batch],
    budget: int,
    *,
    cost: UnitCost = unit_weights,
    step: Step = silent,
) -> list[PrunedSublayer]:
    layouts = heads_neurons(model, sublayers, batches, budget, cost=cost, step=part(step, 0.0, 0.4))
    length = max(batch.input_ids.shape[1] for batch in batches)
    equal = torch.ones(sum(len(batch.indices) for batch in batches), length)
    weights = [TokenWeights(equal, equal)] * len(sublayers)
    return compensate(model, sublayers, layouts, weights, batches, step=part(step, 0.4, 1.0))


BASELINES: dict[str, Method] = {"heads-neurons": heads_neurons_refitted, "kwon": kwon, "kprune": kprune}
METHODS = pytest.mark.parametrize("method", BASELINES.values(), ids=BASELINES)


def total(network: Network) -> int:
    return sum(sub.shape.weights for sub in network.sublayers)


def units(pruned: list[PrunedSublayer]) -> list[list[int]]:
    return [[int(unit) for group in new.layout.groups for unit in group.units] for new in pruned]


@METHODS
@pytest.mark.parametrize("density", [0.03, 0.12, 0.25, 0.5, 0.77, 0.93])
def test_the_budget_is_met_and_the_model_runs(network: Network, method: Method, density: float) -> None:
    budget = round(density * total(network))
    pruned = method(network.model, network.sublayers, network.batches, budget)
    assert budget - 0.004 * total(network) <= sum(new.layout.cost for new in pruned) <= budget
    for new, sub in zip(pruned, network.sublayers, strict=True):
        assert len(new.layout.groups) <= 1
        for group in new.layout.groups:
            assert len(group.columns) == len(group.rows) == sub.shape.hidden
    logits = install(network.model, network.sublayers, pruned)(**network.batches[0].inputs).logits
    assert bool(torch.isfinite(logits).all())


@METHODS
def test_a_budget_below_one_unit_drops_everything(network: Network, method: Method) -> None:
    pruned = method(network.model, network.sublayers, network.batches, 63)
    assert all(new.layout.dropped for new in pruned)


@METHODS
def test_a_budget_for_everything_changes_nothing(network: Network, method: Method) -> None:
    pruned = method(network.model, network.sublayers, network.batches, total(network))
    smaller = install(network.model, network.sublayers, pruned)
    with torch.no_grad():
        for batch in network.batches:
            assert torch.equal(smaller(**batch.inputs).logits, network.model(**batch.inputs).logits)


@METHODS
def test_units_that_do_nothing_go_first(network: Network, method: Method) -> None:
    model, sublayers = plant(network)
    useful = [sorted(set(range(sub.shape.units)) - set(USELESS[sub.shape.kind])) for sub in sublayers]
    budget = sum(len(kept) * unit_weights(sub.shape) for kept, sub in zip(useful, sublayers, strict=True))
    pruned = method(model, sublayers, network.batches, budget)
    assert units(pruned) == useful
    with torch.no_grad():
        batch = network.batches[0]
        dense = model(**batch.inputs).logits
        assert torch.allclose(install(model, sublayers, pruned)(**batch.inputs).logits, dense, atol=0.02)


@METHODS
def test_it_predicts_better_than_the_same_number_of_arbitrary_units(network: Network, method: Method) -> None:
    """Against the mean of random layouts of the same sizes, without refit."""
    from pgb_core.baselines.units import layout_of
    from pgb_core.grouped import cut

    pruned = method(network.model, network.sublayers, network.batches, total(network) // 2)
    generator = np.random.default_rng(0)

    def divergence(new: list[PrunedSublayer]) -> float:
        smaller, found = install(network.model, network.sublayers, new), 0.0
        with torch.no_grad():
            for batch in network.batches:
                p = network.model(**batch.inputs).logits.log_softmax(dim=1)
                found += float((p.exp() * (p - smaller(**batch.inputs).logits.log_softmax(dim=1))).sum())
        return found

    def arbitrary() -> list[PrunedSublayer]:
        return [
            cut(sub, layout_of(sub.shape, generator.permutation(sub.shape.units)[: new.layout.kept_units]))
            for sub, new in zip(network.sublayers, pruned, strict=True)
        ]

    assert divergence(pruned) < 0.3 * np.mean([divergence(arbitrary()) for _ in range(5)])


@METHODS
def test_any_measure_of_cost_will_do(network: Network, method: Method) -> None:
    def tripled(shape: SublayerShape) -> int:
        return 3 * unit_weights(shape)

    budget = total(network) // 3
    same = method(network.model, network.sublayers, network.batches, 3 * budget, cost=tripled)
    assert units(same) == units(method(network.model, network.sublayers, network.batches, budget))


@METHODS
def test_progress_goes_forward_and_a_cancel_leaves_the_model_as_it_was(network: Network, method: Method) -> None:
    seen: list[float] = []

    def step(done: int, total: int, message: str = "") -> None:
        seen.append(done / total)
        if len(seen) == 9:
            raise JobCancelled("stop")

    with pytest.raises(JobCancelled):
        method(network.model, network.sublayers, network.batches, total(network) // 2, step=step)
    assert len(seen) == 9
    assert seen == sorted(seen)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.model.parameters())

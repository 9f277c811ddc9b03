"""Global Fisher scores of heads and neurons, the classical structured baseline.

Michel, Levy and Neubig, "Are Sixteen Heads Really Better than One?" (NeurIPS 2019, arXiv 1905.10650), section 4, rank
heads by the loss's gradient at their mask variable. Molchanov et al., "Importance Estimation for Neural Network
Pruning" (CVPR 2019, arXiv 1906.10771), section 3, square it, one sample at a time: I = mean_n (dL_n/dm)^2, an estimate
of what removing the unit does to the loss. L is the cross-entropy with the training labels, as there.

What differs here: heads and neurons compete with each other, so a score is divided by what the unit costs. There is one
round, with no training between rounds. Michel et al. take |dL/dm| and divide by each layer's norm; we follow Molchanov
et al. The kept weights then get our own refit (`compensation`), the same as our own methods.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from pgb_core.architectures import Sublayer
from pgb_core.baselines.units import UnitCost, best_ranked, label_gradients, layout_of, slack_of, unit_weights
from pgb_core.batching import Batch
from pgb_core.layout import SublayerLayout
from pgb_core.progress import Step, silent


def heads_neurons(
    model: nn.Module,
    sublayers: Sequence[Sublayer],
    batches: Sequence[Batch],
    budget: int,
    *,
    cost: UnitCost = unit_weights,
    step: Step = silent,
) -> list[SublayerLayout]:
    """The heads and neurons of highest Fisher score per cost within `budget`.

    Args:
        batches: calibration text with its labels.
        budget: encoder weights to keep, or whatever `cost` counts.
    """
    gradients = label_gradients(model, sublayers, batches, step=step)
    return choose_units(sublayers, [fisher(g) for g in gradients], budget, cost)


def fisher(gradients: Tensor) -> Tensor:
    """(samples, units) gradients of mask variables -> (units,) mean square."""
    return gradients.square().mean(dim=0)


def choose_units(
    sublayers: Sequence[Sublayer], scores: Sequence[Tensor], budget: int, cost: UnitCost = unit_weights
) -> list[SublayerLayout]:
    """The layouts that keep the best units by score per cost, over all sublayers.

    Args:
        scores: (units,) per sublayer.
    """
    shapes = [sub.shape for sub in sublayers]
    costs = [cost(shape) for shape in shapes]
    per_cost = [s.double().cpu().numpy() / c for s, c in zip(scores, costs, strict=True)]
    kept = best_ranked(per_cost, costs, budget, slack_of(shapes, cost))
    return [layout_of(shape, units) for shape, units in zip(shapes, kept, strict=True)]

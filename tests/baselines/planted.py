"""A network with heads and neurons that do nothing: their columns of the exit matrix are zero."""

from __future__ import annotations

import copy

import torch
from torch import nn

from pgb_core.architectures import Sublayer, encoder_sublayers
from pgb_core.layout import unit_rows
from tests.network import Network

USELESS = {"attention": [0, 2], "feed_forward": [*range(5, 25), 63]}


@torch.no_grad()
def plant(network: Network) -> tuple[nn.Module, list[Sublayer]]:
    """A copy of the network's model in which the units `USELESS` of every sublayer do nothing."""
    model = copy.deepcopy(network.model)
    sublayers = encoder_sublayers(model)
    for sub in sublayers:
        columns = unit_rows(torch.tensor(USELESS[sub.shape.kind]).numpy(), sub.shape.width)
        sub.exit.weight[:, torch.from_numpy(columns)] = 0
    return model, sublayers

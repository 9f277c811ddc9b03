"""How much text goes through the network at once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pgb_core import planning
from pgb_core.layout import SublayerShape
from tests.network import Network


def test_a_batch_is_shorter_where_its_activations_are_larger(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    assert planning.batch_tokens(network.sublayers) == 1024
    feed_forward = next(sub for sub in network.sublayers if sub.shape.kind == "feed_forward")
    wide = replace(feed_forward, shape=SublayerShape("feed_forward", hidden=1000, units=4000, width=1))
    # per token: what the entry gives and the exit reads, the input, the output, the sum and its norm; two gradients
    held = 4 * (4000 + 4000 + 4 * 1000 + 4000 + 1000)
    monkeypatch.setattr(planning, "_ACTIVATION_BYTES", {"cpu": 3 * 100 * held})
    assert planning.batch_tokens([wide] * 3) == 100
    monkeypatch.setattr(planning, "_ACTIVATION_BYTES", {"cpu": 1})
    assert planning.batch_tokens([wide] * 3) == 1

"""Predicted latency: read off exactly where it was measured, in between on a line, and fitted to whole models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgb_core import latency_forms, latency_table
from pgb_core.checkpoints import load_model
from pgb_core.latency import Shape
from pgb_core.latency_forms import FORMS, counts, fitted, form_layout, measure, mixed_layouts, predicted
from pgb_core.layout import Kind, SublayerShape
from pgb_core.options import candidate_layouts
from pgb_core.settings import get_settings
from tests.network import Network
from tests.sample_latency import SIZES, keep_sample_table, sample_table

TABLE = sample_table()
KINDS: tuple[Kind, ...] = ("attention", "feed_forward")


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_measured_is_read_off_exactly(kind: Kind) -> None:
    for form in TABLE.forms[kind]:
        for units, ms in zip(form.units, form.milliseconds, strict=True):
            assert TABLE.sublayer_ms(kind, form.groups, form.fill, units) == ms
    assert TABLE.sublayer_ms(kind, 0, 1.0, 0) == 0.0


@given(st.integers(4, 64), st.integers(0, 4))
def test_between_two_sizes_the_time_lies_between_theirs(units: int, place: int) -> None:
    form = TABLE.forms["feed_forward"][place]
    below = max(n for n in form.units if n <= units)
    above = min(n for n in form.units if n >= units)
    ends = [form.milliseconds[form.units.index(n)] for n in (below, above)]
    assert ends[0] - 1e-12 <= TABLE.sublayer_ms("feed_forward", form.groups, form.fill, units) <= ends[1] + 1e-12


def test_every_option_finds_its_own_form(network: Network) -> None:
    """By groups and density alone: tables of earlier runs say no more."""
    for sub, layouts in zip(network.sublayers, network.candidates, strict=True):
        own = {len(shares): shares for shares in FORMS if len(set(shares)) == 1}
        for layout in layouts:
            shares = own.get(layout.group_count)
            whole = layout.kept_units == sub.shape.units
            if shares is None or not whole or len({len(g.units) for g in layout.groups}) != 1:
                continue
            option = {"groups": layout.group_count, "units": layout.kept_units, "density": layout.density}
            form = next(f for f in TABLE.forms[sub.shape.kind] if f.fill == pytest.approx(sum(s * s for s in shares)))
            assert TABLE.option_ms(sub.shape.kind, sub.shape.units, option) == form.milliseconds[-1]


def test_a_table_is_found_again_by_shape_and_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = get_settings().cache_dir
    assert latency_table.find(SIZES, cache) is None
    kept = keep_sample_table(cache)
    assert latency_table.find(SIZES, cache) == kept
    assert latency_table.find({**SIZES, "hidden": 64}, cache) is None
    newer = replace(kept, created=2e9, setup=replace(kept.setup, threads=1))
    latency_table.write(newer, cache)
    assert latency_table.find(SIZES, cache) == newer
    for path in (cache / "latency").glob("*.json"):
        path.write_text("{}")
    assert latency_table.find(SIZES, cache) is None
    keep_sample_table(cache)
    monkeypatch.setattr(latency_table, "machine", lambda: "another machine")
    assert latency_table.find(SIZES, cache) is None


# --- measuring -----------------------------------------------------------------------------------------------------


def test_the_forms_are_those_that_options_have(network: Network) -> None:
    """No option has fewer units than were measured, or shares that were not."""
    for sub, scores in zip(network.sublayers[:2], network.importance, strict=False):
        for layout in candidate_layouts(sub.shape, scores, np.arange(sub.shape.units)):
            if layout.group_count:
                assert counts(sub.shape, layout.group_count)[0] <= layout.kept_units


@pytest.mark.parametrize("shares", FORMS)
def test_a_form_keeps_what_its_shares_say(shares: tuple[float, ...]) -> None:
    shape = SublayerShape("feed_forward", 384, 1536, 1)
    layout = form_layout(shape, shares, 768)
    assert layout.kept_units == 768
    assert layout.density == pytest.approx(sum(share**2 for share in shares) / 2, rel=0.01)


def test_a_tiny_model_is_measured_in_turns(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every forward pass really runs; the clock is ours, so that the table can be foretold."""
    rounds: list[tuple[int, int]] = []

    def take_turns(forwards: dict[str, Any], inputs: dict[str, Any], **_: Any) -> dict[str, list[float]]:
        for name, forward in forwards.items():
            forward(inputs[name])
        rounds.append((len(forwards), len(inputs)))
        return {name: [1.0, 2.0, 9.0] for name in forwards}

    monkeypatch.setattr(latency_forms, "take_turns", take_turns)
    table = measure(load_model(tiny_checkpoint), Shape(2, 16))
    ((forwards, inputs),) = rounds
    assert forwards == inputs >= 50
    assert table.dense_ms == table.base_ms == 2.0
    assert (table.setup.layers, table.setup.hidden, table.setup.heads, table.setup.neurons) == (2, 32, 4, 64)
    assert {form.groups for form in table.forms["feed_forward"]} == {1, 2, 3, 4}
    assert latency_table.find(SIZES, get_settings().cache_dir) is None  # nothing is written by measuring


def test_the_times_are_scaled_to_one_half_of_the_models_and_tried_on_the_other(network: Network) -> None:
    layouts = [mixed_layouts(network.sublayers, seed) for seed in range(4)]
    slower = [(each, TABLE.base_ms + 1.25 * (predicted(TABLE, each) - TABLE.base_ms)) for each in layouts]
    table = fitted(TABLE, slower)
    assert table.error == pytest.approx(0, abs=1e-9)
    assert table.sublayer_ms("attention", 1, 1.0, 4) == pytest.approx(1.25 * TABLE.sublayer_ms("attention", 1, 1.0, 4))
    off = [*slower[:2], *((each, 1.1 * ms) for each, ms in slower[2:])]
    assert fitted(TABLE, off).error == pytest.approx(1 - 1 / 1.1)

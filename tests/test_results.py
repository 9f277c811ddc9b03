"""What a run leaves behind, as far as it takes no run to say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pgb_core import PruneSpec, SpecError, prune, results, store
from pgb_core.budget import cost_of
from pgb_core.layout import Group, SublayerLayout, dropped_layout, rectangle_layout, untouched_layout
from pgb_core.options import Option
from tests.network import Network


def entries(folder: Path, network: Network, spec: PruneSpec) -> tuple[list[SublayerLayout], list[dict[str, Any]]]:
    """The layouts of one attention's table, and what was written of it."""
    shape = network.sublayers[0].shape
    half = np.arange(shape.hidden // 2)
    groups = tuple(Group(np.array([g]), half + g * len(half), half + g * len(half)) for g in range(2))
    layouts = [
        dropped_layout(shape),
        untouched_layout(shape),
        rectangle_layout(shape, np.arange(2)),
        SublayerLayout(shape, groups),
    ]
    results.save_options(folder, network.sublayers[:1], [[Option(layout, 0.5) for layout in layouts]], [1], spec)
    (table,) = store.read_json(folder / "options.json")["sublayers"]
    assert table["chosen"] == 1
    return layouts, table["options"]


def test_options_say_which_methods_may_choose_them_and_what_they_compute(network: Network, tmp_path: Path) -> None:
    layouts, found = entries(tmp_path, network, PruneSpec("demo", "bbc-news", 0.5))
    assert [option["methods"] for option in found] == [
        ["pgb", "pgb-mixed", "structured"],
        ["pgb", "pgb-mixed", "structured"],
        ["pgb-mixed", "structured"],
        ["pgb", "pgb-mixed"],
    ]
    assert [option["flops"] for option in found] == [cost_of(layout, "flops") for layout in layouts]
    assert all(option["admitted"] for option in found)


def test_a_table_of_its_own_is_open_to_its_method_alone(network: Network, tmp_path: Path) -> None:
    _, found = entries(tmp_path, network, PruneSpec("demo", "bbc-news", 0.5, method="pgb-paper"))
    assert {tuple(option["methods"]) for option in found} == {("pgb-paper",)}


def test_options_say_what_the_run_s_constraints_admit(network: Network, tmp_path: Path) -> None:
    spec = PruneSpec("demo", "bbc-news", 0.5, min_groups=3, pins=("0.attention",))
    assert [option["admitted"] for option in entries(tmp_path, network, spec)[1]] == [False, True, True, False]


def test_a_pin_that_does_not_fit_ends_the_run_before_anything_is_scored(
    tiny_checkpoint: Path, tiny_csv: Path, tmp_path: Path
) -> None:
    spec = PruneSpec(str(tiny_checkpoint), "csv", 0.5, train_file=str(tiny_csv), latency=False, pins=("7.attention",))
    seen: list[str] = []
    with pytest.raises(SpecError, match=r"the model has layers 0\.\.1"):
        prune(spec, tmp_path / "run", lambda progress: seen.append(progress.stage))
    assert set(seen) == {"loading"}

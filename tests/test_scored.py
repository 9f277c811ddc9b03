"""Scored records: identity, what is kept, what is found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pgb_core import scored, store
from pgb_core.errors import RunError
from pgb_core.layout import SublayerShape
from pgb_core.settings import get_settings
from tests.sample_run import make_sample_run

OPTIONS = [
    {"label": "dropped", "groups": 0, "units": 0, "cost": 0, "density": 0.0, "loss": 0.3, "flops": 0},
    {"label": "untouched", "groups": 1, "units": 4, "cost": 4096, "density": 1.0, "loss": 0.0, "flops": 9},
]
SPEC = {
    "checkpoint": "demo",
    "fingerprint": "f" * 64,
    "task": "bbc-news",
    "importance": "compensated",
    "seed": 0,
    "calibration_samples": 64,
    "max_length": 32,
    "sparsity": 0.5,
    "method": "pgb",
}
DENSE = {"parameters": 10_000, "flops": 1_000_000, "bytes": 40_400}


def sublayers() -> list[tuple[int, SublayerShape, list[dict[str, Any]]]]:
    shapes = SublayerShape("attention", 32, 4, 8), SublayerShape("feed_forward", 32, 64, 1)
    return [(0, shape, [{**o, "methods": ["pgb", "structured"]} for o in OPTIONS]) for shape in shapes]


def write(**changed: Any) -> str:
    return scored.write(get_settings().runs_dir, {**SPEC, **changed}, DENSE, sublayers())


def test_what_is_written_is_read_again() -> None:
    key = write()
    (path,) = scored.find(get_settings().runs_dir).values()
    record = scored.read(path)
    assert record.key == key
    assert record.dense == DENSE
    assert [(s.layer, s.shape, list(s.options)) for s in record.sublayers] == sublayers()
    assert record.methods == ("pgb", "structured")
    assert record.weights == 4096 + 4096
    assert record.sizes == {"layers": 1, "hidden": 32, "heads": 4, "neurons": 64}
    assert record.spec["fingerprint"] == SPEC["fingerprint"]


@pytest.mark.parametrize("name", ["fingerprint", "task", "importance", "seed", "calibration_samples", "max_length"])
def test_all_that_the_scores_depend_on_makes_another_record(name: str) -> None:
    other = {"fingerprint": "0" * 64, "task": "tweets", "importance": "fisher"}.get(name, 8)
    assert write() != write(**{name: other})


def test_target_and_method_make_no_other_record_and_refresh_the_one_there_is() -> None:
    assert write() == write(sparsity=0.9, method="structured")
    assert len(scored.find(get_settings().runs_dir)) == 1


def test_texts_of_ones_own_are_told_apart_by_what_is_in_the_file(tmp_path: Path) -> None:
    first, same, other = (tmp_path / name for name in ("a.csv", "b.csv", "c.csv"))
    for path, text in ((first, "x"), (same, "x"), (other, "y")):
        path.write_text(text)
    key = write(task="csv", train_file=str(first), eval_file=None)
    assert write(task="csv", train_file=str(same), eval_file=None) == key
    assert write(task="csv", train_file=str(other), eval_file=None) != key
    assert write(task="csv", train_file=str(first), eval_file=str(other)) != key  # then all of it is for training


def test_a_finished_run_with_a_shared_table_is_a_record() -> None:
    runs_dir = get_settings().runs_dir
    run = store.read_run(make_sample_run(runs_dir, seed=1))
    make_sample_run(runs_dir, method="kwon")
    ((key, path),) = scored.find(runs_dir).items()
    assert path == run.path
    record = scored.read(path)
    assert record.key == key == scored.key_of(run.spec)
    assert run.result is not None
    assert record.weights == run.result["parameters"]["encoder_dense"]
    assert record.dense["bytes"] == run.result["bytes"]["dense"]
    tables = store.read_options(run)
    assert [len(s.options) for s in record.sublayers] == [len(t["options"]) for t in tables]
    assert not any("admitted" in option for s in record.sublayers for option in s.options)  # of that run's constraints


def test_a_record_goes_before_the_run_it_is_from() -> None:
    runs_dir = get_settings().runs_dir
    run = store.read_run(make_sample_run(runs_dir))
    record = scored.of_run(run)
    key = scored.write(runs_dir, run.spec, record.dense, [(s.layer, s.shape, s.options) for s in record.sublayers])
    assert scored.find(runs_dir) == {key: runs_dir / "scored" / f"{key}.json"}


@pytest.mark.parametrize("damage", ["{", "{}", json.dumps({"format": -1})])
def test_a_damaged_record_is_one_line(damage: str) -> None:
    path = get_settings().runs_dir / "scored" / f"{write()}.json"
    path.write_text(damage)
    with pytest.raises(RunError, match=r"damaged|another version"):
        scored.read(path)


def test_a_run_without_a_shared_table_is_refused() -> None:
    run = store.read_run(make_sample_run(get_settings().runs_dir, method="pgb-paper"))
    with pytest.raises(RunError, match="holds no table"):
        scored.of_run(run)

"""Which points a sweep has, where they lie, and what of it can be read back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgb_core import PruneSpec, RunError, SpecError, commands, store, sweep_table
from pgb_core.__main__ import make_parser, sweep_from
from pgb_core.spec import METHODS
from pgb_core.sweep_spec import FILE, SweepSpec, find_sweep, list_sweeps, read_sweep, write_sweep

BASE = PruneSpec("demo", "bbc-news", 0.5)
specs = st.builds(
    SweepSpec,
    st.builds(
        PruneSpec,
        checkpoint=st.just("demo"),
        task=st.sampled_from(["bbc-news", "sst2"]),
        sparsity=st.just(0.5),
        latency=st.booleans(),
        latency_grid=st.booleans(),
        calibration_samples=st.integers(8, 8192),
        eval_samples=st.none() | st.integers(1, 10**6),
    ),
    st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=2, unique=True).map(tuple),
    st.lists(st.sampled_from(list(METHODS)), min_size=1, max_size=2, unique=True).map(tuple),
    st.lists(st.integers(0, 20), min_size=1, max_size=2, unique=True).map(tuple),
    st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=2, unique=True).map(tuple),
    st.lists(st.sampled_from(["demo", "owner/model", "/a folder"]), min_size=1, max_size=2, unique=True).map(tuple),
    st.lists(st.sampled_from(["bbc-news", "sst2"]), min_size=1, max_size=2, unique=True).map(tuple),
)


@settings(max_examples=25)
@given(specs)
def test_the_child_gets_the_very_sweep_that_was_submitted(spec: SweepSpec) -> None:
    args = make_parser().parse_args(["sweep", *commands.sweep_arguments(spec), "--out=/runs/a folder"])
    assert sweep_from(args) == spec
    assert SweepSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@settings(max_examples=25)
@given(specs)
def test_points_are_all_combinations_each_once(spec: SweepSpec) -> None:
    points = spec.points()
    assert len(points) == len(set(points)) == spec.size
    assert {point.sparsity for point in points} == set(spec.sparsities)
    assert {replace(point, **{n: getattr(BASE, n) for n in spec.axes()}) for point in points} == {
        replace(spec.base, **{n: getattr(BASE, n) for n in spec.axes()})
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sparsities": ()}, "at least one value for sparsity"),
        ({"sparsities": (0.5, 0.5)}, "sparsity of a sweep names a value twice"),
        ({"sparsities": (0.5, 1.5)}, "sparsity 1.5 is not in"),
        ({"sparsities": (0.5,), "methods": ("pgb", "magic")}, "unknown method 'magic'"),
        (
            {"sparsities": tuple(n / 60 for n in range(51)), "methods": ("pgb", "kwon")},
            r"102 points are more than the 100 .* PGB_MAX_SWEEP_POINTS",
        ),
    ],
)
def test_what_cannot_be_run_is_told_before_anything_starts(
    arguments: dict[str, tuple[object, ...]], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        SweepSpec(BASE, **arguments)  # type: ignore[arg-type]


def test_points_keep_their_ids_and_all_have_the_form_of_runs(tmp_path: Path) -> None:
    first = write_sweep(tmp_path / "sweep", SweepSpec(BASE, (0.5, 0.7), ("pgb", "kwon")), tmp_path)
    ids = [point.run for point in first.points]
    assert len(set(ids)) == 4
    assert all(map(store.is_id, ids))
    assert read_sweep(tmp_path / "sweep").points == first.points
    second = write_sweep(tmp_path / "sweep", SweepSpec(BASE, (0.7, 0.9), ("pgb",)), tmp_path)
    assert [point.run for point in second.points][:4] == ids
    assert second.points[4].spec.sparsity == 0.9
    assert second.created == first.created


def test_sweeps_are_found_by_id_and_listed_newest_first(tmp_path: Path) -> None:
    folders = [tmp_path / f"2026010{n}-000000-abcdef" for n in (1, 2)]
    for folder in folders:
        write_sweep(folder, SweepSpec(BASE, (0.5,)), tmp_path)
        store.write_status(folder, store.Status("done"))
    assert [sweep.path for sweep in list_sweeps(tmp_path)] == folders[::-1]
    assert find_sweep(tmp_path, folders[0].name).path == folders[0]
    assert store.list_runs(tmp_path) == []  # it is no run itself
    for name in ("../20260101-000000-abcdef", "20260103-000000-abcdef", "nonsense"):
        with pytest.raises(RunError, match="no sweep"):
            find_sweep(tmp_path, name)


@pytest.mark.parametrize(
    "change", [{"points": [{"run": "../../etc"}]}, {"base": {}}, {"sparsities": [2.0]}, {"created": "x"}]
)
def test_a_damaged_sweep_is_no_sweep(tmp_path: Path, change: dict[str, object]) -> None:
    folder = tmp_path / "20260101-000000-abcdef"
    sweep = write_sweep(folder, SweepSpec(BASE, (0.5,)), tmp_path)
    values = store.read_json(folder / FILE)
    if "points" in change:
        change = {"points": [{**values["points"][0], "run": "../../etc"}]}
    store.write_json(folder / FILE, {**values, **change})
    with pytest.raises(RunError, match="delete the folder"):
        read_sweep(folder)
    assert list_sweeps(tmp_path) == []
    assert sweep.state(sweep.points[0]) is None


def test_cells_that_a_spreadsheet_would_run_are_made_harmless(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "sweep", SweepSpec(BASE, (0.5,)), tmp_path)
    (row,) = sweep_table.rows(sweep)
    assert row["state"] == "pending"
    assert row.keys() == sweep_table.COLUMNS.keys()
    lines = sweep_table.as_csv([{**row, "message": "=HYPERLINK(1)", "score": -0.5}]).splitlines()
    assert lines[0].split(",") == list(sweep_table.COLUMNS)
    assert "'=HYPERLINK(1)" in lines[1]
    assert ",-0.5," in lines[1]


def test_several_checkpoints_and_tasks_can_be_named_in_every_way() -> None:
    start, rest = ["sweep", "--sparsities", "0.5", "--out", "x"], ["--task", "bbc-news", "tweets"]
    for names in (["--checkpoint", "a", "b"], ["--checkpoint", "a", "--checkpoint=b"]):
        spec = sweep_from(make_parser().parse_args([*start, *names, *rest]))
        assert (spec.checkpoints, spec.tasks) == (("a", "b"), ("bbc-news", "tweets"))
        assert [(p.checkpoint, p.task) for p in spec.points()] == [(c, t) for c in "ab" for t in spec.tasks]


def test_a_sweep_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    written = write_sweep(tmp_path / "sweep", SweepSpec(BASE, (0.5, 0.7)), tmp_path)
    file = tmp_path / "sweep" / FILE
    values = json.loads(file.read_text())
    for entry in (values, *values["points"]):
        for name in ("checkpoints", "tasks", "checkpoint", "task"):
            entry.pop(name, None)
    file.write_text(json.dumps(values))
    assert read_sweep(tmp_path / "sweep") == written

"""Parts of a sweep: together they are all of it, each point once, and what is shared stays together."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgb_core import PruneSpec, SpecError
from pgb_core.shards import Shard, group_of
from pgb_core.sweep_spec import SweepSpec

BASE = PruneSpec("demo", "bbc-news", 0.5)


def sweep_of(checkpoints: int, tasks: int, seeds: int, sparsities: int) -> SweepSpec:
    return SweepSpec(
        BASE,
        tuple(n / 10 for n in range(sparsities)),
        ("pgb", "structured"),
        seeds=tuple(range(seeds)),
        checkpoints=tuple(f"owner/model{n}" for n in range(checkpoints)),
        tasks=("bbc-news", "tweets")[:tasks],
    )


@settings(max_examples=40)
@given(st.integers(1, 2), st.integers(1, 2), st.integers(1, 3), st.integers(1, 3), st.integers(1, 30))
def test_every_point_is_in_one_shard_and_groups_are_divided_only_where_they_must_be(
    checkpoints: int, tasks: int, seeds: int, sparsities: int, count: int
) -> None:
    points = sweep_of(checkpoints, tasks, seeds, sparsities).points()
    shards = [Shard(n + 1, count).of(points) for n in range(count)]
    assert sorted(map(points.index, itertools.chain(*shards))) == list(range(len(points)))
    groups = {group_of(point) for point in points}
    pieces = [(n, group) for n, shard in enumerate(shards) for group in {group_of(point) for point in shard}]
    if count <= len(groups):
        assert len(pieces) == len(groups)  # each whole
        assert max(map(len, shards)) - min(map(len, shards)) <= len(points) // len(groups)
    else:
        assert all(len({group_of(point) for point in shard}) <= 1 for shard in shards)
        assert max(map(len, shards)) <= -(-len(points) // len(groups) // (count // len(groups)))


def test_a_divided_group_is_divided_by_method() -> None:
    points = sweep_of(1, 1, 1, 4).points()
    assert [{point.method for point in Shard(n, 2).of(points)} for n in (1, 2)] == [{"pgb"}, {"structured"}]


@pytest.mark.parametrize("text", ["0/4", "5/4", "1/0", "1", "a/b", "1/2/3", "-1/2", "", "1/ 2", "9" * 30 + "/1"])
def test_what_is_no_shard_is_told(text: str) -> None:
    with pytest.raises(SpecError, match=r"is not a shard; write i/n|there is no shard"):
        Shard.parse(text)


def test_each_has_its_own_place(tmp_path: Path) -> None:
    assert Shard.parse("2/4").folder(tmp_path) == tmp_path / "shard-2-of-4"

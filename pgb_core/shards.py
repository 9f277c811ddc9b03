"""A sweep shared out among machines: which of its points each makes. Any batch scheduler may start them.

What is costly, scores and option tables, is shared by the points of one checkpoint, task and seed: a *group*. With G
groups and n shards, shard i takes the groups i, i + n, i + 2n, ... as a whole. Only where there are more shards than
groups is a group divided: among the shards i, i + G, i + 2G, ..., each of which takes a stretch of its points and
scores for itself. Points are listed method by method, so a stretch has few methods, and makes few tables.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pgb_core.errors import SpecError
from pgb_core.spec import PruneSpec

GROUP = ("checkpoint", "task", "seed")
"""Fields in which points agree that share their scores."""


def group_of(spec: PruneSpec) -> tuple[object, ...]:
    """What points have in common that share their scores."""
    return tuple(getattr(spec, name) for name in GROUP)


@dataclass(frozen=True)
class Shard:
    """One of `count` equal parts of a sweep, counted from 1.

    >>> str(Shard.parse("2/4"))
    '2/4'

    Raises:
        SpecError: there is no such part.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise SpecError(f"there is no shard {self}; the first of four is 1/4, the last 4/4.")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The shard that `i/n` names.

        Raises:
            SpecError: it is not of that form, or there is no such part.
        """
        match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        if match is None:
            raise SpecError(f"{text!r:.40} is not a shard; write i/n, from 1/n to n/n.")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def folder(self, sweep: Path) -> Path:
        """Where this part of the sweep in folder `sweep` has its status."""
        return sweep / f"shard-{self.number}-of-{self.count}"

    def of(self, specs: Sequence[PruneSpec]) -> list[PruneSpec]:
        """The points of this shard; those of one group follow one another in `specs`."""
        groups = [list(found) for _, found in itertools.groupby(specs, group_of)]
        if self.count <= len(groups):
            return [spec for group in groups[self.number - 1 :: self.count] for spec in group]
        place = (self.number - 1) % len(groups)
        group, sharers = groups[place], range(place, self.count, len(groups))
        turn = sharers.index(self.number - 1)
        return group[turn * len(group) // len(sharers) : (turn + 1) * len(group) // len(sharers)]

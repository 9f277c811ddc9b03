"""What a user asks of every choice beside its cost: how many groups, and which sublayers keep how much.

>>> Constraints(max_groups=4, pins=(Pin.parse("3.attention:4"),)).admit(3, "attention", groups=(2,), units=6)
True
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from pgb_core.errors import SpecError
from pgb_core.layout import UNIT_NAMES, Kind

_PIN = re.compile(r"(\d{1,4})\.(attention|feed_forward)(?::(\d{1,9}))?")


@dataclass(frozen=True)
class Pin:
    """A sublayer that keeps at least `keep` heads or neurons, and so is never dropped."""

    layer: int
    """Counted from 0."""
    kind: Kind
    keep: int = 1

    @classmethod
    def parse(cls, text: str) -> Pin:
        """The pin that `text` describes.

        >>> Pin.parse("3.attention:4")
        Pin(layer=3, kind='attention', keep=4)
        >>> str(Pin.parse("0.feed-forward"))
        '0.feed_forward'

        Raises:
            SpecError: it describes none.
        """
        match = _PIN.fullmatch(text.replace("-", "_"))
        if match is None or (match[3] is not None and int(match[3]) == 0):
            raise SpecError(
                f"pin {text!r} is not LAYER.attention or LAYER.feed_forward (layers from 0), with :N for at least N "
                "heads or neurons; examples: 0.attention, 3.attention:4."
            )
        return cls(int(match[1]), cast("Kind", match[2]), int(match[3] or 1))

    def __str__(self) -> str:
        return f"{self.layer}.{self.kind}" + (f":{self.keep}" if self.keep > 1 else "")


@dataclass(frozen=True)
class Constraints:
    """Limits on the group counts of grouped options, and pins; the default allows everything."""

    min_groups: int | None = None
    max_groups: int | None = None
    pins: tuple[Pin, ...] = ()

    def admit(self, layer: int, kind: Kind, groups: Sequence[int], units: int) -> bool:
        """Whether an option of that sublayer may be chosen.

        Args:
            groups: the number of groups of each of its matrices. None or one is no grouping and has no limits.
            units: heads or neurons that it keeps.
        """
        grouped = [count for count in groups if count > 1]
        low, high = self.min_groups or 0, self.max_groups or max(grouped, default=0)
        least = max((pin.keep for pin in self.pins if (pin.layer, pin.kind) == (layer, kind)), default=0)
        return units >= least and all(low <= count <= high for count in grouped)

    def check(self, units: dict[tuple[int, Kind], int]) -> None:
        """Whether every pin fits the model; `units` is what each of its sublayers has, by layer and kind.

        Raises:
            SpecError: a pin names a sublayer that is not there, or more heads or neurons than it has.
        """
        for pin in self.pins:
            has = units.get((pin.layer, pin.kind))
            if has is None:
                layers = len({layer for layer, _ in units})
                raise SpecError(f"pin {pin}: the model has layers 0..{layers - 1}.")
            if pin.keep > has:
                raise SpecError(f"pin {pin}: the sublayer has {has} {UNIT_NAMES[pin.kind]}.")

"""The part of the form that says what must hold beside the sparsity: its unit, numbers of groups, and pins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import streamlit as st

from pgb_core.constraints import Pin
from pgb_core.figures.network import KIND_TITLES
from pgb_core.layout import UNIT_NAMES
from pgb_core.spec import BASELINES
from ui import words

BUDGET_TITLES = {"weights": "Weights", "flops": "FLOPs"}
_KEEP: dict[str, Any] = {"persist_state": "session"}


@dataclass(frozen=True)
class Sizes:
    """What an encoder has: layers, and in each of them heads and neurons; None is not known."""

    layers: int
    heads: int | None
    neurons: int | None


DEMO = Sizes(6, 12, 1536)
UNKNOWN = Sizes(24, None, None)
"""What is offered while the checkpoint is not there; a pin that does not fit ends the run at its start."""


def show(method: str, sizes: Sizes) -> dict[str, Any]:
    """Draw the fields that `method` has; returns the values of those fields of a `PruneSpec`.

    Args:
        sizes: of the checkpoint: what can be pinned.
    """
    values: dict[str, Any] = {}
    if method == "magnitude":
        st.caption("Zeros leave the FLOPs as they are: the sparsity is a share of the weights.")
    else:
        values["budget"] = st.segmented_control(
            "Sparsity is a share of",
            list(BUDGET_TITLES),
            default="weights",
            required=True,
            format_func=BUDGET_TITLES.__getitem__,
            key="budget",
            help=words.BUDGET,
            **_KEEP,
        )
    if method in BASELINES:
        return values
    if method != "structured":
        for column, title, name in zip(
            st.columns(2), ("Fewest groups", "Most groups"), ("min_groups", "max_groups"), strict=True
        ):
            with column:
                values[name] = st.number_input(
                    title, min_value=2, value=None, step=1, placeholder="no limit", key=name, help=words.GROUPS, **_KEEP
                )
    values["pins"] = _pins(sizes)
    return values


def _pins(sizes: Sizes) -> tuple[str, ...]:
    sublayers = [str(Pin(layer, kind)) for layer in range(sizes.layers) for kind in UNIT_NAMES]
    chosen = st.multiselect(
        "Never drop",
        sublayers,
        format_func=lambda text: pin_title(text).capitalize(),
        placeholder="No sublayer is pinned",
        key=f"pins_{sizes.layers}",
        help=words.PINS,
        **_KEEP,
    )
    return tuple(str(_at_least(Pin.parse(text), sizes)) for text in sorted(chosen, key=sublayers.index))


def _at_least(pin: Pin, sizes: Sizes) -> Pin:
    """`pin` with the number of heads or neurons that are to stay."""
    noun = UNIT_NAMES[pin.kind]
    most = sizes.heads if pin.kind == "attention" else sizes.neurons
    title = f"{pin_title(str(pin)).capitalize()}: fewest {noun}"
    least = st.number_input(title, 1, most, 1, key=f"keep_{pin}_{most}", **_KEEP)
    return Pin(pin.layer, pin.kind, int(least))


def pin_title(text: str) -> str:
    """A pin in words. Pins count layers from 0, as the command line does; all that users read counts from 1.

    >>> pin_title("3.attention:4")
    'layer 4 attention, 4 heads'
    """
    pin = Pin.parse(text)
    kept = f", {pin.keep} {UNIT_NAMES[pin.kind]}" if pin.keep > 1 else ""
    return f"layer {pin.layer + 1} {KIND_TITLES[pin.kind]}{kept}"


def describe(spec: Mapping[str, Any]) -> dict[str, str | int | None]:
    """The constraints of a run's spec as its page shows them; what was not asked for is None."""
    return {
        "sparsity is a share of": BUDGET_TITLES.get(spec.get("budget", "weights")),
        "fewest groups": spec.get("min_groups"),
        "most groups": spec.get("max_groups"),
        "never dropped": "; ".join(map(pin_title, spec.get("pins", ()))) or None,
    }

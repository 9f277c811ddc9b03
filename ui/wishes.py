"""What a visitor of the What if page wishes: method, goal, target, limits and pins, all of it in the URL."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import streamlit as st

from pgb_core import replan
from pgb_core.constraints import Constraints, Pin
from pgb_core.errors import SpecError
from pgb_core.latency_table import LatencyTable
from pgb_core.layout import UNIT_NAMES
from pgb_core.replan import LATENCY, Market
from pgb_core.scored import Record
from ui import records, units, url, words
from ui.constraints import pin_title

METHODS = {"pgb": "PGB", "pgb-mixed": "PGB mixed", "structured": "Structured"}
GOALS = {"weights": "Weights", "flops": "FLOPs", LATENCY: "Latency"}
MOST = 99
"""Percent: the end of the slider."""
_PINNED = "what_if_pins"


@dataclass(frozen=True)
class Wish:
    """What a plan has to meet."""

    method: str
    goal: str
    target: float
    """A share to remove, or milliseconds."""
    constraints: Constraints


def ask(record: Record, place: str, latency: LatencyTable | None) -> tuple[Wish, Market]:
    """Draw the controls.

    Raises:
        SpecError: nothing can meet the limits and pins.
    """
    left, right = st.columns(2, vertical_alignment="bottom")
    with left:
        method = url.select(
            st.segmented_control,
            "Method",
            "method",
            {name: title for name, title in METHODS.items() if name in record.methods},
            required=True,
            help=words.WHAT_IF_METHOD,
        )
    with right:
        goals = {name: title for name, title in GOALS.items() if name != LATENCY or latency is not None}
        goal = url.select(
            st.segmented_control, "Target in", "goal", goals, required=True, resets=("target",), help=words.GOAL
        )
    slider = st.container()  # its range depends on the limits
    limited = any(name in st.query_params for name in ("pins", "min_groups", "max_groups"))
    with st.expander("Pins and limits", expanded=limited):
        constraints = _constraints(record, method)
    market = records.market(place, method, goal, latency)
    low, high = replan.reach(market, constraints)
    with slider:
        target = _milliseconds(low, high) if goal == LATENCY else _share(goal)
    return Wish(method, goal, target, constraints), market


def _share(goal: str) -> float:
    percent = _number(
        st.slider,
        f"Share of the encoder's {GOALS[goal] if goal == 'flops' else 'weights'} to remove",
        "target",
        (0, MOST),
        50,
        format="%d%%",
        help=words.SPARSITY,
    )
    return percent / 100


def _milliseconds(low: float, high: float) -> float:
    """A target between the fastest plan and the dense one, in steps that a slider can tell apart."""
    first, last = int(10 * low) / 10 + 0.1, int(10 * high) / 10 + 0.1
    if last <= first:
        return high
    return _number(
        st.slider,
        "Predicted latency, at most",
        "target",
        (round(first, 1), round(last, 1)),
        round((first + last) / 2, 1),
        step=0.1,
        format="%.1f ms",
        help=words.PREDICTED_LATENCY,
    )


def _number(
    widget: Callable[..., Any], label: str, name: str, limits: tuple[Any, Any], default: Any, **arguments: Any
) -> Any:
    """A slider or number box whose value is query key `name`; without a default it may be empty."""
    key, (low, high) = f"url_{name}", limits
    asked = st.query_params.get(name)
    value = default
    if asked is not None:
        try:
            value = type(low)(asked)
            if not math.isfinite(value):
                raise ValueError(asked)
        except ValueError:
            value = default
            st.warning(f"The link asks for {label.lower()} {units.quoted(asked)}, which is no number of that kind.")
        value = value if value is None else min(max(value, low), high if high is not None else value)
    url.put(key, value)
    url.write(**{name: None if value is None else str(value)})

    def changed() -> None:
        chosen = st.session_state[key]
        url.write(**{name: None if chosen is None else str(chosen)})

    return widget(label, low, high, key=key, on_change=changed, **arguments)


def _constraints(record: Record, method: str) -> Constraints:
    low = high = None
    if method != "structured":
        left, right = st.columns(2)
        with left:
            low = _limit("Fewest groups", "min_groups", 2)
        with right:
            high = _limit("Most groups", "max_groups", low or 2)
    return Constraints(low, high, _pins(record))


def _limit(title: str, name: str, least: int) -> int | None:
    value: int | None = _number(
        st.number_input, title, name, (least, None), None, step=1, placeholder="no limit", help=words.GROUPS
    )
    return value


def _pins(record: Record) -> tuple[Pin, ...]:
    """The pinned sublayers, each with the heads or neurons that it keeps at least."""
    have = {str(Pin(s.layer, s.shape.kind)): s.shape.units for s in record.sublayers}
    kept = {pin: pin.keep for pin in _asked_pins(have)}
    url.put(_PINNED, [str(Pin(pin.layer, pin.kind)) for pin in kept])

    def changed() -> None:
        before = {str(Pin(pin.layer, pin.kind)): pin for pin in kept}
        chosen = sorted(st.session_state[_PINNED], key=list(have).index)
        _write([before.get(name, Pin.parse(name)) for name in chosen])

    st.multiselect(
        "Never drop",
        list(have),
        key=_PINNED,
        format_func=lambda text: pin_title(text).capitalize(),
        placeholder="No sublayer is pinned",
        on_change=changed,
        help=words.PINS,
    )
    for pin, keep in kept.items():
        name = str(Pin(pin.layer, pin.kind))
        key = f"what_if_keep_{name}"
        url.put(key, keep)

        def rewrite(pin: Pin = pin, key: str = key) -> None:
            new = Pin(pin.layer, pin.kind, st.session_state[key])
            _write([new if other == pin else other for other in kept])

        title = f"{pin_title(name).capitalize()}: fewest {UNIT_NAMES[pin.kind]}"
        st.number_input(title, 1, have[name], key=key, on_change=rewrite)
    return tuple(kept)


def _asked_pins(have: dict[str, int]) -> list[Pin]:
    """The pins of the URL that fit the model; a friendly line for others."""
    found = {}
    for text in filter(None, st.query_params.get("pins", "").split(",")):
        try:
            pin = Pin.parse(text)
            name = str(Pin(pin.layer, pin.kind))
            if pin.keep > have[name]:
                raise SpecError("more than there are")
        except (SpecError, KeyError):
            st.warning(f"The link pins {units.quoted(text)}, which this model does not have.")
            continue
        found[name] = pin
    return list(found.values())


def _write(pins: list[Pin]) -> None:
    url.write(pins=",".join(map(str, pins)) or None)


def pin(layer: int, kind: Any) -> None:
    """Pin one more sublayer."""
    asked = list(filter(None, st.query_params.get("pins", "").split(",")))
    url.write(pins=",".join([*asked, str(Pin(layer, kind))]))

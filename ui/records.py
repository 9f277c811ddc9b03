"""Scored records for pages: found, read once per server, and kept with what is computed from them.

Everything cached here is shared by all visitors and never written to. Keys are short strings that name the file and
when it was written, so that a refreshed record is read anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from pgb_core import commands, latency_table, replan, scored
from pgb_core.constraints import Constraints, Pin
from pgb_core.latency_table import LatencyTable
from pgb_core.replan import Market, Plan
from pgb_core.scored import Record
from pgb_core.settings import get_settings
from ui import runs, units


def place_of(path: Path) -> str:
    """Where a record is and when it was written."""
    return f"{path}@{scored.stamp(path)}"


@st.cache_resource(max_entries=16, show_spinner=False)
def record_at(place: str) -> Record:
    """The record at a place.

    Raises:
        RunError: it is damaged or has gone.
    """
    return scored.read(Path(place.rpartition("@")[0]))


def latency_of(record: Record) -> LatencyTable | None:
    """This server's table of the record's shape."""
    return latency_table.find(record.sizes, get_settings().cache_dir)


def _market_name(place: str, method: str, goal: str, latency: LatencyTable | None) -> str:
    return "|".join((place, method, goal, f"{latency.created}" if latency else ""))


def market(place: str, method: str, goal: str, latency: LatencyTable | None) -> Market:
    """What a method may choose from.

    Raises:
        SpecError: a latency is the goal, and it has not been measured.
    """
    return _market_at(_market_name(place, method, goal, latency))


@st.cache_resource(max_entries=48, show_spinner=False)
def _market_at(name: str) -> Market:
    place, method, goal, _ = name.rsplit("|", 3)
    record = record_at(place)
    return replan.market_of(record, method, goal, latency_of(record))


@dataclass(frozen=True, eq=False)
class Prospect:
    """What does not change while the target moves: the plans at all targets, and the options that are admitted."""

    path: list[Plan]
    options: replan.Offered


def prospect(place: str, method: str, goal: str, latency: LatencyTable | None, constraints: Constraints) -> Prospect:
    """What the targets of a market have in common under some constraints.

    Raises:
        SpecError: a pin does not fit, or nothing meets the constraints.
    """
    limits = ",".join("" if limit is None else str(limit) for limit in (constraints.min_groups, constraints.max_groups))
    pins = " ".join(map(str, constraints.pins))
    return _prospect_at(f"{_market_name(place, method, goal, latency)}|{limits}|{pins}")


@st.cache_resource(max_entries=64, show_spinner=False)
def _prospect_at(name: str) -> Prospect:
    market_name, limits, pins = name.rsplit("|", 2)
    low, high = (int(text) if text else None for text in limits.split(","))
    constraints = Constraints(low, high, tuple(Pin.parse(text) for text in pins.split()))
    market = _market_at(market_name)
    return Prospect(replan.curve(market, constraints), replan.offered(market, constraints))


def spec_of(record: Record) -> dict[str, Any]:
    """What a spec has to say to be of the same scores."""
    return {name: value for name in commands.SCORE_FIELDS if (value := record.spec.get(name)) is not None}


def uploads_removed(record: Record) -> bool:
    """Whether files that somebody uploaded for it are no longer there."""
    files = [Path(record.spec[name]) for name in ("train_file", "eval_file") if record.spec.get(name)]
    folder = Path(record.spec["checkpoint"])
    return not all(file.is_file() for file in files) or (folder.is_absolute() and not folder.is_dir())


def label(record: Record) -> str:
    """One line that tells records apart."""
    spec = record.spec
    parts = [runs.checkpoint_name(record), spec["task"], f"{spec['calibration_samples']:,} texts"]
    if spec["importance"] != "compensated":
        parts.append(spec["importance"])
    if spec["seed"]:
        parts.append(f"seed {spec['seed']}")
    return " · ".join([*parts, f"scored {units.moment(record.created)}"])

"""The whole network as a picture: what is left of every sublayer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from pgb_core.figures.style import BADGE, DENSE, DENSITY, OUTLINE, frame
from pgb_core.layout import UNIT_NAMES, Kind, SublayerShape

KIND_TITLES = {"attention": "attention", "feed_forward": "feed-forward"}


@dataclass(frozen=True)
class Sublayer:
    """What is left of one sublayer; `group_units` are the heads or neurons of each group, `units` those it had.

    Where every matrix has groups or zeros of its own, all units are there, in one piece.
    """

    layer: int
    kind: Kind
    units: int
    group_units: tuple[int, ...]
    density: float
    kept_importance: float | None
    """None of a plan, whose weights nobody has summed."""
    untied: str = ""
    """In words, what is left of matrices that do not share their groups."""

    @property
    def title(self) -> str:
        """In words, layers counted from 1."""
        return f"Layer {self.layer + 1} {KIND_TITLES[self.kind]}"

    @property
    def dropped(self) -> bool:
        return not self.group_units

    @property
    def kept_units(self) -> int:
        return sum(self.group_units)

    @property
    def summary(self) -> str:
        """One line for hover and tables."""
        if self.dropped:
            return "dropped"
        if self.density >= 1.0:
            return "untouched"
        if self.untied:
            return self.untied
        count = len(self.group_units)
        groups = f"{count} groups" if count > 1 else "one rectangle"
        return f"{groups}, {self.kept_units} of {self.units} {UNIT_NAMES[self.kind]}"


def sublayers(result: Mapping[str, Any]) -> tuple[Sublayer, ...]:
    """The sublayers of a run from its result, in the order of the forward pass."""
    found = []
    for entry in result["sublayers"]:
        matrix = entry["matrices"][0]
        units = entry["units"]["dense"]
        width = matrix["rows"] // units
        tied = entry.get("tied", True)  # runs of the first version say nothing else
        found.append(
            Sublayer(
                entry["layer"],
                entry["kind"],
                units,
                tuple(rows // width for rows in matrix["group_rows"]) if tied else (units,),
                entry["density"],
                entry["kept_importance"],
                "" if tied else entry["label"],
            )
        )
    return tuple(found)


def planned(layer: int, shape: SublayerShape, option: Mapping[str, Any]) -> Sublayer:
    """A sublayer as an option of a scored record would leave it; records of runs do not say who is in which group."""
    groups, kept = option["groups"], option["units"]
    equal = tuple(kept // groups + (g < kept % groups) for g in range(groups))
    units = tuple(option.get("group_units", equal))
    return Sublayer(layer, shape.kind, shape.units, units, option["density"], None)


def picture(network: Sequence[Sublayer], selected: int | None = None, notes: Sequence[str] = ()) -> go.Figure:
    """One strip per sublayer, input on top: its groups side by side, as long as their share of the units.

    The color is the sublayer's density; `selected` is framed. Every bar carries the sublayer's place in `network` as
    customdata, and its hover text ends with its line of `notes`, if there are any.
    """
    places = list(range(len(network)))
    titles = [f"{s.layer + 1} {KIND_TITLES[s.kind]}" for s in network]
    hover = [
        f"<b>{s.title}</b><br>{s.summary}<br>density {s.density:.1%}"
        + ("" if s.kept_importance is None else f", kept importance {s.kept_importance:.1%}")
        for s in network
    ]
    if notes:
        hover = [f"{text}<br>{note}" for text, note in zip(hover, notes, strict=True)]
    figure = go.Figure(
        go.Bar(
            y=places,
            x=[100.0] * len(network),
            orientation="h",
            marker={
                "color": "rgba(128,140,150,0.10)",
                "line": {"color": "rgba(128,140,150,0.55)", "width": 1},
                "pattern": {"shape": ["/" if s.dropped else "" for s in network], "size": 6, "fgcolor": DENSE},
            },
            customdata=[[place] for place in places],
            hovertext=hover,
            hovertemplate="%{hovertext}<extra></extra>",
            selected={"marker": {"opacity": 1}},
            unselected={"marker": {"opacity": 1}},
        )
    )
    segments = [
        (place, 100.0 * sum(s.group_units[:g]) / s.units, 100.0 * units / s.units)
        for place, s in enumerate(network)
        for g, units in enumerate(s.group_units)
    ]
    figure.add_trace(
        go.Bar(
            y=[place for place, _, _ in segments],
            x=[length for _, _, length in segments],
            base=[start for _, start, _ in segments],
            orientation="h",
            customdata=[[place] for place, _, _ in segments],
            hovertext=[hover[place] for place, _, _ in segments],
            hovertemplate="%{hovertext}<extra></extra>",
            marker={
                "color": [100.0 * network[place].density for place, _, _ in segments],
                "colorscale": DENSITY,
                "cmin": 0,
                "cmax": 100,
                "colorbar": {
                    "title": {"text": "density of the sublayer, %", "side": "top"},
                    "orientation": "h",
                    "thickness": 8,
                    "y": 1.0,
                    "yanchor": "bottom",
                    "xpad": 0,
                    "ypad": 6,
                },
                "line": {"color": "rgba(128,140,150,0.9)", "width": 1.5},
            },
            selected={"marker": {"opacity": 1}},
            unselected={"marker": {"opacity": 1}},
        )
    )
    frame(figure, height=110 + 34 * len(network), x="heads or neurons kept, % of the sublayer's", y="")
    figure.update_layout(barmode="overlay", bargap=0.28, margin={"t": 96, "l": 134, "r": 20, "b": 67})
    figure.update_xaxes(range=[0, 100.5], showgrid=False)
    figure.update_yaxes(tickvals=places, ticktext=titles, autorange="reversed", showgrid=False)
    dropped = {"text": "dropped", "x": 50, "showarrow": False, "font": {"color": "white"}, "bgcolor": BADGE}
    chosen = {"type": "rect", "x0": -0.3, "x1": 100.3, "line": {"color": OUTLINE, "width": 3}}
    figure.update_layout(
        annotations=[{**dropped, "y": place} for place in places if network[place].dropped],
        shapes=[] if selected is None else [{**chosen, "y0": selected - 0.4, "y1": selected + 0.4}],
    )
    return figure


def network_table(network: Sequence[Sublayer]) -> list[dict[str, Any]]:
    """The picture's numbers, one row per sublayer, layers counted from 1."""
    return [
        {
            "layer": s.layer + 1,
            "sublayer": KIND_TITLES[s.kind],
            "kept": s.summary,
            "groups": len(s.group_units),
            "units_kept": s.kept_units,
            "units": s.units,
            "density": s.density,
            "kept_importance": s.kept_importance,
        }
        for s in network
    ]

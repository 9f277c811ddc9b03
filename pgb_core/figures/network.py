"""The whole network as a picture, and the option table of one sublayer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from pgb_core.figures.style import BADGE, DENSE, DENSITY, OUTLINE, frame
from pgb_core.layout import UNIT_NAMES, Kind

KIND_TITLES = {"attention": "attention", "feed_forward": "feed-forward"}
_FAMILIES = {
    "dropped": ("x", DENSE),
    "one rectangle or untouched": ("square", "#d9662b"),
    "groups": ("circle", "#2f7ab5"),
    "zeros": ("diamond", "#6f4fa0"),
}
"""Symbol and color of each kind of option."""


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
    kept_importance: float
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


def picture(network: Sequence[Sublayer], selected: int | None = None) -> go.Figure:
    """One strip per sublayer, input on top: its groups side by side, as long as their share of the units.

    The color is the sublayer's density; `selected` is framed. Every bar carries the sublayer's place in `network` as
    customdata.
    """
    places = list(range(len(network)))
    titles = [f"{s.layer + 1} {KIND_TITLES[s.kind]}" for s in network]
    hover = [
        f"<b>{s.title}</b><br>{s.summary}<br>density {s.density:.1%}, kept importance {s.kept_importance:.1%}"
        for s in network
    ]
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
    figure.update_layout(barmode="overlay", bargap=0.28, margin={"t": 46})
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


def option_chart(table: Mapping[str, Any]) -> go.Figure:
    """Loss of each option of a sublayer against the share of its weights that it keeps; the chosen one is ringed."""
    options = table["options"]
    chosen = options[table["chosen"]]
    figure = go.Figure()
    for name, (symbol, color) in _FAMILIES.items():
        members = [option for option in options if _family(option) == name]
        if members:
            figure.add_trace(
                go.Scatter(
                    x=[100 * option["density"] for option in members],
                    y=[option["loss"] for option in members],
                    mode="markers",
                    name=name,
                    text=[option["label"] for option in members],
                    cliponaxis=False,
                    marker={"symbol": symbol, "size": 9, "color": color, "line": {"color": "white", "width": 1}},
                    hovertemplate="%{text}<br>keeps %{x:.1f}% of the weights<br>loss %{y:.3g}<extra></extra>",
                )
            )
    figure.add_trace(
        go.Scatter(
            x=[100 * chosen["density"]],
            y=[chosen["loss"]],
            mode="markers",
            name="chosen",
            marker={"symbol": "circle-open", "size": 20, "color": OUTLINE, "line": {"width": 3}},
            hoverinfo="skip",
            cliponaxis=False,
        )
    )
    frame(figure, height=360, x="weights kept, % of the sublayer's", y="loss after the refit", legend=True)
    figure.update_layout(margin={"t": 40})
    figure.update_yaxes(rangemode="tozero", exponentformat="power")
    return figure


def _family(option: Mapping[str, Any]) -> str:
    if option["groups"] == 0:
        return "dropped"
    if option["groups"] > 1:
        return "groups"
    return "one rectangle or untouched" if option.get("tied", True) else "zeros"


_WHOLE = "All sublayers are chosen together: no combination that meets the target has a lower total loss."


def explain_choice(table: Mapping[str, Any]) -> str:
    """Why this option: what keeping more, or else less, here would have changed; and that the budget is a whole.

    What is said holds whatever the other sublayers chose: also where nothing had to be removed.
    """
    options = sorted(table["options"], key=lambda option: option["cost"])
    chosen = table["options"][table["chosen"]]
    larger = [o for o in options if o["cost"] > chosen["cost"] and o["loss"] < chosen["loss"]]
    smaller = [o for o in options if o["cost"] < chosen["cost"]]
    taken = f"Chosen: {chosen['label']}, loss {chosen['loss']:.3g}."
    if larger:
        best = max(larger, key=lambda o: (chosen["loss"] - o["loss"]) / (o["cost"] - chosen["cost"]))
        extra, gain = best["cost"] - chosen["cost"], chosen["loss"] - best["loss"]
        return (
            f"{taken} The best way to keep more here, {best['label']}, would lower the loss by {gain:.3g} for "
            f"{extra:,} more weights, {gain / extra * 1e5:.2g} per 100,000. {_WHOLE}"
        )
    if smaller:
        least = min(smaller, key=lambda o: (o["loss"] - chosen["loss"]) / (chosen["cost"] - o["cost"]))
        rise, saved = least["loss"] - chosen["loss"], chosen["cost"] - least["cost"]
        change = f"raise the loss by {rise:.3g}" if rise > 0 else f"lower the loss by {-rise:.3g}"
        return (
            f"{taken} The cheapest way to keep less here, {least['label']}, would {change} and save {saved:,} weights. "
            f"{_WHOLE}"
        )
    return f"{taken} There was no other option."


def option_table(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The options by falling cost, each with whether it was chosen."""
    rows = [{**option, "chosen": place == table["chosen"]} for place, option in enumerate(table["options"])]
    return sorted(rows, key=lambda option: -option["cost"])

"""The option table of one sublayer: what could have been kept of it, why this was chosen, and what came close."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from pgb_core.figures.style import DENSE, OUTLINE, frame
from pgb_core.what_if import CLOSE, Rating, nearest

_FAMILIES = {
    "dropped": ("x", DENSE),
    "one rectangle or untouched": ("square", "#d9662b"),
    "groups": ("circle", "#2f7ab5"),
    "zeros": ("diamond", "#6f4fa0"),
}
"""Symbol and color of each kind of option."""
_WHOLE = "All sublayers are chosen together: no combination that meets the target has a lower total loss."


def option_chart(table: Mapping[str, Any], ratings: Sequence[Rating]) -> go.Figure:
    """Loss of each option of a sublayer against the share of its weights that it keeps.

    The chosen option has a thick ring, close ones a thin one; what the run's method or constraints rule out is faint.
    """
    options = list(zip(table["options"], ratings, strict=True))
    figure = go.Figure()
    barred = [pair for pair in options if not pair[1].allowed]
    if barred:
        figure.add_trace(_marks("not open to this run", barred, open_=True))
    for name in _FAMILIES:
        members = [pair for pair in options if pair[1].allowed and _family(pair[0]) == name]
        if members:
            figure.add_trace(_marks(name, members, open_=False))
    close = [o for n, (o, rating) in enumerate(options) if rating.allowed and rating.close and n != table["chosen"]]
    if close:
        figure.add_trace(_rings("close", close, size=15, width=1.5))
    figure.add_trace(_rings("chosen", [table["options"][table["chosen"]]], size=20, width=3))
    frame(figure, height=430, x="weights kept, % of the sublayer's", y="loss after the refit", legend=True)
    figure.update_layout(margin={"t": 85, "l": 82, "b": 67})
    figure.update_yaxes(rangemode="tozero", exponentformat="power")
    if (top := _top(table)) is not None:
        figure.update_yaxes(range=[-0.04 * top, top])
        beyond = [option for option in table["options"] if option["loss"] > top]
        note = "; ".join(f"{option['label']}: loss {option['loss']:.3g}" for option in beyond)
        figure.add_annotation(
            text=f"above the picture: {note}", xref="paper", yref="paper", x=1, y=1, xanchor="right", showarrow=False
        )
    return figure


def _top(table: Mapping[str, Any]) -> float | None:
    """Where the axis of losses ends, if dropping loses so much more that the other options would lie on one line."""
    kept = [option["loss"] for option in table["options"] if option["groups"] > 0]
    shown = 1.2 * max([*kept, table["options"][table["chosen"]]["loss"]])
    return shown if 0 < 2 * shown < max(option["loss"] for option in table["options"]) else None


def _marks(name: str, members: Sequence[tuple[Mapping[str, Any], Rating]], *, open_: bool) -> go.Scatter:
    styles = [_FAMILIES[_family(option)] for option, _ in members]
    return go.Scatter(
        x=[100 * option["density"] for option, _ in members],
        y=[option["loss"] for option, _ in members],
        mode="markers",
        name=name,
        text=[_hover(option, rating) for option, rating in members],
        cliponaxis=False,
        opacity=0.55 if open_ else 1.0,
        legendrank=2000 if open_ else 1000,
        marker={
            "symbol": [f"{symbol}-open" if open_ else symbol for symbol, _ in styles],
            "size": 8 if open_ else 9,
            "color": [color for _, color in styles],
            "line": {"width": 1} if open_ else {"color": "white", "width": 1},
        },
        hovertemplate="%{text}<extra></extra>",
    )


def _rings(name: str, options: Sequence[Mapping[str, Any]], *, size: int, width: float) -> go.Scatter:
    return go.Scatter(
        x=[100 * option["density"] for option in options],
        y=[option["loss"] for option in options],
        mode="markers",
        name=name,
        marker={"symbol": "circle-open", "size": size, "color": OUTLINE, "line": {"width": width}},
        hoverinfo="skip",
        cliponaxis=False,
    )


def _hover(option: Mapping[str, Any], rating: Rating) -> str:
    text = f"{option['label']}<br>keeps {option['density']:.1%} of the weights<br>loss {option['loss']:.3g}"
    if rating.regret is not None:
        text += f"<br>regret {regret_text(rating.regret)} of the total"
    if not rating.allowed:
        text += f"<br>open to {', '.join(option['methods'])}" + (
            "" if option.get("admitted", True) else ", but not under this run's constraints"
        )
    return text


def _family(option: Mapping[str, Any]) -> str:
    if option["groups"] == 0:
        return "dropped"
    if option["groups"] > 1:
        return "groups"
    return "one rectangle or untouched" if option.get("tied", True) else "zeros"


def option_table(table: Mapping[str, Any], ratings: Sequence[Rating]) -> list[dict[str, Any]]:
    """The options by rising regret, the chosen one first: its values, and what the rating says of it."""
    rows = [
        {
            **option,
            "chosen": place == table["chosen"],
            "allowed": rating.allowed,
            "close": rating.allowed and rating.close,
            "regret": rating.regret,
        }
        for place, (option, rating) in enumerate(zip(table["options"], ratings, strict=True))
    ]
    return sorted(rows, key=lambda row: (not row["chosen"], row["regret"] or 0.0, -row["cost"]))


# --- in words ------------------------------------------------------------------------------------------------------


def regret_text(regret: float) -> str:
    """A regret in percent of the total predicted loss, with its sign."""
    return f"{100 * regret:+,.1f}%"


def closest(table: Mapping[str, Any], ratings: Sequence[Rating]) -> str:
    """The closest alternative of a sublayer with its regret; a dash where there is none."""
    place = nearest(ratings, table["chosen"])
    if place is None:
        return "–"
    return f"{table['options'][place]['label']} ({regret_text(ratings[place].regret or 0.0)})"


def explain_closeness(table: Mapping[str, Any], ratings: Sequence[Rating]) -> str:
    """How many options came close, which one most, and whether one of another method's would have done better."""
    place = nearest(ratings, table["chosen"])
    if place is None:
        return ""
    close = sum(r.allowed and r.close for n, r in enumerate(ratings) if n != table["chosen"])
    count = f"{close} option{'' if close == 1 else 's'}" if close else "no option"
    regret = ratings[place].regret or 0.0
    text = (
        f"Closest: {table['options'][place]['label']}, with a regret of {regret_text(regret)} of the total predicted "
        f"loss; {count} came within {CLOSE:.0%}."
    )
    if regret < 0:
        text += " Below zero means better by itself, but then the whole would miss the target."
    barred = [(r.regret, n) for n, r in enumerate(ratings) if not r.allowed and r.regret is not None]
    if barred and min(barred)[0] < min(regret, 0.0) - CLOSE:
        less, best = min(barred)
        text += (
            f" Not open to this run: {table['options'][best]['label']}, which would do better ({regret_text(less)})."
        )
    return text


def explain_restored(table: Mapping[str, Any], restored: Sequence[Mapping[str, Any]]) -> str:
    """Why a sublayer that the prices alone would have dropped is still there; nothing where it is not one of those.

    Args:
        restored: of result.json.
    """
    for entry in restored:
        if (entry["pin"]["layer"], entry["pin"]["kind"]) == (table["layer"], table["kind"]):
            return (
                "By the prices alone it would have been dropped, with others. Tried together, these drops lost "
                f"{entry['together']:.3g} nats, where their prices add up to {entry['alone']:.3g}; without this one "
                f"among them {entry['without']:.3g}. So it had to stay."
            )
    return ""


def explain_choice(table: Mapping[str, Any], ratings: Sequence[Rating]) -> str:
    """Why this option: what keeping more, or else less, here would have changed; and that the budget is a whole.

    What is said holds whatever the other sublayers chose: also where nothing had to be removed.
    """
    chosen = table["options"][table["chosen"]]
    options = [option for option, rating in zip(table["options"], ratings, strict=True) if rating.allowed]
    options.sort(key=lambda option: option["cost"])
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

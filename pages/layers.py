"""Layers: the whole network at a glance, and why each sublayer became what it is."""

from __future__ import annotations

from typing import Any

import streamlit as st

from pgb_core import store, what_if
from pgb_core.errors import RunError
from pgb_core.figures import network as figures
from pgb_core.figures import options as text
from pgb_core.figures.network import Sublayer
from pgb_core.layout import UNIT_NAMES
from pgb_core.spec import BASELINES
from pgb_core.store import Run
from pgb_core.what_if import Rating
from ui import charts, frame, runs, units, url, words


def main() -> None:
    """Draw the page."""
    frame.require("layers")
    frame.heading("Layers", "What is left of every attention and feed-forward half of the network, and why.")
    run = runs.pick("what is left of every layer")
    if run is None or run.result is None:
        return
    network = figures.sublayers(run.result)
    tables = read_tables(run)
    ratings = what_if.rate(tables, run.result["method"], run.spec.get("budget", "weights")) if tables else []
    left, right = st.columns([5, 4], gap="medium")
    with right:
        place = chosen(network)
        detail(network[place])
        if tables:
            options(run, network[place], tables[place], ratings[place])
        matrices_link(run, network[place])
    with left:
        overview(run, network, place, [text.closest(*pair) for pair in zip(tables, ratings, strict=True)])


def read_tables(run: Run) -> list[dict[str, Any]]:
    """The option table of every sublayer; nothing, and a line that says why, where there is none."""
    method = run.spec["method"]
    if method in BASELINES:
        st.info(f"{method} chooses by rules of its own, without a table of options: this page shows what it left.")
        return []
    try:
        return store.read_options(run)
    except RunError as error:
        st.error(units.plain(str(error)))
        return []


def overview(run: Run, network: tuple[Sublayer, ...], selected: int, closest: list[str]) -> None:
    """The picture, in which a click selects a sublayer, and its table; `closest` is its alternative, if known."""
    st.subheader("Network", anchor=False, help=words.NETWORK)
    dropped = [s.title.lower() for s in network if s.dropped]

    def select(custom: list[int]) -> None:
        s = network[custom[0]]
        url.write(layer=str(s.layer + 1), kind=s.kind)

    columns = {
        "layer": st.column_config.NumberColumn("Layer", help=words.LAYER),
        "sublayer": "Sublayer",
        "kept": "What is left",
        "density": charts.percent_column("Density", words.DENSITY),
        "kept_importance": charts.percent_column("Kept importance", words.KEPT_IMPORTANCE),
    }
    rows = figures.network_table(network)
    if closest:
        rows = [{**row, "closest": entry} for row, entry in zip(rows, closest, strict=True)]
        columns = {**columns, "closest": st.column_config.TextColumn("Closest alternative", help=words.REGRET)}
    charts.chart(
        figures.picture(network, selected, [f"closest: {entry}" for entry in closest]),
        f"Bars for {len(network)} sublayers from input to output: share of heads or neurons kept, split into groups, "
        f"colored by density; dropped: {', '.join(dropped) or 'none'}.",
        key="network",
        name=f"layers, run {run.id}",
        rows=rows,
        columns=columns,
        on_pick=select,
    )


def chosen(network: tuple[Sublayer, ...]) -> int:
    """Place of the sublayer that the URL names; two boxes choose it, as does a click on a bar."""
    st.subheader("One sublayer", anchor=False, help=words.OPTIONS)
    left, right = st.columns([1, 2], vertical_alignment="bottom")
    layers = {str(s.layer + 1): str(s.layer + 1) for s in network}
    # the most interesting question is why one was dropped, then why one was grouped
    first = min(network, key=lambda s: (not s.dropped, len(s.group_units) < 2))
    with left:
        layer = url.select(st.selectbox, "Layer", "layer", layers, default=str(first.layer + 1), help=words.LAYER)
    with right:
        kind = url.select(
            st.segmented_control,
            "Half",
            "kind",
            {"attention": "Attention", "feed_forward": "Feed-forward"},
            default=first.kind,
            required=True,
            help=words.HALF,
        )
    return next(i for i, s in enumerate(network) if (str(s.layer + 1), s.kind) == (layer, kind))


def detail(sublayer: Sublayer) -> None:
    """What is left of one sublayer."""
    with st.container(horizontal=True):
        st.metric("Density", units.percent(sublayer.density), help=words.DENSITY)
        st.metric("Kept importance", units.percent(sublayer.kept_importance), help=words.KEPT_IMPORTANCE)
        unit = UNIT_NAMES[sublayer.kind]
        st.metric(f"{unit.capitalize()} kept", f"{sublayer.kept_units} of {sublayer.units}", help=words.UNITS)


def options(run: Run, sublayer: Sublayer, table: dict[str, Any], ratings: list[Rating]) -> None:
    """Why one sublayer became what it is, and what came close: in words, as a chart and as a table."""
    restored = (run.result or {}).get("restored", [])
    if why := text.explain_restored(table, restored):
        st.markdown(why, help=words.RESTORED)
    st.write(text.explain_choice(table, ratings))
    if closeness := text.explain_closeness(table, ratings):
        st.markdown(closeness, help=words.REGRET)
    charts.chart(
        text.option_chart(table, ratings),
        f"Loss after the refit against the share of weights kept, for every option of {sublayer.title}; "
        "the chosen option and those that came close are ringed.",
        key="options",
        name=f"options of {sublayer.title}, run {run.id}",
        rows=text.option_table(table, ratings),
        columns={
            "chosen": st.column_config.CheckboxColumn("Chosen"),
            "label": "Option",
            "regret": charts.percent_column("Regret", words.REGRET),
            "close": st.column_config.CheckboxColumn("Close", help=words.REGRET),
            "density": charts.percent_column("Density", words.DENSITY),
            "cost": st.column_config.NumberColumn("Weights kept", format="localized", help=words.ENCODER),
            "loss": st.column_config.NumberColumn("Loss", format="%.3g", help=words.LOSS),
            "methods": st.column_config.ListColumn("Open to", help=words.OPEN_TO),
        },
        twin="All options, the closest first",
    )


def matrices_link(run: Run, sublayer: Sublayer) -> None:
    """The way to the Matrix page of this sublayer."""
    matrix = "attention.query" if sublayer.kind == "attention" else "feed_forward.intermediate"
    frame.link("matrix", "See its matrices", run=run.id, layer=str(sublayer.layer + 1), matrix=matrix)


main()

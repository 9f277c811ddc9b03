"""Layers: the whole network at a glance, and why each sublayer became what it is."""

from __future__ import annotations

import streamlit as st

from pgb_core import store
from pgb_core.errors import RunError
from pgb_core.figures import network as figures
from pgb_core.figures.network import Sublayer
from pgb_core.layout import UNIT_NAMES
from ui import charts, frame, runs, units, url, words


def main() -> None:
    """Draw the page."""
    frame.require("layers")
    frame.heading("Layers", "What is left of every attention and feed-forward half of the network, and why.")
    run = runs.pick("what is left of every layer")
    if run is None or run.result is None:
        return
    try:
        tables = {(table["layer"], table["kind"]): table for table in store.read_options(run)}
    except RunError as error:
        st.error(str(error))
        return
    network = figures.sublayers(run.result)
    left, right = st.columns([5, 4], gap="medium")
    with right:
        place = chosen(network)
        detail(run.id, network[place], tables[network[place].layer, network[place].kind])
    with left:
        overview(network, place)


def overview(network: tuple[Sublayer, ...], selected: int) -> None:
    """The picture, in which a click selects a sublayer, and its table."""
    st.subheader("Network", anchor=False, help=words.NETWORK)
    dropped = [s.title.lower() for s in network if s.dropped]

    def select(custom: list[int]) -> None:
        s = network[custom[0]]
        url.write(layer=str(s.layer + 1), kind=s.kind)

    charts.chart(
        figures.picture(network, selected),
        f"Bars for {len(network)} sublayers from input to output: share of heads or neurons kept, split into groups, "
        f"colored by density; dropped: {', '.join(dropped) or 'none'}.",
        key="network",
        on_pick=select,
    )
    charts.table(
        figures.network_table(network),
        {
            "layer": st.column_config.NumberColumn("Layer", help=words.LAYER),
            "sublayer": "Sublayer",
            "kept": "What is left",
            "density": charts.percent_column("Density", words.DENSITY),
            "kept_importance": charts.percent_column("Kept importance", words.KEPT_IMPORTANCE),
        },
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


def detail(run_id: str, sublayer: Sublayer, table: dict[str, object]) -> None:
    """Density, option chart and table of one sublayer."""
    with st.container(horizontal=True):
        st.metric("Density", units.percent(sublayer.density), help=words.DENSITY)
        st.metric("Kept importance", units.percent(sublayer.kept_importance), help=words.KEPT_IMPORTANCE)
        unit = UNIT_NAMES[sublayer.kind]
        st.metric(f"{unit.capitalize()} kept", f"{sublayer.kept_units} of {sublayer.units}", help=words.UNITS)
    st.write(figures.explain_choice(table))
    charts.chart(
        figures.option_chart(table),
        f"Loss after the refit against the share of weights kept, for every option of {sublayer.title}; "
        "the chosen option is ringed.",
        key="options",
    )
    charts.table(
        figures.option_table(table),
        {
            "chosen": st.column_config.CheckboxColumn("Chosen"),
            "label": "Option",
            "cost": st.column_config.NumberColumn("Weights kept", format="localized", help=words.ENCODER),
            "density": charts.percent_column("Density", words.DENSITY),
            "loss": st.column_config.NumberColumn("Loss", format="%.3g", help=words.LOSS),
        },
        title="Option table",
    )
    matrix = "attention.query" if sublayer.kind == "attention" else "feed_forward.intermediate"
    frame.link("matrix", "See its matrices", run=run_id, layer=str(sublayer.layer + 1), matrix=matrix)


main()

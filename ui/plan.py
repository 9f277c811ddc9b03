"""A plan of the What if page: its numbers, the network that it leaves, and why a sublayer is what it is."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from pgb_core import replan, what_if
from pgb_core.figures import network, options
from pgb_core.figures import what_if as figures
from pgb_core.latency_table import LatencyTable
from pgb_core.replan import Market, Plan, Totals
from pgb_core.scored import Record
from ui import charts, units, url, wishes, words
from ui.records import Prospect
from ui.wishes import Wish


def headline(record: Record, found: Totals, plan: Plan, latency: LatencyTable | None) -> None:
    """The numbers of a plan, each beside the dense model's."""
    sizes = record.sizes
    with st.container(horizontal=True, gap="small"):
        _metric("Predicted loss", f"{plan.loss:.3g}", "nats", words.PREDICTED_LOSS)
        _metric("Weights removed", units.percent(found.sparsity), "of the encoder", words.SPARSITY)
        for title, value, dense, text, help_text in (
            ("Parameters", found.parameters, record.dense["parameters"], units.count, words.PARAMETERS),
            ("FLOPs", found.flops, record.dense["flops"], units.count, words.FLOPS),
            ("Size on disk", found.bytes, record.dense["bytes"], units.size, words.BYTES),
        ):
            _metric(title, text(value), f"{100 * (value / dense - 1):+.0f}%", f"{help_text} Dense: {text(dense)}.")
        if latency is not None and found.milliseconds is not None:
            speedup = f"{latency.dense_ms / found.milliseconds:.2f} × as fast"
            _metric("Time, predicted", units.milliseconds(found.milliseconds), speedup, words.PREDICTED_LATENCY)
        count = len(record.sublayers)
        _metric("Dropped", f"{found.dropped} of {count}", f"{found.grouped} grouped", "Sublayers. " + words.HALF)
        _metric("Heads kept", f"{found.heads:,}", f"of {sizes['layers'] * sizes['heads']:,}", words.UNITS)
        _metric("Neurons kept", f"{found.neurons:,}", f"of {sizes['layers'] * sizes['neurons']:,}", words.UNITS)
        if found.grouped:
            _metric("Groups", str(found.groups), f"in {units.several(found.grouped, 'sublayer')}", words.PLAN_GROUPS)
    if latency is not None:
        setup = latency.setup
        st.caption(
            f"Time: batch {setup.batch} of {setup.length} tokens on {setup.device} ({setup.machine}, "
            f"{units.several(setup.threads, 'thread')}), predicted; of whole models that were timed with the table it "
            f"was off by up to {units.percent(latency.error, 0)}."
        )


def _metric(label: str, value: str, note: str, help_text: str) -> None:
    st.metric(label, value, note, delta_color="off", delta_arrow="off", help=help_text, border=True, width=158)


def picture(record: Record, wish: Wish, plan: Plan, selected: int) -> None:
    """The network that the plan leaves; a click on a bar asks why."""
    found = [
        network.planned(sub.layer, sub.shape, sub.options[n])
        for sub, n in zip(record.sublayers, plan.options, strict=True)
    ]
    dropped = [entry.title.lower() for entry in found if entry.dropped]

    def select(custom: list[int]) -> None:
        entry = found[custom[0]]
        url.write(layer=str(entry.layer + 1), kind=entry.kind)

    charts.chart(
        network.picture(found, selected),
        f"Bars for {len(found)} sublayers from input to output: share of heads or neurons that the plan keeps, split "
        f"into groups, colored by density; dropped: {', '.join(dropped) or 'none'}.",
        key="what_if_network",
        name=f"network, {file_words(record, wish)}",
        rows=network.network_table(found),
        columns={
            "layer": st.column_config.NumberColumn("Layer", help=words.LAYER),
            "sublayer": "Sublayer",
            "kept": "What is left",
            "density": charts.percent_column("Density", words.DENSITY),
            "groups": "Groups",
            "units_kept": st.column_config.NumberColumn("Units kept", help=words.UNITS),
            "units": st.column_config.NumberColumn("Units", help=words.UNITS),
        },
        on_pick=select,
    )


def curve(record: Record, wish: Wish, plan: Plan, path: Sequence[Plan], learned: figures.Experience | None) -> None:
    """Predicted loss at all targets, and where the plan is."""
    st.subheader("Predicted loss at every target", anchor=False, help=words.PREDICTED_LOSS)
    number = st.column_config.NumberColumn
    in_time = wish.goal == replan.LATENCY
    columns = {
        "target": number("Target", format="%.1f ms") if in_time else charts.percent_column("Target", words.SPARSITY),
        "loss": number("Predicted loss", format="%.3g", help=words.PREDICTED_LOSS),
        "dropped": "Dropped",
        "grouped": "Grouped",
    }
    if learned is not None:
        columns |= {
            "drop": charts.percent_column("Expected fall of the score", words.BAND),
            "low": charts.percent_column("From", words.BAND),
            "high": charts.percent_column("To", words.BAND),
        }
    charts.chart(
        figures.loss_curve(path, plan, wish.goal, wish.method),
        f"Predicted loss of the best plan at {len(path)} targets under the present limits; the present plan, at a loss "
        f"of {plan.loss:.3g} nats, is ringed.",
        key="what_if_curve",
        name=f"predicted loss, {file_words(record, wish)}",
        rows=figures.curve_table(record, path, learned),
        columns=columns,
    )


def file_words(record: Record, wish: Wish) -> str:
    """Words for the name of a file that shows a plan."""
    return f"what if {wish.method} {wish.target:g} {wish.goal}, record {record.key}"


def choose(record: Record, plan: Plan) -> int:
    """Place of the sublayer that the URL names; else of the first that is dropped, or grouped."""
    found = [(str(sub.layer + 1), sub.shape.kind) for sub in record.sublayers]
    picks = [sub.options[n] for sub, n in zip(record.sublayers, plan.options, strict=True)]
    asked = (st.query_params.get("layer"), st.query_params.get("kind"))
    if asked in found:
        return found.index(asked)  # type: ignore[arg-type]
    if asked != (None, None):
        st.warning("The link asks for a sublayer that this model does not have. You see another one instead.")
    first = min(range(len(picks)), key=lambda n: (picks[n]["groups"] != 0, picks[n]["groups"] < 2))
    url.write(layer=found[first][0], kind=found[first][1])
    return first


def why(market: Market, plan: Plan, ahead: Prospect, wish: Wish, place: int) -> None:
    """The option table of one sublayer, its price, and, where it is dropped, what brings it back."""
    record = market.record
    tables = replan.tables_of(market, plan, ahead.options)
    ratings = what_if.rate(tables, wish.method, wish.goal)
    sub, table = record.sublayers[place], tables[place]
    title = network.planned(sub.layer, sub.shape, table["options"][table["chosen"]]).title
    dropped = table["options"][table["chosen"]]["groups"] == 0
    heading = f"Why is {title.lower()} dropped?" if dropped else f"Why this much of {title.lower()}?"
    st.subheader(heading, anchor=False, help=words.OPTIONS)
    if dropped:
        margin = what_if.margin(tables, wish.method, wish.goal)
        back = replan.comes_back(market, ahead.path, place, plan.target, wish.constraints)
        st.markdown(figures.explain_return(back, wish.goal, plan.target, margin), help=words.COMES_BACK)
        st.button("Never drop it", icon=":material/keep:", on_click=wishes.pin, args=(sub.layer, sub.shape.kind))
    else:
        st.write(options.explain_choice(table, ratings[place]))
    if closeness := options.explain_closeness(table, ratings[place]):
        st.markdown(closeness, help=words.REGRET)
    charts.chart(
        options.option_chart(table, ratings[place]),
        f"Loss after the refit against the share of weights kept, for every option of {title}; the chosen option and "
        "those that came close are ringed.",
        key="what_if_options",
        name=f"options, {title}, {file_words(record, wish)}",
        rows=options.option_table(table, ratings[place]),
        columns={
            "chosen": st.column_config.CheckboxColumn("Chosen"),
            "label": "Option",
            "regret": charts.percent_column("Regret", words.REGRET),
            "density": charts.percent_column("Density", words.DENSITY),
            "loss": st.column_config.NumberColumn("Loss", format="%.3g", help=words.LOSS),
            "methods": st.column_config.ListColumn("Open to", help=words.OPEN_TO),
        },
        twin="All options, the closest first",
    )

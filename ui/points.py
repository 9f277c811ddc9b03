"""All runs of a checkpoint and task: score against cost, with what they are seen against."""

from __future__ import annotations

import streamlit as st

from pgb_core import metrics
from pgb_core.figures import trade_off as figures
from pgb_core.published import published
from pgb_core.store import Run
from ui import charts, runs, units, url, words

COSTS = {
    "latency": "Latency",
    "flops": "FLOPs",
    "parameters": "Parameters",
    "bytes": "Bytes",
    "density": "Weights kept",
}


def show(members: list[Run]) -> None:
    """Chart and table of all runs of a family, newest first; a click on one opens its run."""
    runs.mark(members[0])
    score = members[0].result["score"]
    cited = published(members[0].spec["task"], score["metric"])
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    with left:
        cost = url.select(st.segmented_control, "Cost", "cost", COSTS, required=True, wrap=True, help=words.COST)
    with right:
        if cited:
            options = {"show": "Show", "hide": "Hide"}
            wish = url.select(
                st.segmented_control, "Published figures", "cited", options, required=True, help=words.PUBLISHED
            )
            cited = cited if wish == "show" else ()
    points, left_out = _collect(members, cost)
    if not points:
        st.info("None of these runs measured its latency. Choose FLOPs, parameters, bytes or weights kept above.")
        return
    majority = next((m for run in members if (m := run.result["score"].get("majority")) is not None), None)
    _chart(points, cost, members[0], figures.References(majority, cited))
    if left_out:
        st.caption(f"{units.several(left_out, 'run')} without a latency measured in the same way left out.")
    if cited:
        _references(figures.References(majority, cited), cost)


def _collect(members: list[Run], cost: str) -> tuple[list[figures.Point], int]:
    """The points of the runs, dense first, and how many runs cannot be compared with the newest."""
    results = [(run.id, run.result) for run in members if run.result is not None]
    if cost == "latency":
        settings = next((how for _, result in results if (how := figures.measured_how(result))), None)
        results = [(run_id, result) for run_id, result in results if figures.measured_how(result) == settings]
        if settings is None:
            return [], len(members)
        st.caption(f"Latency measured on {settings}.")
    points = [point for run_id, result in results if (point := figures.point(run_id, result, cost))]
    dense = figures.dense_point(results[0][1], cost)
    return ([dense] if dense else []) + points, len(members) - len(results)


def _chart(points: list[figures.Point], cost: str, member: Run, against: figures.References) -> None:
    """Chart and table; a point or a row opens its run. `member` is any of the runs."""
    metric = metrics.phrase(member.result["score"]["metric"])

    def open_run(run_id: str) -> None:
        st.session_state["open_run"] = run_id

    rows = figures.trade_off_table(points)
    columns = {
        "model": "Model",
        "sparsity": charts.percent_column("Removed", words.SPARSITY),
        "score": charts.percent_column(metric[0].upper() + metric[1:], words.SCORE),
        "standard_error": charts.percent_column("Standard error", words.SCORE),
        "cost": st.column_config.NumberColumn(figures.COSTS[cost][0].capitalize(), format="%.4g"),
        "front": st.column_config.CheckboxColumn("On the front", help=words.FRONT),
        "run": "Run",
    }
    charts.chart(
        figures.trade_off_chart(points, cost, metric, against),
        f"{metric} against {COSTS[cost].lower()} of {len(points)} models, the dense one included, with standard errors "
        "and the Pareto front.",
        key="trade_off",
        name=f"trade-off, {metric} against {COSTS[cost]}, {runs.checkpoint_name(member)}, {member.spec['task']}",
        rows=rows,
        columns=columns,
        twin=None,
        on_pick=lambda custom: open_run(custom[0]) if custom[0] else None,
    )
    st.caption(
        "Whiskers are one standard error; open symbols and dotted lines are models after recovery. A line joins the "
        "means of a method at its targets. The broad line is the Pareto front: no other model here is both cheaper "
        "and better. Dashed: the dense model. Click a point, or select a row below, to open its run.",
        help=words.MAJORITY if against.majority is not None else None,
    )
    charts.pick_table(
        rows,
        columns,
        key="points",
        alt="The models of the chart, by falling score.",
        selected=None,
        on_pick=lambda row: open_run(rows[row]["run"]) if row is not None and rows[row]["run"] else None,
    )


def _references(against: figures.References, cost: str) -> None:
    """The published figures with their settings and sources."""
    if cost != "density":
        st.caption("Published figures tell how many weights were kept, not what they cost here: choose Weights kept.")
    charts.table(
        figures.reference_table(against),
        {
            "method": "Method",
            "density": charts.percent_column("Weights kept", words.DENSITY),
            "score": charts.percent_column("Score", words.PUBLISHED),
            "setting": "Setting",
            "source": "Source",
        },
        key="published_table",
        title="Published figures, in other settings: references, not measurements of ours",
    )

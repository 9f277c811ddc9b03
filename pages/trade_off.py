"""Trade-off: score against cost for all finished runs of a checkpoint and task."""

from __future__ import annotations

import streamlit as st

from pgb_core import store
from pgb_core.figures import trade_off as figures
from pgb_core.settings import get_settings
from pgb_core.store import Run
from ui import charts, frame, runs, units, url, words

COSTS = {"latency": "Latency", "flops": "FLOPs", "parameters": "Parameters", "bytes": "Bytes"}


def main() -> None:
    """Draw the page."""
    frame.require("trade_off")
    frame.heading("Trade-off", "What each pruned model scores against what it costs. Up and to the left is better.")
    done = [run for run in store.list_runs(get_settings().runs_dir) if run.status.state == "done"]
    if not done:
        frame.empty(
            "No finished run yet",
            "This page compares the runs of a checkpoint. Prune a model at two or three sparsities, then come back.",
            "prune",
            "Prune a model",
        )
        return
    members, cost = choose(done)
    runs.mark(members[0])
    points, left_out = collect(members, cost)
    if not points:
        st.info("None of these runs measured its latency. Choose FLOPs, parameters or bytes above.")
        return
    show(points, cost, members[0])
    if left_out:
        st.caption(f"{units.several(left_out, 'run')} without a latency measured in the same way left out.")


def choose(done: list[Run]) -> tuple[list[Run], str]:
    """The runs of the family that the URL names, newest first, and the cost to compare."""
    families = runs.families(done)
    titles = {name: f"{name} ({units.several(len(members), 'run')})" for name, members in families.items()}
    left, right = st.columns(2, vertical_alignment="bottom")
    with left:
        family = url.select(st.selectbox, "Checkpoint and task", "family", titles, help=words.FAMILY)
    with right:
        cost = url.select(st.segmented_control, "Cost", "cost", COSTS, required=True, help=words.COST)
    return families[family], cost


def collect(members: list[Run], cost: str) -> tuple[list[figures.Point], int]:
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


def show(points: list[figures.Point], cost: str, member: Run) -> None:
    """Chart and table; a point or a row opens its run. `member` is any of the runs."""
    metric = (member.result or {})["score"]["metric"]

    def open_run(run_id: str) -> None:
        st.session_state["open_run"] = run_id

    rows = figures.trade_off_table(points)
    columns = {
        "model": "Model",
        "sparsity": charts.percent_column("Removed", words.SPARSITY),
        "score": charts.percent_column(metric.capitalize(), words.SCORE),
        "standard_error": charts.percent_column("Standard error", words.SCORE),
        "cost": st.column_config.NumberColumn(figures.COSTS[cost][0].capitalize(), format="%.4g"),
        "front": st.column_config.CheckboxColumn("On the front", help=words.FRONT),
        "run": "Run",
    }
    charts.chart(
        figures.trade_off_chart(points, cost, metric),
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
        "Whiskers are one standard error; open symbols are models after recovery. The line is the Pareto front: no "
        "other model here is both cheaper and better. Click a point, or select a row below, to open its run."
    )
    charts.pick_table(
        rows,
        columns,
        key="points",
        alt="The models of the chart, by falling score.",
        selected=None,
        on_pick=lambda row: open_run(rows[row]["run"]) if row is not None and rows[row]["run"] else None,
    )
    # pages can be switched in the body of a script only, not in the callback that saw the click
    if run_id := st.session_state.pop("open_run", None):
        st.switch_page(frame.path("prune"), query_params={"run": run_id})


main()

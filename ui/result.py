"""The result of a finished run: score, size and speed, before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from pgb_core import metrics
from pgb_core.figures import predictions, recovery, scores
from pgb_core.spec import BUDGETS
from pgb_core.store import Run
from ui import charts, constraints, frame, runs, units, words


def show(run: Run) -> None:
    """Everything that `result.json` says, the main figures first."""
    result = run.result
    if result is None:
        return
    headline(result)
    if result.get("note"):
        st.info(units.plain(f"{result['note'][0].upper()}{result['note'][1:]}."))
    left, right = st.columns([5, 4], gap="medium")
    with left:
        st.subheader("Score, step by step", anchor=False, help=words.STEPS)
        score_steps(run, result["score"])
        further(result["score"])
    with right:
        st.subheader("Size and speed", anchor=False)
        costs(result)
    shapes(result.get("latencies", []))
    predicted(run, result)
    recovered(run, result)
    st.subheader("Look inside", anchor=False)
    with st.container(horizontal=True):
        frame.link("layers", "What is left of each layer", run=run.id)
        frame.link("matrix", "Permutation and groups", run=run.id)
        frame.link("trade_off", "Compare with other runs")
    details(run, result)


def headline(result: dict[str, Any]) -> None:
    """Five numbers that answer: how good, how small, how fast."""
    score, latency = result["score"], result["latency"]
    step = scores.final_step(score)
    points = round(100 * (score[step] - score["dense"]), 1)
    with st.container(horizontal=True):
        _metric(
            metrics.title(score["metric"]),
            units.percent(score[step]),
            f"{points:+.1f} points" if points else "as dense",
            f"{score['samples']} texts; {scores.STEPS[step].lower()}, compared with dense. {words.SCORE}",
            color="normal" if points else "off",
        )
        # runs of the first version say nothing of the budget: it was weights
        budget = result.get("budget", {"unit": "weights", "achieved": result["sparsity"]["achieved"]})
        _metric(
            "Weights removed" if budget["unit"] == "weights" else "FLOPs removed",
            units.percent(budget["achieved"]),
            f"target {units.percent(result['sparsity']['target'])}",
            words.SPARSITY if budget["unit"] == "weights" else BUDGETS[budget["unit"]],
            color="off",
        )
        _saved("Parameters", result["parameters"], units.count, words.PARAMETERS)
        _saved("FLOPs", result["flops"], units.count, words.FLOPS)
        _saved("Size on disk", result["bytes"], units.size, words.BYTES)
        if latency is not None:
            speedup, ideal = latency["speedup"], latency["ideal_speedup"]
            share = f"{units.percent(speedup / ideal, 0)} of ideal {ideal:.2f} ×"
            _metric("Speed-up", f"{speedup:.2f} ×", share, words.SPEEDUP, color="off")


def score_steps(run: Run, score: dict[str, Any]) -> None:
    """Chart and table of the score after each step."""
    charts.chart(
        scores.score_chart(score),
        "Score of the dense model, after cutting, after the refit and after recovery, each with its standard error: "
        + ", ".join(f"{row['step']} {row['score']:.1%}" for row in scores.score_table(score)),
        key="scores",
        name=f"score step by step, run {run.id}",
        rows=scores.score_table(score),
        columns={
            "step": "Step",
            "score": charts.percent_column(metrics.title(score["metric"]), words.SCORE),
            "standard_error": charts.percent_column(
                "Standard error", "Uncertainty from the number of evaluation texts."
            ),
            "difference": charts.percent_column("Against dense", "Score minus the dense model's score."),
        },
    )


def further(score: dict[str, Any]) -> None:
    """Metrics of the task beside the main one, if it has any."""
    for metric, by_stage in (score.get("secondary") or {}).items():
        values = [
            f"{title.lower()} {units.percent(by_stage[stage])} ± {units.percent(by_stage['standard_error'][stage])}"
            for stage, title in scores.STEPS.items()
            if by_stage.get(stage) is not None
        ]
        st.caption(f"{metrics.title(metric)}: {', '.join(values)}.")


def predicted(run: Run, result: dict[str, Any]) -> None:
    """What the shared option tables say of the other methods at this target; runs of the first version do not know."""
    if "predictions" not in result:
        return
    st.subheader("What the other methods' tables predict", anchor=False, help=words.PREDICTIONS)
    st.write(predictions.explain_predictions(result))
    rows = predictions.prediction_table(result) if result["predictions"] else []
    if len(rows) < 2:
        return
    st.caption("Predicted on training text, in nats and without an error bar; only a run measures a score.")
    columns = {
        "method": st.column_config.TextColumn("Method", help=words.METHOD),
        "loss": st.column_config.NumberColumn("Predicted loss", format="%.3g", help=words.PREDICTIONS),
        "ratio": st.column_config.NumberColumn("Ratio", format="%.2f ×", help="To this run's method."),
        "grouped": st.column_config.NumberColumn("Grouped", help="Sublayers in groups."),
        "dropped": st.column_config.NumberColumn("Dropped", help="Sublayers of which nothing is kept."),
    }
    left, right = st.columns([5, 4], gap="medium", vertical_alignment="center")
    with left:
        charts.chart(
            predictions.prediction_chart(result),
            "Predicted loss of each method, relative to this run's: "
            + ", ".join(f"{row['method']} {row['ratio']:.0%}" for row in rows if row["ratio"] is not None),
            key="predictions",
            name=f"predicted loss by method, run {run.id}",
            rows=rows,
            columns=columns,
            twin=None,
        )
    with right:
        charts.show(rows, columns)


def recovered(run: Run, result: dict[str, Any]) -> None:
    """How the recovery went, if there was one and it left its history."""
    history = result.get("recovery")
    if not history:
        return
    st.subheader("Recovery", anchor=False, help=words.LOOKS)
    st.write(recovery.explain_recovery(history, run.spec["recover_epochs"]))
    rows = recovery.recovery_table(history)
    charts.chart(
        recovery.recovery_chart(history),
        f"Training loss and, on the examples set aside, loss and {metrics.phrase(history['metric'])} at each of "
        f"{len(rows)} looks; "
        f"the state after {recovery.epochs_text(history['history'][history['kept']]['epoch'])} was kept.",
        key="recovery",
        name=f"recovery, run {run.id}",
        rows=rows,
        columns={
            "epoch": st.column_config.NumberColumn("Epochs", format="%.1f"),
            "loss": st.column_config.NumberColumn(
                "Training loss", format="%.3f", help="Mean over the batches since the last look."
            ),
            "dev_loss": st.column_config.NumberColumn("Loss, set aside", format="%.3f"),
            "dev_score": charts.percent_column(f"{metrics.title(history['metric'])}, set aside", words.LOOKS),
            "kept": st.column_config.CheckboxColumn("Kept"),
        },
    )


def costs(result: dict[str, Any]) -> None:
    """Dense beside pruned, one row per kind of cost."""
    parameters, flops, latency = result["parameters"], result["flops"], result["latency"]
    rows = [
        _row("Encoder weights", parameters["encoder_dense"], parameters["encoder_pruned"], units.count),
        _row("Parameters", parameters["dense"], parameters["pruned"], units.count),
        _row("FLOPs", flops["dense"], flops["pruned"], units.count),
        _row("Size on disk", result["bytes"]["dense"], result["bytes"]["pruned"], units.size),
    ]
    note = f"FLOPs for batch {flops['batch']}, {flops['length']} tokens."
    if latency is not None:
        dense, pruned = latency["dense"]["median_ms"], latency["pruned"]["median_ms"]
        rows.append(_row("Latency", dense, pruned, units.milliseconds))
        if "peak_bytes" in latency["dense"]:  # the first version did not measure it
            rows.append(
                _row("Memory of a pass", *(latency[name]["peak_bytes"] for name in ("dense", "pruned")), units.size)
            )
        note += _measured(latency)
    else:
        note += " Latency was not measured in this run."
    st.table(rows, border="horizontal", hide_index=True, alt="Costs of the dense and the pruned model.")
    st.caption(note)


def shapes(latencies: Sequence[dict[str, Any]]) -> None:
    """Latency at each batch and length that was measured, if there are several."""
    if len(latencies) < 2:
        return
    st.subheader("Latency, shape by shape", anchor=False, help=words.SHAPES)
    rows = [
        {
            "batch": found["batch"],
            "length": found["length"],
            **{name: found[name]["median_ms"] for name in ("dense", "pruned")},
            **{f"memory_{name}": found[name]["peak_bytes"] / 2**20 for name in ("dense", "pruned")},
            "speedup": found["speedup"],
            "ideal": found["ideal_speedup"],
            "share": found["speedup"] / found["ideal_speedup"],
        }
        for found in sorted(latencies, key=lambda found: (found["batch"], found["length"]))
    ]
    number = st.column_config.NumberColumn
    st.dataframe(
        rows,
        hide_index=True,
        alt="Latency, speed-up and memory of the dense and the pruned model at each batch size and length.",
        column_config={
            "batch": number("Batch", help="Sequences at a time."),
            "length": number("Tokens", help="Per sequence, without padding."),
            "dense": number("Dense", format="%.1f ms"),
            "pruned": number("Pruned", format="%.1f ms"),
            "memory_dense": number("Memory, dense", format="%.0f MiB", help=words.MEMORY),
            "memory_pruned": number("Memory, pruned", format="%.0f MiB", help=words.MEMORY),
            "speedup": number("Speed-up", format="%.2f ×", help=words.SPEEDUP),
            "ideal": number("Ideal", format="%.2f ×", help=words.SPEEDUP),
            "share": number("Of ideal", format="percent", help=words.SPEEDUP),
        },
    )


def _measured(latency: dict[str, Any]) -> str:
    """How latency was measured and how far the repeats lie apart."""
    ranges = {
        name: f"{units.milliseconds(latency[name]['p10_ms'])} to {units.milliseconds(latency[name]['p90_ms'])}"
        for name in ("dense", "pruned")
    }
    return (
        f" Latency: median of {latency['pruned']['repeats']}, batch {latency['batch']}, {latency['length']} tokens, "
        f"{latency['device']}, {units.several(latency['threads'], 'thread')}, {latency['dtype']}; "
        f"the middle 80% of the repeats took {ranges['dense']} dense and {ranges['pruned']} pruned."
    )


def details(run: Run, result: dict[str, Any]) -> None:
    """How the run was made: settings, time per stage, machine."""
    with st.expander("How this was made"):
        left, middle, right = st.columns(3)
        with left:
            st.markdown("**Settings**")
            keys = (
                "task",
                "method",
                "importance",
                "sparsity",
                "recover_epochs",
                "calibration_samples",
                "max_length",
                "seed",
                "revision",
                "fingerprint",
            )
            settings = {key: run.spec.get(key) for key in keys}
            _pairs({"checkpoint": runs.checkpoint_name(run), **settings, **constraints.describe(run.spec)})
        with middle:
            st.markdown("**Time per stage**")
            _pairs({key: units.seconds(value) for key, value in result["seconds"].items() if value})
        with right:
            st.markdown("**Environment**")
            shown = dict(result["environment"])
            if peak := shown.pop("peak_memory_bytes", None):
                shown["peak memory"] = units.size(peak)
            _pairs(shown)
        st.caption(f"Run {run.id}")


def _pairs(values: dict[str, Any]) -> None:
    rows = [{"": key.replace("_", " "), " ": _short(value)} for key, value in values.items() if value is not None]
    st.table(rows, border="horizontal", hide_index=True, hide_header=True)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 or " " in text else text[:12] + "…"  # a hash, not words


def _row(name: str, dense: float, pruned: float, text: Any) -> dict[str, str]:
    change = "=" if dense == pruned else f"{100 * (pruned / dense - 1):+.0f}%"
    return {"": name, "Dense": text(dense), "Pruned": text(pruned), "Change": change}


def _saved(label: str, values: dict[str, Any], text: Any, help_text: str) -> None:
    change = 100 * (values["pruned"] / values["dense"] - 1)
    _metric(
        label,
        text(values["pruned"]),
        f"{change:+.0f}%",
        f"{help_text} Dense: {text(values['dense'])}.",
        color="inverse",
    )


def _metric(label: str, value: str, delta: str, help_text: str, *, color: Any) -> None:
    arrow = "off" if color == "off" else "auto"
    st.metric(label, value, delta, delta_color=color, delta_arrow=arrow, help=help_text, border=True, width=186)

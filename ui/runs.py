"""Which run a page is about: from the URL, else the one last seen, else the newest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from pgb_core import hub, store
from pgb_core.data_files import Columns
from pgb_core.errors import RunError
from pgb_core.figures.scores import final_step
from pgb_core.settings import get_settings
from pgb_core.store import Run
from ui import charts, frame, units, url, words

OF_A_MATRIX = ("group", "row", "column", "first_row", "first_column")
"""Query keys that say something of one matrix, and nothing of another."""
SAMPLE = "shipped sample"
_LAST = "last_run"


def checkpoint_name(run: Run) -> str:
    """The checkpoint as users know it: of a folder its name, never where it lies on the server."""
    name = str(run.spec["checkpoint"]).removeprefix(hub.PREFIX)
    place = Path(name)
    if place.parent == get_settings().uploads_dir:
        return f"upload {place.name[:6]}"
    return place.name if place.is_absolute() else name


def families(found: Iterable[Run]) -> dict[str, list[Run]]:
    """Runs by what makes their scores comparable: the checkpoint's weights, the task, and the texts they are tested on.

    A name says only what tells the families of these runs apart. An upload's name means nothing to anybody, so files
    are counted, the oldest first. Samples were measured on another machine, and are families of their own.
    """
    runs = list(found)
    specs = [run.spec for run in runs]
    names = [checkpoint_name(run) + (f" ({SAMPLE}s)" if run.sample else "") for run in runs]
    names = _told_apart(names, [spec.get("fingerprint", "") for spec in specs], lambda value, _: f" {value[:6]}")
    names = [f"{name} · {spec['task']}" for name, spec in zip(names, specs, strict=True)]
    names = _told_apart(names, [_source(spec) for spec in specs], lambda _, number: f" ({number})")
    names = _told_apart(names, [spec.get("max_length") for spec in specs], lambda value, _: f" · {value} tokens")
    names = _told_apart(names, [spec.get("eval_samples") for spec in specs], lambda v, _: f" · {v or 'all'} texts")
    names = _told_apart(names, [_draw(spec) for spec in specs], lambda value, _: f" · texts drawn with seed {value}")
    result: dict[str, list[Run]] = {}
    for name, run in zip(names, runs, strict=True):
        result.setdefault(name, []).append(run)
    return result


def _source(spec: Mapping[str, Any]) -> tuple[Any, ...]:
    """The file, and what in it, that the evaluation texts are from, if the task does not decide it."""
    columns = Columns.of_spec(spec)
    if spec.get("eval_file"):
        return "whole", spec["eval_file"], columns
    return "held out", spec.get("train_file"), columns


def _draw(spec: Mapping[str, Any]) -> int | None:
    """The seed, where it decides which texts are for evaluation."""
    held_out = spec.get("train_file") and not spec.get("eval_file")
    return spec.get("seed") if held_out or spec.get("eval_samples") else None


def _told_apart(names: Sequence[str], values: Sequence[Any], words: Callable[[Any, int], str]) -> list[str]:
    """`names`, newest first; equal ones with several `values` get the `words` for a value and its number from 1."""
    seen: dict[str, list[Any]] = {}
    for name, value in zip(reversed(names), reversed(values), strict=True):
        if value not in seen.setdefault(name, []):
            seen[name].append(value)
    return [
        name + words(value, seen[name].index(value) + 1) if len(seen[name]) > 1 else name
        for name, value in zip(names, values, strict=True)
    ]


def label(run: Run) -> str:
    """One line that tells runs apart, the user's name for it first; plain text, never to be shown as Markdown."""
    spec = run.spec
    removed = f"{units.percent(spec['sparsity'], 0)}{' of FLOPs' if spec.get('budget') == 'flops' else ''} removed"
    parts = [run.label.name, checkpoint_name(run), spec["task"], spec["method"], removed]
    if spec["recover_epochs"]:
        parts.append("recovered")
    parts.append(SAMPLE if run.sample else units.moment(run.status.created))
    return " · ".join(filter(None, parts))


def mark(run: Run) -> None:
    """Say of a sample what it is; of a run of this server nothing."""
    if run.sample:
        st.info(
            f"Shipped sample, measured on {run.machine}, not on this server. It came without the model's weights. "
            "Prune a model to have runs of your own.",
            icon=":material/inventory_2:",
        )


def row(run: Run) -> dict[str, Any]:
    """A run as a row of a table; score and speed-up only when there are any."""
    result = run.result or {}
    score, latency = result.get("score"), result.get("latency")
    keys = ("task", "method", "sparsity")
    return {
        "name": run.label.name,
        "state": SAMPLE if run.sample else run.status.state,
        "created": units.moment(run.status.created),
        "checkpoint": checkpoint_name(run),
        **{key: run.spec[key] for key in keys},
        "score": score[final_step(score)] if score else None,
        "speedup": latency["speedup"] if latency else None,
    }


def remember(run: Run) -> None:
    """Make `run` the one that the other pages open with."""
    st.session_state[_LAST] = run.id


def asked() -> Run | None:
    """The run that the URL names, in whatever state; a friendly line when there is none of that name."""
    run_id = st.query_params.get("run")
    if run_id is None:
        return None
    try:
        run = store.find_run(get_settings().runs_dir, run_id)
    except RunError as error:
        st.warning(f"{units.plain(str(error))} It may have been deleted; the link is no longer good.")
        url.write(run=None)
        return None
    remember(run)
    return run


def columns(found: Iterable[Run]) -> dict[str, Any]:
    """The columns of a table whose rows `row` gives; names only where some run has one."""
    named = any(run.label.name for run in found)
    return {
        **({"name": st.column_config.TextColumn("Name", help=words.NAME, width=180)} if named else {}),
        "state": "State",
        "created": "Started",
        "checkpoint": "Checkpoint",
        "task": "Task",
        "method": st.column_config.TextColumn("Method", help=words.METHOD),
        "sparsity": charts.percent_column("Target", words.SPARSITY),
        "score": charts.percent_column("Score", words.SCORE),
        "speedup": st.column_config.NumberColumn("Speed-up", format="%.2f ×", help=words.SPEEDUP),
    }


def pick(need: str) -> Run | None:
    """A select box over the finished runs. Without any: what to do next, and None.

    `need` says what the page shows of a run.
    """
    runs = {run.id: run for run in store.list_runs(get_settings().runs_dir) if run.status.state == "done"}
    if not runs:
        frame.empty(
            "No finished run yet",
            f"This page shows {need}. Prune a model first: the demo takes a few minutes and one click.",
            "prune",
            "Prune a model",
        )
        return None
    last = st.session_state.get(_LAST)
    chosen = url.select(
        st.selectbox,
        "Run",
        "run",
        {run_id: label(run) for run_id, run in runs.items()},
        default=last if last in runs else None,
        resets=("layer", "kind", "matrix", *OF_A_MATRIX),
        help=words.RUN,
    )
    try:
        run = store.find_run(get_settings().runs_dir, chosen)
    except RunError:  # deleted this very moment
        st.rerun()
    remember(run)
    mark(run)
    return run

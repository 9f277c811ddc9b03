"""Which run a page is about: from the URL, else the one last seen, else the newest."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import streamlit as st

from pgb_core import hub, store
from pgb_core.errors import RunError
from pgb_core.figures.scores import final_step
from pgb_core.settings import get_settings
from pgb_core.store import Run
from ui import frame, units, url

_LAST = "last_run"


def checkpoint_name(run: Run) -> str:
    """The checkpoint as users know it: of a folder its name, never where it lies on the server."""
    name = str(run.spec["checkpoint"]).removeprefix(hub.PREFIX)
    return Path(name).name if Path(name).is_absolute() else name


def families(found: Iterable[Run]) -> dict[str, list[Run]]:
    """Runs by checkpoint and task; checkpoints of one name and different weights are kept apart."""
    fingerprints: dict[str, set[str]] = {}
    found = list(found)
    for run in found:
        fingerprints.setdefault(checkpoint_name(run), set()).add(run.spec.get("fingerprint", ""))
    result: dict[str, list[Run]] = {}
    for run in found:
        name = checkpoint_name(run)
        if len(fingerprints[name]) > 1:
            name += f" {run.spec.get('fingerprint', '')[:6]}"
        result.setdefault(f"{name} · {run.spec['task']}", []).append(run)
    return result


def label(run: Run) -> str:
    """One line that tells runs apart."""
    spec = run.spec
    parts = [checkpoint_name(run), spec["task"], spec["method"], f"{units.percent(spec['sparsity'], 0)} removed"]
    if spec["recover_epochs"]:
        parts.append("recovered")
    return " · ".join([*parts, units.moment(run.status.created)])


def row(run: Run) -> dict[str, Any]:
    """A run as a row of a table; score and speed-up only when there are any."""
    result = run.result or {}
    score, latency = result.get("score"), result.get("latency")
    keys = ("task", "method", "sparsity")
    return {
        "state": run.status.state,
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
        st.warning(f"{error} It may have been deleted; the link is no longer good.")
        url.write(run=None)
        return None
    remember(run)
    return run


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
        resets=("layer", "kind", "matrix", "group"),
        help="A finished run on this server, newest first.",
    )
    remember(runs[chosen])
    return runs[chosen]

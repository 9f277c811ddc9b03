"""The table of all runs, with its search and what they take of the disk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from pgb_core import disk, quota
from pgb_core import downloads as files
from pgb_core.settings import get_settings
from pgb_core.store import Run
from ui import charts, runs, units, url, words

STATES = {
    "all": "All",
    "done": "Done",
    "active": "Waiting or running",
    "failed": "Failed",
    "cancelled": "Cancelled",
    "pinned": "Pinned",
    "sample": "Shipped samples",
}
SEARCH_LENGTH = 100


def show(found: Sequence[Run], chosen: Run | None) -> None:
    """The runs that match the search and the state of the URL; the one `chosen` is selected if it is among them."""
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    with left:
        text = search_box()
    with right:
        state = url.select(st.selectbox, "State", "state", STATES)
    shown = [run for run in found if in_state(run, state) and matches(run, text)]
    used = {run.id: disk.use(run) for run in found}
    if shown:
        table(shown, used, chosen)
    else:
        st.info("No run matches. Take a word out of the search, or show all states.")
    footer(found, shown, used)
    removed()


def search_box() -> str:
    """What to look for; kept in the URL."""
    key = "url_q"
    url.put(key, st.query_params.get("q", "")[:SEARCH_LENGTH])

    def changed() -> None:
        url.write(q=st.session_state[key].strip() or None)

    typed: str = st.text_input(
        "Search",
        key=key,
        type="search",
        max_chars=SEARCH_LENGTH,
        placeholder="Name, notes, checkpoint, task, method, id …",
        icon=":material/search:",
        on_change=changed,
        help=words.SEARCH,
    )
    return typed


def in_state(run: Run, state: str) -> bool:
    """Whether `run` belongs under the entry `state` of `STATES`."""
    if state in ("all", "pinned", "sample"):
        return {"all": True, "pinned": run.label.pinned, "sample": run.sample}[state]
    if run.sample:
        return False
    return run.status.active if state == "active" else run.status.state == state


def matches(run: Run, text: str) -> bool:
    """Whether every word of `text` occurs in what is known of `run`, in capitals or not."""
    spec = run.spec
    parts = [run.id, run.label.name, run.label.notes, runs.checkpoint_name(run), spec["task"], spec["method"]]
    parts += [runs.row(run)["state"], "pinned" if run.label.pinned else ""]
    known = "\n".join(parts).casefold()
    return all(word in known for word in text.casefold().split())


def table(shown: Sequence[Run], used: dict[str, int], chosen: Run | None) -> None:
    """The runs, one a row; selecting one puts it in the URL."""
    ids = [run.id for run in shown]
    pinned: dict[str, Any] = {}  # a phone has no room for empty columns
    if any(run.label.pinned for run in shown):
        pinned["pinned"] = st.column_config.TextColumn("Pin", help=words.PIN, width=40)
    charts.pick_table(
        [
            {
                **runs.row(run),
                "pinned": "✓" if run.label.pinned else "",
                "megabytes": None if run.sample else used[run.id] / 1e6,
            }
            for run in shown
        ],
        {
            **pinned,
            **runs.columns(shown),
            "megabytes": st.column_config.NumberColumn("Disk", format="%.1f MB", help=words.DISK),
        },
        # the place of a row means another run when other rows are shown
        key=f"history_{hash(tuple(ids))}",
        alt="Runs with name, state, settings, score, measured speed-up and size on disk.",
        selected=ids.index(chosen.id) if chosen is not None and chosen.id in ids else None,
        on_pick=lambda row: url.write(run=None if row is None else ids[row]),
    )


def footer(found: Sequence[Run], shown: Sequence[Run], used: dict[str, int]) -> None:
    """How many runs there are, what they take, what is free, and the table as a file."""
    own = [run for run in found if not run.sample]
    total = units.size(sum(used[run.id] for run in own))
    free = units.size(disk.free(get_settings().runs_dir))
    limit = quota.quota_bytes()
    of = "" if limit is None else f" of a quota of {units.size(limit)}"
    some = "" if len(shown) == len(found) else f"{len(shown)} of {len(found)} shown. "
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.caption(
            f"{some}{units.several(len(own), 'run')} of this server, {total} on disk{of}; {free} free there. "
            "Select a row for more."
        )
        st.download_button(
            "This table as CSV",
            lambda: files.to_csv([{"run": run.id, **runs.row(run), "bytes": used[run.id]} for run in shown]),
            "runs.csv",
            "text/csv",
            icon=":material/download:",
            type="tertiary",
            on_click="ignore",
        )


def removed() -> None:
    """The runs that went to hold the quota, the newest removal first; nothing without any."""
    gone = quota.evicted(get_settings().runs_dir)[::-1]
    if not gone:
        return
    with st.expander(f"Removed to hold the disk quota: {units.several(len(gone), 'run')}"):
        st.caption("When the quota is used up, the oldest runs that are not pinned go. Pin what you want to keep.")
        st.dataframe(
            [
                {"name": run.name, "run": run.run, "when": units.moment(run.when), "megabytes": run.bytes / 1e6}
                for run in gone
            ],
            column_config={
                "name": st.column_config.TextColumn("Name", help=words.NAME),
                "run": "Run",
                "when": "Removed",
                "megabytes": st.column_config.NumberColumn("Disk", format="%.1f MB", help=words.DISK),
            },
            hide_index=True,
        )

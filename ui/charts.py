"""Charts with what makes them accessible: a description, and the same numbers as a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
import streamlit as st

CONFIG = {"displaylogo": False, "modeBarButtonsToRemove": ["select2d", "lasso2d", "toImage"]}


def chart(figure: go.Figure, alt: str, *, key: str, on_pick: Callable[[list[Any]], None] | None = None) -> None:
    """Draw `figure`; a click on a point calls `on_pick` with that point's customdata."""
    if on_pick is None:
        st.plotly_chart(figure, key=key, alt=alt, config=CONFIG)
        return

    def picked() -> None:
        points = st.session_state[key].selection.points
        custom = points[0].get("customdata") if points else None
        if custom:
            on_pick(list(custom))

    st.plotly_chart(figure, key=key, alt=alt, config=CONFIG, on_select=picked, selection_mode="points")


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, Any], *, title: str = "The same as a table") -> None:
    """The twin of a chart, folded: `columns` gives each key of the rows its heading or column configuration."""
    with st.expander(title):
        st.dataframe(
            list(rows), hide_index=True, placeholder="–", column_order=list(columns), column_config=dict(columns)
        )


def pick_table(
    rows: Sequence[Mapping[str, Any]],
    columns: Mapping[str, Any],
    *,
    key: str,
    alt: str,
    selected: int | None,
    on_pick: Callable[[int | None], None],
) -> None:
    """A table in which one row can be selected; `selected` is the row that is, wherever it was chosen."""
    # the selection of a table can only be given when it is first drawn: a new key per selection draws it anew
    widget_key = f"{key}_{'none' if selected is None else selected}"

    def picked() -> None:
        chosen = st.session_state[widget_key].selection.rows
        on_pick(chosen[0] if chosen else None)

    st.dataframe(
        list(rows),
        hide_index=True,
        column_order=list(columns),
        column_config=dict(columns),
        key=widget_key,
        alt=alt,
        on_select=picked,
        selection_mode="single-row",
        placeholder="–",
        selection_default={"selection": {"rows": [] if selected is None else [selected]}},
    )


def percent_column(title: str, help_text: str) -> Any:
    """Column configuration for a fraction that is shown in percent."""
    return st.column_config.NumberColumn(title, help=help_text, format="percent")

"""Charts with what makes them accessible and useful elsewhere: a description, the same numbers as a table, files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import streamlit as st

from pgb_core.figures.export import Rows, csv_text, file_name, stand_alone

CONFIG = {"displaylogo": False, "modeBarButtonsToRemove": ["select2d", "lasso2d"]}
TWIN = "The same as a table"
Figure = go.Figure

_PICTURES = st.components.v2.component(
    "pgb_pictures",
    html="""
<button type="button" data-format="png">PNG, a picture</button>
<button type="button" data-format="svg">SVG, a drawing</button>
<p role="alert" hidden>This browser did not let the chart be saved; HTML works everywhere.</p>
""",
    css="""
button {
  display: block; width: 100%; margin: 0 0 0.5rem; padding: 0.4rem 0.75rem; cursor: pointer;
  font: inherit; font-size: 0.875rem;
  color: var(--st-text-color); background: var(--st-background-color);
  border: 1px solid var(--st-border-color); border-radius: var(--st-button-radius);
}
button:last-of-type { margin: 0; }
button:hover, button:focus-visible { color: var(--st-primary-color); border-color: var(--st-primary-color); }
p { margin: 0.5rem 0 0; }
""",
    js=Path(__file__).with_name("export.js").read_text(encoding="utf-8"),
)


def chart(
    figure: go.Figure,
    alt: str,
    *,
    key: str,
    name: str,
    rows: Rows | Callable[[], Rows],
    columns: Mapping[str, Any] | None = None,
    twin: str | Callable[[], None] | None = TWIN,
    on_pick: Callable[[list[Any]], None] | None = None,
) -> None:
    """Draw `figure` with its twin, a folded table, and the means to save both.

    Args:
        alt: what the picture shows, for who does not see it.
        name: names the files in words: what is shown, of which run.
        rows: the numbers of the figure; a function where they are many, called only when somebody wants them.
        columns: gives each key of the rows its heading or column configuration; None takes all as they are called.
        twin: title of the folded table, or what draws another one; None where the page shows the rows itself, beside
            the chart.
        on_pick: called with the customdata of a point that was clicked.
    """
    _draw(figure, alt, key, on_pick)
    with st.container(horizontal=True, gap="small"):
        if twin is None:
            st.space("stretch")
        elif callable(twin):
            twin()
        else:
            table(rows, columns, key=f"{key}_twin", title=twin)
        _export(figure, alt, key, name, rows, columns)


def _draw(figure: go.Figure, alt: str, key: str, on_pick: Callable[[list[Any]], None] | None) -> None:
    if on_pick is None:
        st.plotly_chart(figure, key=key, alt=alt, config=CONFIG)
        return

    def picked() -> None:
        points = st.session_state[key].selection.points
        custom = points[0].get("customdata") if points else None
        if custom:
            on_pick(list(custom))

    st.plotly_chart(figure, key=key, alt=alt, config=CONFIG, on_select=picked, selection_mode="points")


def table(
    rows: Rows | Callable[[], Rows], columns: Mapping[str, Any] | None = None, *, key: str, title: str = TWIN
) -> None:
    """A folded table: `columns` gives each key of the rows its heading or column configuration.

    It is sent when it is opened: a browser that need not draw tables shows a page a tenth sooner.
    """
    folded = st.expander(title, key=key, on_change="rerun")
    if folded.open:
        with folded:
            show(rows() if callable(rows) else rows, columns)


def show(rows: Rows, columns: Mapping[str, Any] | None = None) -> None:
    """A table as every twin looks; see `table`."""
    order = None if columns is None else list(columns)
    data = rows if isinstance(rows, Mapping) else list(rows)
    st.dataframe(data, hide_index=True, placeholder="–", column_order=order, column_config=dict(columns or {}))


def _export(
    figure: go.Figure,
    alt: str,
    key: str,
    name: str,
    rows: Rows | Callable[[], Rows],
    columns: Mapping[str, Any] | None,
) -> None:
    """The files of a chart. Pictures are made in the browser, the others when their button is pressed.

    What is in the menu is sent when it is opened: a button keeps the figure and its numbers as long as it is there.
    """
    menu = st.popover("Export", icon=":material/download:", type="tertiary", key=f"{key}_export", on_change="rerun")
    menu.caption("As you see it now, with dark text on white.")
    if not menu.open:
        return

    def as_csv() -> bytes:
        table = rows() if callable(rows) else rows
        return csv_text(table, headings(table, columns)).encode("utf-8-sig")

    with menu:
        _PICTURES(data={"chart": key, "name": file_name(name, "")[:-1]}, key=f"{key}_pictures")
        for label, ending, mime, data in (
            ("HTML, interactive", "html", "text/html", lambda: stand_alone(figure, name, alt).encode()),
            ("CSV, the numbers", "csv", "text/csv", as_csv),
        ):
            st.download_button(
                label,
                data,
                file_name(name, ending),
                mime,
                key=f"{key}_{ending}",
                on_click="ignore",
                width="stretch",
            )


def headings(rows: Rows, columns: Mapping[str, Any] | None) -> dict[str, str]:
    """What each column of a table is called: the label that its configuration gives it, else its key."""
    if columns is None:
        keys = rows if isinstance(rows, Mapping) else next(iter(rows), {})
        return {key: key for key in keys}
    return {key: value if isinstance(value, str) else value.get("label") or key for key, value in columns.items()}


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

"""A figure as files that open anywhere: a stand-alone page, its numbers as CSV, and a telling name for both.

What is exported has a white ground and dark text, whatever theme the reader looks at it in.
"""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

PAPER = "#ffffff"
INK = "#17232b"
Rows = Sequence[Mapping[str, Any]] | Mapping[str, Sequence[Any]]
"""A table: its rows, or its columns by name where there are many of them."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters that make a spreadsheet take a text for a formula."""


def file_name(name: str, ending: str) -> str:
    """`name` in lower-case words joined by hyphens: `matrix-layer-3-query.svg`."""
    words = re.findall(r"[a-z0-9]+", name.casefold())
    return f"{'-'.join(words)[:150]}.{ending}"


def stand_alone(figure: go.Figure, title: str, alt: str) -> str:
    """`figure` as one HTML page that needs no network: plotly.js is inside, 5 MB of it."""
    printed = go.Figure(figure)
    printed.update_layout(template="plotly_white", paper_bgcolor=PAPER, plot_bgcolor=PAPER, font_color=INK)
    drawing = printed.to_html(full_html=False, include_plotlyjs=True, auto_play=False, config={"displaylogo": False})
    title, alt = html.escape(title), html.escape(alt)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>\n'
        f'<body style="margin:1rem;background:{PAPER};color:{INK};font-family:sans-serif">\n'
        f'<figure role="group" aria-label="{alt}">{drawing}<figcaption>{alt}</figcaption></figure>\n</body></html>\n'
    )


def csv_text(rows: Rows, headings: Mapping[str, str]) -> str:
    """A table as CSV with the columns of `headings`, in their order, under the names that it gives them.

    Numbers are written in full, fractions as fractions; NaN is left empty. Texts that a spreadsheet would run as a
    formula begin with an apostrophe.
    """
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([_cell(heading) for heading in headings.values()])
    if isinstance(rows, Mapping):
        writer.writerows(
            [[_cell(value) for value in row] for row in zip(*(rows[key] for key in headings), strict=True)]
        )
    else:
        writer.writerows([[_cell(row.get(key)) for key in headings] for row in rows])
    return file.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA) else value
    if isinstance(value, list | tuple):
        return _cell(", ".join(map(str, value)))
    return "" if value != value else value  # NaN: nothing is there

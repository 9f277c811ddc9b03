"""Figures as files that open anywhere: stand-alone pages, their numbers as CSV, and a telling name for both.

What is exported has a white ground and dark text, whatever theme the reader looks at it in.
"""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

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
    return _page(title, _drawn(figure, alt, include_plotlyjs=True))


def pages(title: str, figures: Mapping[str, tuple[str, go.Figure]]) -> Iterator[tuple[str, str]]:
    """(file name, content) of index.html, of the script that draws, and of one page per figure.

    Args:
        title: of the index, plain text.
        figures: by file name without its ending: what the figure shows, in plain text, and the figure.
    """
    entries = "".join(
        f'<li><a href="{html.escape(name)}.html">{html.escape(alt)}</a></li>\n' for name, (alt, _) in figures.items()
    )
    yield "index.html", _page(title, f"<h1>{html.escape(title)}</h1>\n<ul>\n{entries}</ul>")
    yield "plotly.min.js", get_plotlyjs()
    for name, (alt, figure) in figures.items():
        yield f"{name}.html", _page(alt, _drawn(figure, alt, include_plotlyjs="directory"))


def _page(title: str, body: str) -> str:
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title></head>\n'
        f'<body style="margin:1rem;background:{PAPER};color:{INK};font-family:sans-serif">\n{body}\n</body></html>\n'
    )


def _drawn(figure: go.Figure, alt: str, include_plotlyjs: bool | str) -> str:
    printed = go.Figure(figure)
    printed.update_layout(template="plotly_white", paper_bgcolor=PAPER, plot_bgcolor=PAPER, font_color=INK)
    options: dict[str, Any] = {"auto_play": False, "config": {"displaylogo": False}}
    drawing = printed.to_html(full_html=False, include_plotlyjs=include_plotlyjs, **options)
    alt = html.escape(alt)
    return f'<figure role="group" aria-label="{alt}">{drawing}<figcaption>{alt}</figcaption></figure>'


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

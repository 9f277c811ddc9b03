"""Figures as web pages that open without a server or a network: one script for all, and a page that lists them."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

SCRIPT = "plotly.min.js"


def pages(title: str, figures: Mapping[str, tuple[str, go.Figure]]) -> Iterator[tuple[str, str]]:
    """(file name, content) of index.html, of the script that draws, and of one page per figure.

    Args:
        title: of the index, plain text.
        figures: by file name without its ending: what the figure shows, in plain text, and the figure.
    """
    entries = "".join(
        f'<li><a href="{html.escape(name)}.html">{html.escape(caption)}</a></li>\n'
        for name, (caption, _) in figures.items()
    )
    head = f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{html.escape(title)}</title>\n'
    yield "index.html", f"{head}<h1>{html.escape(title)}</h1>\n<ul>\n{entries}</ul>\n</html>\n"
    yield SCRIPT, get_plotlyjs()
    for name, (caption, figure) in figures.items():
        shown = go.Figure(figure).update_layout(
            title={"text": html.escape(caption), "automargin": True, "yref": "container"},
            paper_bgcolor="white",
            margin={"t": 70},
        )
        yield f"{name}.html", shown.to_html(include_plotlyjs="directory", config={"displaylogo": False})

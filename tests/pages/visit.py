"""Visiting a page of the app in memory, frame and all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from streamlit.testing.v1 import AppTest

from ui import frame

APP = Path(__file__).resolve().parents[2] / "app.py"
TIMEOUT = 30.0


def visit(page: str, *opened: str, **query: str) -> AppTest:
    """The app after a first visit of `page` with `query` in the URL and what folds of keys `opened` open."""
    app = AppTest.from_file(str(APP), default_timeout=TIMEOUT)
    for key in opened:
        app.session_state[key] = True
    app.query_params.update({**query, "page": page})  # how the guard brings a deep link into the frame
    app.run()
    return healthy(app)


def healthy(app: AppTest) -> AppTest:
    """`app`, having shown no traceback."""
    assert not app.exception, [entry.message for entry in app.exception]
    return app


def query(app: AppTest, name: str) -> str | None:
    """Value of query key `name` after the visit.

    After the first run AppTest draws the page without the frame, which would put its defaults in the query at the end.
    """
    value: Any = app.query_params.get(name)
    if value is None and "url_pending" in app.session_state:
        _, value = app.session_state["url_pending"].get(name, (None, None))
    return value[0] if isinstance(value, list) else value


def charts(app: AppTest) -> list[Any]:
    """The Plotly charts of the page, in order, as sent to the browser."""
    return [element.proto for element in app.get("plotly_chart")]


def words(app: AppTest) -> str:
    """All text of the page that is written in titles, paragraphs, captions and notices."""
    kinds = ("title", "subheader", "markdown", "caption", "info", "warning", "error", "success")
    return "\n".join(element.value for kind in kinds for element in getattr(app, kind))


assert set(frame.PAGES) == {path.stem for path in (APP.parent / "pages").glob("*.py")}

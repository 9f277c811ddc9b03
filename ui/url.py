"""The URL's query is the one place that says what a page shows; widgets read it and write it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import streamlit as st

from ui import units

_PENDING = "url_pending"
PRIVATE = "key"
"""The query key that is for the session alone, see `ui.session`."""


def write(**values: str | None) -> None:
    """Put `values` in the query; None removes one. However many change, the browser goes one step back over them."""
    before = st.query_params.to_dict()
    after = {name: value for name, value in {**before, **values}.items() if value is not None}
    if after != before:
        st.query_params.from_dict(after)


def current() -> dict[str, str]:
    """What the page shows, as the query will say once the page is drawn: defaults are in it already."""
    return {**st.query_params.to_dict(), **_taken()}


def settle() -> None:
    """Put the defaults that the page's widgets took in the query, all at once; the frame calls this after the page."""
    write(**_taken())
    st.session_state.pop(_PENDING, None)


def _taken() -> dict[str, str]:
    """The defaults that were taken, but for those in whose place the query says something else by now.

    A click may have stopped the page before its defaults were put in the query.
    """
    pending = st.session_state.get(_PENDING, {})
    return {name: default for name, (asked, default) in pending.items() if st.query_params.get(name) == asked}


def here() -> str:
    """The whole address of what the page shows, to be given to others."""
    query = urlencode({name: value for name, value in current().items() if name != PRIVATE})
    return f"{st.context.url or ''}{'?' if query else ''}{query}"


def read(name: str, options: Sequence[str], default: str, noun: str) -> str:
    """The option that the query names; `default`, with a friendly line, when it names none of them."""
    asked = st.query_params.get(name)
    if asked is not None and asked not in options:
        st.warning(f"The link asks for {noun} {units.quoted(asked)}, which is not here. You see {default} instead.")
    if asked in options:
        return asked
    st.session_state[_PENDING] = {**st.session_state.get(_PENDING, {}), name: (asked, default)}
    return default


def put(key: str, value: object) -> None:
    """Let the widget `key` show `value`.

    Only when it shows another: what is put in it overrides in the browser what the visitor has moved on to meanwhile.
    """
    if key not in st.session_state or st.session_state[key] != value:
        st.session_state[key] = value


def select(
    widget: Callable[..., Any],
    label: str,
    name: str,
    options: Mapping[str, str],
    *,
    default: str | None = None,
    resets: Sequence[str] = (),
    **arguments: Any,
) -> str:
    """A select box (or any widget of its kind) whose value is query key `name`.

    Args:
        options: what the query may say, with what the user reads.
        resets: query keys that lose their meaning when this one changes.
    """
    key = f"url_{name}"
    names = list(options)
    put(key, read(name, names, default or names[0], label.lower()))

    def changed() -> None:
        write(**{name: st.session_state[key]}, **dict.fromkeys(resets))

    chosen: str = widget(label, names, key=key, format_func=options.__getitem__, on_change=changed, **arguments)
    return chosen


def number(
    widget: Callable[..., Any], label: str, name: str, last: int, *, default: int | None = None, **arguments: Any
) -> int | None:
    """A number input or slider from 0 to `last` whose value is query key `name`; `default` while the query lacks it.

    The default stays out of the query: it may follow from something else that is in it.
    """
    key = f"url_{name}"
    asked = st.query_params.get(name)
    good = asked is not None and asked.isascii() and asked.isdecimal() and len(asked) < 10 and int(asked) <= last
    if asked is not None and not good:
        st.warning(f"The link asks for {label.lower()} {units.quoted(asked)}, which is not from 0 to {last}.")
        write(**{name: None})
    put(key, int(asked) if asked is not None and good else default)

    def changed() -> None:
        value = st.session_state[key]
        write(**{name: None if value is None else str(value)})

    value: int | None = widget(label, min_value=0, max_value=last, step=1, key=key, on_change=changed, **arguments)
    return value

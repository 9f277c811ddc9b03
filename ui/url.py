"""The URL's query is the one place that says what a page shows; widgets read it and write it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import streamlit as st


def write(**values: str | None) -> None:
    """Put `values` in the query; None removes one."""
    for name, value in values.items():
        if value is None:
            st.query_params.pop(name, None)
        elif st.query_params.get(name) != value:
            st.query_params[name] = value


def read(name: str, options: Sequence[str], default: str, noun: str) -> str:
    """The option that the query names; `default`, with a friendly line, when it names none of them."""
    asked = st.query_params.get(name)
    if asked is not None and asked not in options:
        st.warning(f"The link asks for {noun} “{asked[:40]}”, which is not here. You see {default} instead.")
    chosen = asked if asked in options else default
    write(**{name: chosen})
    return chosen


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
    st.session_state[key] = read(name, names, default or names[0], label.lower())

    def changed() -> None:
        write(**{name: st.session_state[key]}, **dict.fromkeys(resets))

    chosen: str = widget(label, names, key=key, format_func=options.__getitem__, on_change=changed, **arguments)
    return chosen

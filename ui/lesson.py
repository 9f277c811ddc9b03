"""What a lesson begins with: the matrix, drawn at random or edited, and how it is pruned; all of it in the URL."""

from __future__ import annotations

import base64
import binascii
import random

import numpy as np
import streamlit as st

from pgb_core import lesson
from pgb_core.grouping import FloatArray
from pgb_core.lesson import SIZE, Lesson
from ui import glossary, units, url

PRESETS = {
    "planted": ("Planted blocks", "Four blocks of 3 × 3 large weights, hidden by shuffling rows and columns."),
    "rows": ("Scaled rows", "Three rows of large weights; the other rows hardly matter."),
    "random": ("Random", "Weights from a normal distribution, without any structure."),
    "heavy": ("Heavy-tailed", "A few weights are very large, wherever chance has put them."),
}
INPUTS = dict(zip(("independent", "related", "alike"), lesson.CORRELATIONS, strict=True))
"""What the URL calls each correlation of the inputs."""
_INPUT_TITLES = {"independent": "Independent", "related": "Related", "alike": "Much alike"}
_SEEDS = 10_000
_TENTHS = 10
_MOST = round(_TENTHS * lesson.LARGEST)


def begin() -> Lesson:
    """Draw the controls; returns the lesson that they and the URL describe."""
    left, right = st.columns([6, 5], gap="medium")
    with right:
        name = url.select(
            st.segmented_control,
            "Begin with",
            "preset",
            {name: title for name, (title, _) in PRESETS.items()},
            resets=("weights",),
            required=True,
            wrap=True,
        )
        st.caption(PRESETS[name][1])
        seed = _seed()
        start = lesson.preset(name, seed)
        matrix = _matrix(start)
        _buttons(edited=not np.array_equal(matrix, start))
        density, groups, inputs = _how()
    with left:
        _editor(matrix, start)
    return lesson.learn(matrix, groups=groups, density=density, correlation=INPUTS[inputs], seed=seed)


def _how() -> tuple[float, int, str]:
    """Density, number of groups, and the inputs."""
    densities = {f"{density:.2f}": units.percent(density, 0) for density in lesson.DENSITIES}
    left, right = st.columns(2)
    with left:
        density = float(
            url.select(
                st.segmented_control,
                "Density",
                "density",
                densities,
                resets=("groups",),
                required=True,
                help=glossary.define("density"),
            )
        )
    choices = [str(groups) for groups in lesson.group_choices(density)]
    with right:
        groups = url.select(
            st.segmented_control,
            "Groups",
            "groups",
            {number: number for number in choices},
            default=choices[-1],
            required=True,
            help=glossary.refer(
                "Equal groups that share out all columns. G groups can keep at most one G-th of a matrix; where they "
                "keep less, the least important rows are in no group.",
                "group",
            ),
        )
    inputs = url.select(
        st.segmented_control,
        "Inputs",
        "inputs",
        _INPUT_TITLES,
        default="related",
        required=True,
        wrap=True,
        help=glossary.refer(
            "How much the inputs have in common: nothing, 60% or 90% of their variance. The more alike they are, the "
            "more the refit can make up for.",
            "gram-matrix",
            "refit",
        ),
    )
    return density, int(groups), inputs


# --- the matrix ----------------------------------------------------------------------------------------------------


def _seed() -> int:
    asked = st.query_params.get("seed", "0")
    if asked.isascii() and asked.isdecimal() and len(asked) <= 4:
        return int(asked)
    st.warning(
        f"The link asks for seed {units.quoted(asked)}, which is not a number below {_SEEDS}. You see seed 0 instead."
    )
    url.write(seed=None)
    return 0


def _matrix(start: FloatArray) -> FloatArray:
    """The matrix of the URL; without a readable one, `start`."""
    code = st.query_params.get("weights")
    if code is None:
        return start
    found = decode(code)
    if found is None:
        st.warning("The matrix in the link cannot be read. You see the chosen beginning instead.")
        url.write(weights=None)
        return start
    return found


def _buttons(*, edited: bool) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button("New random", icon=":material/casino:", on_click=_draw_anew, help="Another matrix of this kind.")
        st.button(
            "Undo edits", icon=":material/undo:", on_click=url.write, kwargs={"weights": None}, disabled=not edited
        )


def _draw_anew() -> None:
    url.write(seed=str(random.randrange(_SEEDS)), weights=None)  # noqa: S311 - a picture, not a secret


def _editor(matrix: FloatArray, start: FloatArray) -> None:
    """The matrix as a table to type into; what is typed goes to the URL and the page is drawn anew."""
    # an editor keeps its changes apart from the data it was first given, so it goes on with those as long as the URL
    # says what it last wrote there; anything else (a link, a preset, an undo) makes a new editor, and so does a visit
    # elsewhere, after which Streamlit has forgotten the changes
    code = encode(matrix)
    base, written = st.session_state.get("lesson_editor", (code, code))
    if written != code or f"lesson_{base}" not in st.session_state:
        base = code
    first = decode(base)
    number = st.column_config.NumberColumn(
        min_value=-lesson.LARGEST, max_value=lesson.LARGEST, step=0.1, format="%.1f", required=True, width=30
    )
    st.markdown(
        "**Weights**",
        help=f"Type into a cell to change a weight: one decimal, between −{lesson.LARGEST} and {lesson.LARGEST}. Rows "
        "are outputs, columns are inputs. The link in the address bar keeps your matrix.",
    )
    typed = st.data_editor(
        {str(column + 1): first[:, column].tolist() for column in range(SIZE)},
        hide_index=True,
        row_height=29,
        column_config={str(column + 1): number for column in range(SIZE)},
        key=f"lesson_{base}",
        alt="The weights of the matrix, to be edited: 12 rows (outputs) and 12 columns (inputs).",
    )
    columns = np.array([typed[str(column + 1)] for column in range(SIZE)], dtype=np.float64)
    now = lesson.rounded(np.nan_to_num(columns.T))  # a cleared cell is 0
    st.session_state["lesson_editor"] = (base, encode(now))
    if encode(now) != code:
        url.write(weights=None if np.array_equal(now, start) else encode(now))
        st.rerun()


# --- the matrix in a URL -------------------------------------------------------------------------------------------


def encode(matrix: FloatArray) -> str:
    """192 characters that are safe in a URL: one byte per weight, in tenths."""
    tenths = np.round(_TENTHS * matrix).astype(np.int8)
    return base64.urlsafe_b64encode(tenths.tobytes()).decode("ascii")


def decode(code: str) -> FloatArray | None:
    """The (12, 12) matrix of `encode`; None for anything else."""
    try:
        data = base64.b64decode(code.encode("ascii"), altchars=b"-_", validate=True)
    except (UnicodeEncodeError, binascii.Error):
        return None
    if len(data) != SIZE * SIZE:
        return None
    tenths = np.frombuffer(data, dtype=np.int8).reshape(SIZE, SIZE)
    if np.abs(tenths.astype(np.int64)).max() > _MOST:
        return None
    found: FloatArray = tenths / _TENTHS
    return found

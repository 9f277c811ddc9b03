"""The steps of a lesson: the formula of each, every symbol of it in one line, and where its pictures come from."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from pgb_core import narration
from pgb_core.figures import lesson as figures
from pgb_core.figures.lesson import Picture
from pgb_core.lesson import SIZE, Lesson
from ui import charts, glossary, words


@dataclass(frozen=True)
class Step:
    """What is said of a step whatever the matrix: `symbols` gives each symbol of `formula` (LaTeX) its meaning."""

    purpose: str
    formula: str
    symbols: tuple[tuple[str, str], ...]


STEPS = (
    Step(
        "What would be lost with each weight?",
        r"s_{ij} = \frac{1}{2}\;\frac{q_i\,w_{ij}^2}{[H^{-1}]_{jj}}",
        (
            ("s_{ij}", "importance of the weight in row i and column j"),
            ("w_{ij}", "that weight"),
            ("q_i", "sensitivity of output i; here 1, as no model listens to these outputs"),
            ("H", "Gram matrix of the inputs"),
            ("[H^{-1}]_{jj}", "large where other inputs can stand in for input j"),
        ),
    ),
    Step(
        "List rows and columns in another order.",
        r"W' = P\,W\,Q^{\mathsf T}",
        (
            ("W", "the matrix: y = W x"),
            ("P", "permutation of the rows, the outputs"),
            ("Q", "permutation of the columns, the inputs"),
            ("W'", "the same weights in the new order"),
        ),
    ),
    Step(
        "The order is the one that gathers most importance in the groups.",
        r"\max_{R,\,C}\;\; \sum_{g=1}^{G}\; \sum_{i \in R_g}\, \sum_{j \in C_g} s_{ij}",
        (
            ("s_{ij}", "importance of the weight in row i and column j"),
            ("G", "number of groups, all of the same size"),
            ("R_g", "rows of group g; no row is in two groups"),
            ("C_g", "columns of group g; no column is in two groups"),
            (
                "\\max",
                "found in turns: the best rows for given columns, exactly, then the best columns for these rows",
            ),
        ),
    ),
    Step(
        "Everything outside the groups goes.",
        r"w_{ij} \to \begin{cases} w_{ij} & i \in R_g,\; j \in C_g \\ 0 & \text{otherwise} \end{cases}",
        (
            ("w_{ij}", "the weight in row i and column j"),
            ("R_g,\\, C_g", "rows and columns of one and the same group g"),
        ),
    ),
    Step(
        "Outputs return to their places; the rest of the model notices nothing.",
        r"y = P^{\mathsf T} \, \big( W'_{\text{kept}} \, (Q\,x) \big)",
        (
            (r"Q\,x", "the inputs x, listed in the order of the groups"),
            (r"W'_{\text{kept}}", "the blocks: each reads its own inputs and gives its own outputs"),
            (r"P^{\mathsf T}", "puts the outputs y back in their original order"),
        ),
    ),
    Step(
        "What stays makes up for what is gone.",
        r"W_g = (B_g + \lambda\,W^0_g\,D)\,(H_g + \lambda\,D)^{-1}",
        (
            ("W_g", "weights of group g after the refit, by least squares"),
            ("W^0_g", "the same weights before it"),
            ("H_g", "Gram matrix of the inputs of group g"),
            ("B_g", "mean product of the dense outputs of the group and its inputs"),
            (r"\lambda\,D", "a light pull towards the old weights, 1% of the mean of H's diagonal; none for a bias"),
        ),
    ),
)


def show(lesson: Lesson, number: int) -> None:
    """Draw step `number`, counted from 1: the formula and its symbols, what to look at, and two pictures."""
    step = STEPS[number - 1]
    st.subheader(f"{number}. {narration.STEPS[number - 1]}", anchor=False)
    left, *right = st.columns([5, 6, 6], gap="medium")
    with left:
        st.markdown(f"**{step.purpose}**")
        st.latex(step.formula)
        st.markdown("\n".join(f"- ${symbol}$: {glossary.linked(meaning)}" for symbol, meaning in step.symbols))
        with st.container(border=True):
            st.markdown(f":material/visibility: {narration.look(lesson, number)}")
    for place, (column, picture) in enumerate(zip(right, figures.pictures(lesson, number), strict=True)):
        with column:
            _picture(lesson, picture, f"step_{number}_{place}")
    if number == 3:
        _groups(lesson)


def _picture(lesson: Lesson, picture: Picture, key: str) -> None:
    st.markdown(f"**{picture.title}**")
    outlined = "; the groups are outlined" if picture.outlined is not None else ""
    alt = f"Heatmap of the {SIZE} by {SIZE} matrix: {picture.title.lower()}, with the number in every cell{outlined}."
    rows = figures.picture_table(picture)
    charts.chart(
        figures.heatmap(lesson, picture),
        alt,
        key=key,
        name=f"lesson, {key}, {picture.title}",
        rows=rows,
        columns={name: name.capitalize() for name in rows[0]},
    )


def _groups(lesson: Lesson) -> None:
    columns = {
        "group": "Group",
        "rows": "Rows",
        "columns": "Columns",
        "density": charts.percent_column("Share of the weights", words.DENSITY),
        "kept_importance": charts.percent_column("Kept importance", words.KEPT_IMPORTANCE),
    }
    charts.table(figures.group_table(lesson), columns, key="lesson_groups", title="The groups as a table")

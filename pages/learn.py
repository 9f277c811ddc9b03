"""Learn: PGB on a 12 x 12 matrix, step by step, what other shapes would lose, and the glossary."""

from __future__ import annotations

import streamlit as st

from pgb_core import narration
from pgb_core.figures import lesson as figures
from pgb_core.lesson import Lesson
from ui import charts, frame, glossary, lesson, steps, units, url, words

ALL = "all"


def main() -> None:
    """Draw the page."""
    frame.require("learn")
    frame.heading(
        "Learn", "The method on a matrix small enough to see every number. Change one and watch what follows."
    )
    asked = "term" in st.query_params
    view = url.select(
        st.segmented_control,
        "Show",
        "view",
        {"lesson": "Step by step", "glossary": "Glossary"},
        default="glossary" if asked else "lesson",
        resets=("term",),
        required=True,
        wrap=True,
        label_visibility="collapsed",
    )
    if view == "glossary":
        terms()
        return
    shown = lesson.begin()
    stepper(shown)
    compare(shown)


def stepper(shown: Lesson) -> None:
    """One step of the six, or all of them."""
    st.divider()
    names = {str(n): f"{n} {name}" for n, name in enumerate(narration.STEPS, start=1)}
    step = url.select(
        st.segmented_control,
        "Step",
        "step",
        {**names, ALL: "All"},
        required=True,
        wrap=True,
        label_visibility="collapsed",
    )
    for number in range(1, len(names) + 1) if step == ALL else [int(step)]:
        steps.show(shown, number)
    if step != ALL:
        ways(int(step))


def ways(step: int) -> None:
    """To the step before and the step after."""
    with st.container(horizontal=True, horizontal_alignment="distribute"):
        for label, other, icon in (("Back", step - 1, "arrow_back"), ("Next", step + 1, "arrow_forward")):
            st.button(
                label if not 1 <= other <= len(narration.STEPS) else f"{label}: {narration.STEPS[other - 1]}",
                icon=f":material/{icon}:",
                disabled=not 1 <= other <= len(narration.STEPS),
                on_click=url.write,
                kwargs={"step": str(other)},
                key=f"{label}_{step}",
                type="primary" if label == "Next" else "secondary",
            )


def compare(shown: Lesson) -> None:
    """The same matrix and density in four shapes: what each keeps, what it loses, and why."""
    st.divider()
    st.subheader(f"Four shapes, {shown.density:.0%} of the weights each", anchor=False, help=words.SHAPES_COMPARED)
    verdict, *reasons = narration.explain(shown)
    st.markdown("\n".join([verdict, "", *(f"- {reason}" for reason in reasons)]))
    columns = {
        "method": "Shape",
        "density": charts.percent_column("Density", words.DENSITY),
        "kept_importance": charts.percent_column("Kept importance", words.KEPT_IMPORTANCE),
        "before": charts.percent_column("Error before the refit", glossary.define("reconstruction-error")),
        "after": charts.percent_column("Error after the refit", glossary.define("reconstruction-error")),
    }
    left, right = st.columns(2, gap="medium")
    with left:
        st.markdown("**What each keeps**")
        charts.chart(
            figures.shapes_chart(shown),
            "Four heatmaps of the weights that stay: single weights, whole rows, heads of three rows, and the groups "
            "of PGB in permuted order.",
            key="shapes",
            name="lesson, what four shapes keep",
            rows=figures.shapes_table(shown),
        )
    with right:
        st.markdown("**What each loses**", help=glossary.define("reconstruction-error"))
        charts.chart(
            figures.comparison_chart(shown),
            "Reconstruction error of each of the four shapes before and after the refit.",
            key="comparison",
            name="lesson, what four shapes lose",
            rows=figures.comparison_table(shown),
            columns=columns,
        )


def terms() -> None:
    """The term that the URL names, if any, and all of them by topic."""
    with st.container(width=760):
        if chosen := term():
            with st.container(border=True):
                st.subheader(chosen.title, anchor=False)
                st.markdown(glossary.linked(chosen.definition, glossary.here, chosen.slug))
        for topic, entries in glossary.TOPICS.items():
            st.header(topic, anchor=False, divider="gray")
            for entry in entries:
                with st.container(gap=None):
                    st.subheader(entry.title, anchor=entry.slug)
                    st.markdown(glossary.linked(entry.definition, glossary.here, entry.slug))


def term() -> glossary.Term | None:
    """The term that the URL names; a box with all of them finds one."""
    asked = st.query_params.get("term")
    if asked is not None and asked not in glossary.TERMS:
        st.warning(f"The link asks for the term {units.quoted(asked)}, which is not in the glossary.")
        url.write(term=None)
        asked = None
    url.put("term", asked)
    st.selectbox(
        "Find a term",
        sorted(glossary.TERMS),
        index=None,
        key="term",
        format_func=lambda slug: glossary.TERMS[slug].title,
        placeholder="Type or choose a term",
        on_change=lambda: url.write(term=st.session_state["term"]),
    )
    return None if asked is None else glossary.TERMS[asked]


main()

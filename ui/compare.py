"""Two models of one checkpoint and task side by side: which is better, where they differ, and on which texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from pgb_core import answers, demo_mode, matrices, metrics, store
from pgb_core.answers import Answers, Graded
from pgb_core.errors import RunError
from pgb_core.figures import compare as figures
from pgb_core.figures.network import KIND_TITLES, Sublayer, sublayers
from pgb_core.figures.scores import final_step
from pgb_core.settings import get_settings
from pgb_core.significance import paired, paired_means
from pgb_core.store import Run
from ui import charts, trial, units, url, words

DENSE = "dense"
SHOWN = 50
"""Examples in a list."""


@dataclass(frozen=True)
class Side:
    """One of two models: the dense one, or that of a run. `run` made it or, for the dense one, began with it."""

    letter: str
    name: str
    run: Run
    dense: bool

    @property
    def stage(self) -> str:
        """Its name in scores and answers."""
        return DENSE if self.dense else final_step(self.result["score"])

    @property
    def result(self) -> dict[str, Any]:
        return self.run.result or {}

    @property
    def column(self) -> str:
        """Its name in `result.json` beside a cost."""
        return DENSE if self.dense else "pruned"

    @property
    def network(self) -> tuple[Sublayer, ...]:
        found = sublayers(self.result)
        return figures.whole(found) if self.dense else found


def choose(members: Sequence[Run]) -> tuple[Side, Side]:
    """The two models that the URL names, of runs of one family, the newest first; by default dense and the newest."""
    options = {DENSE: "Dense", **{run.id: title(run) for run in members}}
    left, right = st.columns(2)
    with left:
        a = url.select(st.selectbox, "Model A", "a", options, default=DENSE)
    with right:
        b = url.select(st.selectbox, "Model B", "b", options, default=members[0].id)
    known = {run.id for run in members}
    ids = [next(name for name in (*pair, members[0].id) if name in known) for pair in ((a, b), (b, a))]
    try:
        runs_of = [store.find_run(get_settings().runs_dir, run_id) for run_id in ids]
    except RunError:  # deleted this very moment
        st.rerun()
    first, second = (
        Side(letter, options[name], run, name == DENSE) for letter, name, run in zip("AB", (a, b), runs_of, strict=True)
    )
    return first, second


def title(run: Run) -> str:
    """A run in a few words, among those of its checkpoint and task."""
    spec = run.spec
    parts = [spec["method"], f"{units.percent(spec['sparsity'], 0)} removed"]
    if spec["recover_epochs"]:
        parts.append("recovered")
    if spec.get("seed"):
        parts.append(f"seed {spec['seed']}")
    return " · ".join([*parts, units.moment(run.status.created)])


def show(members: Sequence[Run]) -> None:
    """The whole comparison."""
    first, second = choose(members)
    if first.name == second.name and first.run.id == second.run.id:
        st.info("These are one and the same model. Choose another A or B.")
        return
    both = (first, second)
    costs(both)
    st.subheader("Is one better?", anchor=False, help=words.PAIRED)
    answered = read_answers(both)
    if answered is not None and isinstance(answered[0], Graded) and isinstance(answered[1], Graded):
        points(both, answered[0], answered[1])
    elif answered is not None and isinstance(answered[0], Answers) and isinstance(answered[1], Answers):
        scores(both, (answered[0], answered[1]))
        examples(both, (answered[0], answered[1]))
    st.subheader("Structure, layer by layer", anchor=False, help=words.DENSITY)
    structure(both)
    st.subheader("The same matrix", anchor=False, help=words.SAME_MATRIX)
    same_matrix(both)


def costs(both: tuple[Side, Side]) -> None:
    """Score and costs in one small table."""
    rows = []
    for side in both:
        result, latency = side.result, side.result["latency"]
        score, error = result["score"][side.stage], result["score"]["standard_error"].get(side.stage) or 0.0
        rows.append(
            {
                "": f"**{side.letter}** {side.name.partition(f' · {units.moment(side.run.status.created)}')[0]}",
                metrics.title(result["score"]["metric"]): f"{units.percent(score)} ± {units.percent(error)}",
                "Encoder weights": units.count(result["parameters"][f"encoder_{side.column}"]),
                "FLOPs": units.count(result["flops"][side.column]),
                "Size on disk": units.size(result["bytes"][side.column]),
                "Latency": units.milliseconds(latency[side.column]["median_ms"]) if latency else "not measured",
            }
        )
    st.table(rows, border="horizontal", hide_index=True, alt="Score and costs of the two models.")
    st.caption("± is one standard error of each score by itself; the comparison below is sharper, as it is paired.")


def read_answers(both: tuple[Side, Side]) -> tuple[Answers | Graded, Answers | Graded] | None:
    """The answers of the two models; None, and a line that says why, where they cannot be compared one by one."""
    found = []
    for side in both:
        try:
            read = answers.read_answers(side.run)
        except RunError as error:
            st.error(units.plain(str(error)))
            return None
        if read is None:
            st.info(
                f"The run behind {side.letter} kept no answers to single examples (it is of an earlier version), so "
                "the two cannot be compared text by text. Prune again with the same settings to have them."
            )
            return None
        found.append(read)
    if type(found[0]) is not type(found[1]) or not found[0].same_examples(found[1]):
        st.info("These two were tested on different examples, so they cannot be compared one by one.")
        return None
    return found[0], found[1]


def scores(both: tuple[Side, Side], answered: tuple[Answers, Answers]) -> None:
    """The paired test, in words."""
    right = [read.right(side.stage) for read, side in zip(answered, both, strict=True)]
    st.markdown(figures.explain_difference(paired(right[0], right[1]), "A", "B", len(right[0])))


def points(both: tuple[Side, Side], first: Graded, second: Graded) -> None:
    """The paired test of answers that are not just right or wrong, in words."""
    found = paired_means(first.points[both[0].stage], second.points[both[1].stage])
    st.markdown(figures.explain_means(found, "A", "B", len(first.rows), first.unit))
    st.caption("Which answers differ is shown for classifiers only.")


def examples(both: tuple[Side, Side], answered: tuple[Answers, Answers]) -> None:
    """The examples that just one of the two gets right."""
    stages = (both[0].stage, both[1].stage)
    places = [figures.discordant(*answered, stages, right) for right in (0, 1)]
    if not len(places[0]) + len(places[1]):
        return
    st.subheader("Where they differ", anchor=False, help=words.DISCORDANT)
    titles = {
        "b": f"Only B is right ({len(places[1])})",
        "a": f"Only A is right ({len(places[0])})",
    }
    right = url.select(st.segmented_control, "Examples", "side", titles, required=True)
    chosen = places[0 if right == "a" else 1][:SHOWN]
    if not len(chosen):
        st.caption("There is no such example.")
        return
    rows = figures.example_table(*answered, stages, chosen)
    if not demo_mode.on() and st.toggle(
        "Show the texts", key="compare_texts", help="Reads the evaluation texts again, on the server."
    ):
        rows = with_texts(both[0].run, rows, answered[0].labels[chosen])
    percent = {n: charts.percent_column(f"{side.letter} is sure", words.DISCORDANT) for n, side in enumerate(both)}
    st.dataframe(
        rows,
        hide_index=True,
        placeholder="–",
        column_order=["text", "text_pair", "label", "says_0", "sure_0", "says_1", "sure_1", "row"],
        column_config={
            "row": st.column_config.NumberColumn("Row", help="Of the evaluation texts, from 1."),
            "text": st.column_config.TextColumn("Text", width="large"),
            "text_pair": st.column_config.TextColumn("Second text", width="medium"),
            "label": "Right label",
            **{f"says_{n}": f"{side.letter} says" for n, side in enumerate(both)},
            **{f"sure_{n}": column for n, column in percent.items()},
        },
        alt="Examples that just one of the two models gets right.",
    )
    if len(chosen) < len(places[0 if right == "a" else 1]):
        st.caption(f"The first {SHOWN}.")


def with_texts(run: Run, rows: list[dict[str, Any]], labels: NDArray[np.int64]) -> list[dict[str, Any]]:
    """The rows with their texts, or as they are with a line that says why there are none."""
    try:
        found = read_texts(run.id, tuple(row["row"] - 1 for row in rows), tuple(labels.tolist()))
    except RunError as error:
        st.warning(units.plain(str(error)))
        return rows
    return [{**row, **texts} for row, texts in zip(rows, found, strict=True)]


@st.cache_data(max_entries=16, ttl=600, show_spinner="Reading the evaluation texts; the first time takes a while …")
def read_texts(run_id: str, rows: tuple[int, ...], labels: tuple[int, ...]) -> list[dict[str, str]]:
    """Evaluation texts of a run, by the helper process: pages load no datasets."""
    request = {"op": "texts", "run": run_id, "rows": list(rows), "labels": list(labels)}
    found: list[dict[str, str]] = trial.helper().ask(request)
    return found


def structure(both: tuple[Side, Side]) -> None:
    """What each model keeps of every sublayer."""
    first, second = both[0].network, both[1].network
    charts.chart(
        figures.structure_chart(first, second, ("A", "B")),
        f"Share of weights that A and B keep of each of {len(first)} sublayers.",
        key="structure",
        name=f"structure, {file_words(both)}",
        rows=figures.structure_table(first, second),
        columns={
            "sublayer": "Sublayer",
            "first": "A keeps",
            "first_density": charts.percent_column("A, density", words.DENSITY),
            "second": "B keeps",
            "second_density": charts.percent_column("B, density", words.DENSITY),
            "change": charts.percent_column("B less A", words.DENSITY),
        },
    )


def same_matrix(both: tuple[Side, Side]) -> None:
    """One matrix of both models on one color scale."""
    if any(side.run.sample for side in both):
        st.info(words.SAMPLE_COMPARED)
        return
    pruned = next((side for side in both if not side.dense), both[0])
    try:
        layer, kind, name = choose_matrix(pruned.run)
        values = [kept_weights(side, layer, kind, name) for side in both]
    except RunError as error:
        st.error(units.plain(str(error)))
        return
    limit = figures.common_limit([found for found in values if found is not None])
    for column, side, found in zip(st.columns(2), both, values, strict=True):
        with column:
            st.markdown(f"**{side.letter}** {side.name}")
            if found is None:
                st.info("The checkpoint is no longer where it was or has changed since: its weights cannot be shown.")
                continue
            facts = figures.matrix_table(found)
            if not facts["weights"]:
                st.info("Nothing of this matrix is kept.")
                continue
            text = f"{units.percent(facts['density'])} of {found.shape[0]} × {found.shape[1]} weights kept"
            charts.chart(
                figures.matrix_chart(found, limit),
                f"Heatmap of the {KIND_TITLES[kind]} {name} matrix of layer {layer + 1} in {side.letter}: {text}.",
                key=f"same_{side.letter}",
                name=f"matrix layer {layer + 1} {kind} {name} of {side.letter}, {file_words(both)}",
                rows=partial(figures.cell_table, found),
            )
            st.caption(f"{text}.")
    rows = [
        {"model": side.letter, **figures.matrix_table(found)}
        for side, found in zip(both, values, strict=True)
        if found is not None
    ]
    charts.table(
        rows,
        {
            "model": "Model",
            "weights": st.column_config.NumberColumn("Weights kept", format="localized"),
            "density": charts.percent_column("Density", words.DENSITY),
            "rows": "Rows in use",
            "columns": "Columns in use",
            "largest": st.column_config.NumberColumn("Largest weight", format="%.3f", help="By magnitude."),
            "norm": st.column_config.NumberColumn("Norm", format="%.2f", help="Frobenius: root of the sum of squares."),
        },
        key="same_table",
        title="In numbers",
    )


def file_words(both: tuple[Side, Side]) -> str:
    """Words for the name of a file that compares the two."""
    return " with ".join(DENSE if side.dense else f"run {side.run.id}" for side in both)


def choose_matrix(run: Run) -> tuple[int, str, str]:
    """The matrix that the URL names, by layer from 0, kind and name."""
    layouts = matrices.read_layouts(run)
    keys = list(layouts)
    # one with several groups says most, one of which nothing is kept says least
    first = max(keys, key=lambda key: min(len(layouts[key].row_groups), 2))
    layers = {str(layer + 1): str(layer + 1) for layer in sorted({key[0] for key in keys})}
    names = {f"{kind}.{name}": f"{KIND_TITLES[kind]}: {name}" for _, kind, name in keys}
    left, right = st.columns([1, 3])
    with left:
        layer = url.select(st.selectbox, "Layer", "layer", layers, default=str(first[0] + 1), help=words.LAYER)
    with right:
        start = f"{first[1]}.{first[2]}"
        chosen = url.select(st.selectbox, "Matrix", "matrix", names, default=start, help=words.MATRIX)
    kind, _, name = chosen.partition(".")
    return int(layer) - 1, kind, name


def kept_weights(side: Side, layer: int, kind: str, name: str) -> NDArray[np.float32] | None:
    """(rows, columns) of one model's matrix in the order of the checkpoint, NaN where nothing is kept."""
    view = matrices.read_matrix(side.run, layer, kind, name)
    if side.dense or view.pruned is None:
        return view.dense
    kept: NDArray[np.float32] = np.where(view.layout.mask(), view.pruned, np.float32(np.nan))
    return kept

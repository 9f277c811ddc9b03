"""The form that describes a sweep: which targets and methods, with or without recovery, for one checkpoint and task."""

from __future__ import annotations

from typing import Any

import streamlit as st

from pgb_core import jobs
from pgb_core.errors import PGBError, SpecError
from pgb_core.settings import Settings, get_settings
from pgb_core.spec import METHODS, PruneSpec
from pgb_core.sweep_spec import SweepSpec
from pgb_core.tasks import TASKS
from ui import finetuning, form, labels, session, sources, units, uploads, url, words
from ui.devices import choose_device

TARGETS = (0.3, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.88, 0.9, 0.92, 0.94, 0.96)
FIRST_TARGETS, FIRST_METHODS = (0.5, 0.75, 0.88), ("pgb", "structured")
RECOVERIES = {"without": "Without", "with": "With", "both": "Both"}
_KEEP: dict[str, Any] = {"persist_state": "session"}


def show() -> None:
    """Draw the form; its button starts a sweep and puts it in the URL."""
    settings = get_settings()
    with st.container(border=True):
        left, right = st.columns(2, gap="medium")
        with left:
            checkpoint = sources.choose(settings)
            label_names = sources.names_of_labels(checkpoint, settings)
            task = form.choose_task(checkpoint, label_names)
            files = form.choose_files(task, settings)
            columns = form.choose_columns(files[0], checkpoint, settings)
        with right:
            axes = _axes(settings)
        common = _advanced(settings)
        size = len(axes["sparsities"]) * len(axes["methods"]) * len(axes["recover_epochs"]) * len(axes["seeds"])
        st.caption(
            f"**{units.several(size, 'point')}**, each a run of its own that all pages show. Scoring and option tables "
            f"are made once{' for each seed' if len(axes['seeds']) > 1 else ''}, which is most of the work of a run "
            "without recovery."
        )
        complete = task != "csv" or files[0] is not None
        fits = labels.fit(TASKS[task], label_names, sources.head_of(checkpoint, settings))
        raw = finetuning.raw(checkpoint, settings)
        refusal = sources.refusal(checkpoint)
        usable = checkpoint is not None and not raw and not refusal
        ready = usable and complete and columns.complete and size > 0 and fits
        if st.button("Start the sweep", type="primary", icon=":material/play_arrow:", disabled=not ready):
            _start({"checkpoint": checkpoint, "task": task, **common, **columns.fields}, axes, files)
        if refusal:
            st.error(units.plain(refusal))
        elif raw:
            st.warning("This checkpoint has no trained head: fine-tune it first, on the Prune page.")
        elif not complete and checkpoint is not None:
            st.caption("Upload a training file first.")
        elif not columns.complete:
            st.caption("Say first what the columns of the file hold, and what every label stands for.")


def _axes(settings: Settings) -> dict[str, tuple[Any, ...]]:
    """The values of each field in which the points differ."""
    targets = st.multiselect(
        "Targets: share of the weights to remove",
        TARGETS,
        default=FIRST_TARGETS,
        format_func=lambda target: units.percent(target, 0),
        key="sweep_targets",
        help=words.SWEEP_TARGETS,
        **_KEEP,
    )
    methods = st.multiselect(
        "Methods",
        list(METHODS),
        default=FIRST_METHODS,
        format_func=lambda name: form.METHOD_TITLES.get(name, name),
        key="sweep_methods",
        help=words.METHOD,
        **_KEEP,
    )
    recovery = st.segmented_control(
        "Recovery",
        list(RECOVERIES),
        default="without",
        required=True,
        format_func=RECOVERIES.__getitem__,
        key="sweep_recovery",
        help=words.SWEEP_RECOVERY,
        **_KEEP,
    )
    epochs = 2
    if recovery != "without":
        epochs = int(
            st.number_input("Epochs of recovery", 1, settings.max_recover_epochs, 2, key="sweep_epochs", **_KEEP)
        )
    return {
        "sparsities": tuple(sorted(targets)),
        "methods": tuple(sorted(methods, key=list(METHODS).index)),
        "recover_epochs": {"without": (0,), "with": (epochs,), "both": (0, epochs)}[recovery],
        "seeds": tuple(
            range(int(st.number_input("Number of seeds", 1, 10, 1, key="sweep_seeds", help=words.SWEEP_SEEDS, **_KEEP)))
        ),
    }


def _advanced(settings: Settings) -> dict[str, Any]:
    """What all points have in common and most people leave alone."""
    with st.expander("Advanced options"):
        device = choose_device()
        samples = form.calibration_samples(settings)
        latency = st.checkbox("Measure latency", True, key="latency", **_KEEP)
    return {"device": device, "calibration_samples": samples, "latency": latency}


def _start(values: dict[str, Any], axes: dict[str, tuple[Any, ...]], files: tuple[Any, Any]) -> None:
    uploads.touch(values["checkpoint"])
    try:
        train, evaluation = (uploads.stored(file) if file is not None else None for file in files)
        base = PruneSpec(**values, sparsity=axes["sparsities"][0], train_file=train, eval_file=evaluation)
        sweep_id = jobs.submit_sweep(SweepSpec(base, **axes), session=session.token())
    except SpecError as error:
        st.error(f"This cannot be run: {units.plain(str(error))}")
    except (PGBError, OSError) as error:
        st.error(units.plain(str(error)))
    else:
        url.write(sweep=sweep_id, view=None, family=None, **session.proof())
        st.rerun()

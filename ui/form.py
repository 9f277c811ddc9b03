"""The form that describes a run: checkpoint, task, sparsity, device, and the rest folded away."""

from __future__ import annotations

from typing import Any

import streamlit as st

from pgb_core import demo, hub, jobs
from pgb_core.corpora import CORPORA
from pgb_core.errors import PGBError, SpecError, explain
from pgb_core.settings import Settings, get_settings
from pgb_core.spec import IMPORTANCES, METHODS, PruneSpec
from pgb_core.tasks import TASKS
from ui import constraints, data_file, finetuning, labels, panel, session, sources, units, uploads, url, words
from ui.constraints import DEMO, UNKNOWN, Sizes
from ui.devices import choose_device

METHOD_TITLES = {
    "pgb": "PGB: groups (default)",
    "pgb-mixed": "PGB mixed: groups, or whole heads and neurons",
    "structured": "Structured: whole heads and neurons",
    "pgb-paper": "PGB from its summaries: each matrix on its own",
    "magnitude": "To compare with: magnitude, zeros anywhere",
    "heads-neurons": "To compare with: heads and neurons by Fisher score",
    "kwon": "To compare with: Kwon et al. 2022",
    "kprune": "To compare with: K-prune, Park et al. 2024",
}
BUDGETED = {"weights": "weights", "flops": "FLOPs"}
IMPORTANCE_TITLES = {"compensated": "Compensated (default)", "fisher": "Fisher"}


def show() -> None:
    """Draw the form; its button starts a run and puts it in the URL."""
    settings = get_settings()
    left, right = st.columns([5, 4], gap="medium")
    box = left.container(border=True)
    with box:
        checkpoint = sources.choose(settings)
        label_names = sources.names_of_labels(checkpoint, settings)
        task = choose_task(checkpoint, label_names)
        files = choose_files(task, settings)
        columns = choose_columns(files[0], checkpoint, settings)
    with right:  # first: what it learns of the Hub decides what may be started
        panel.show(checkpoint, task, label_names)
    with box:
        complete = task != "csv" or files[0] is not None
        if finetuning.raw(checkpoint, settings):
            finetuning.offer(str(checkpoint), task, files, columns, complete=complete)
        else:
            _pruning(checkpoint, task, label_names, files, columns, complete=complete)
        if not complete and checkpoint is not None:
            st.caption("Upload a training file first.")
        elif not columns.complete:
            st.caption("Say first what the columns of the file hold, and what every label stands for.")


def _pruning(
    checkpoint: str | None,
    task: str,
    label_names: tuple[str, ...] | None,
    files: tuple[Any, Any],
    columns: data_file.Choice,
    *,
    complete: bool,
) -> None:
    """How far to prune and how, and the button that starts it; `complete`: all files are there."""
    settings = get_settings()
    target = st.container()  # its label depends on a choice below
    method = _method()
    device = choose_device()
    advanced = _advanced(settings, method, _sizes(checkpoint, settings))
    with target:
        sparsity = st.slider(
            f"Sparsity: share of the encoder's {BUDGETED[advanced.get('budget', 'weights')]} to remove",
            0,
            97,
            50,
            format="%d%%",
            key="sparsity",
            persist_state="session",
            help=words.SPARSITY,
        )
    fits = labels.fit(TASKS[task], label_names, sources.head_of(checkpoint, settings))
    ready = checkpoint is not None and complete and columns.complete and fits and not sources.refusal(checkpoint)
    if st.button("Prune", type="primary", icon=":material/content_cut:", width="stretch", disabled=not ready):
        values = {"checkpoint": checkpoint, "task": task, "sparsity": sparsity / 100, "device": device}
        _start({**values, "method": method, **advanced, **columns.fields}, files)


def choose_task(checkpoint: str | None, label_names: tuple[str, ...] | None) -> str:
    """The chosen task; those that the checkpoint has the labels for come first, then one's own file."""
    # a demo is fine-tuned for each task that comes with its text; other checkpoints bring their own labels
    names = [name for name, task in TASKS.items() if checkpoint != "demo" or task.offline]
    head = sources.head_of(checkpoint, get_settings())
    known = sources.known(checkpoint)
    names.sort(
        key=lambda name: (
            known is None or name != known.task,
            not labels.fit(TASKS[name], label_names, head),
            name == "csv",
        )
    )
    # a key per checkpoint: another one has another first task; of the Hub's nothing is known while its id is typed
    place = checkpoint if checkpoint == "demo" or label_names or known else hub.PREFIX
    task: str = st.selectbox(
        "Task",
        names,
        format_func=lambda name: TASKS[name].title,
        key=f"task_{place}",
        persist_state="session",
        help=words.TASK,
    )
    return task


def choose_files(task: str, settings: Settings) -> tuple[Any, Any]:
    """Training and evaluation upload for task csv."""
    if task != "csv":
        return None, None
    st.caption(
        "CSV, Parquet or JSONL, one row per text or pair of texts, with its label. Which columns hold them, and what "
        "the labels are called, you say below once the file is there."
    )
    left, right = st.columns(2)
    arguments = {"type": list(uploads.TYPES), "max_upload_size": settings.max_upload_megabytes}
    with left:
        train = st.file_uploader(
            "Training file",
            key="train_file",
            **arguments,
            help="Weights are scored on these texts. Removed later.",
        )
    with right:
        evaluation = st.file_uploader(
            "Evaluation file (optional)",
            key="eval_file",
            **arguments,
            help="Without one, a fifth of the training file is held out.",
        )
    return uploads.within_limit(train), uploads.within_limit(evaluation)


def choose_columns(file: Any, checkpoint: str | None, settings: Settings) -> data_file.Choice:
    """What the columns of a training upload hold."""
    if file is None:
        return data_file.Choice()
    try:
        place = uploads.stored(file)
    except (PGBError, OSError) as error:
        st.error(f"The file cannot be kept: {units.plain(str(explain(error)))}")
        return data_file.Choice(complete=False)
    demo_names = CORPORA[demo.task_for("csv")].labels
    return data_file.choose(
        place,
        file.file_id,
        demo_names if checkpoint == "demo" else sources.names_of_labels(checkpoint, settings),
        regression=sources.head_of(checkpoint, settings) == "regression",
        learned=finetuning.raw(checkpoint, settings),
    )


def _method() -> str:
    method: str = st.selectbox(
        "Method",
        list(METHODS),
        format_func=lambda name: METHOD_TITLES.get(name, name),
        key="method",
        persist_state="session",
        help=words.METHOD,
    )
    st.caption(METHODS[method])
    return method


def _sizes(checkpoint: str | None, settings: Settings) -> Sizes:
    """What the chosen checkpoint has that can be pinned, as far as it is known before the run."""
    if checkpoint == "demo":
        return DEMO
    info = sources.described(checkpoint, settings)
    return UNKNOWN if info is None else Sizes(info.layers, info.heads, info.intermediate)


def calibration_samples(settings: Settings) -> int:
    """How many training examples are scored on."""
    return int(
        st.number_input(
            "Calibration samples",
            8,
            settings.max_calibration_samples,
            1024,
            step=128,
            key="calibration_samples",
            persist_state="session",
            help=words.CALIBRATION,
        )
    )


def _advanced(settings: Settings, method: str, sizes: Sizes) -> dict[str, Any]:
    """The options that most people leave alone."""
    keep: dict[str, Any] = {"persist_state": "session"}
    with st.expander("Advanced options"):
        limits = constraints.show(method, sizes)
        importance = st.selectbox(
            "Importance",
            list(IMPORTANCES),
            key="importance",
            help=words.IMPORTANCE,
            **keep,
            format_func=lambda name: IMPORTANCE_TITLES.get(name, name),
        )
        left, right = st.columns(2)
        with left:
            epochs = st.number_input(
                "Recovery epochs", 0, settings.max_recover_epochs, 0, key="recover_epochs", help=words.RECOVERY, **keep
            )
            samples = calibration_samples(settings)
        with right:
            seed = st.number_input("Seed", 0, 2**31 - 1, 0, key="seed", help=words.SEED, **keep)
            length = st.number_input(
                "Max length", 0, settings.max_length, 0, step=8, key="max_length", help=words.MAX_LENGTH, **keep
            )
        latency = st.checkbox(
            "Measure latency",
            True,
            key="latency",
            **keep,
            help="Takes some seconds at the end; other work on the machine disturbs it.",
        )
        grid = st.checkbox(
            "At nine shapes: batches of 1, 8 and 32, lengths 32, 128 and 384",
            False,
            key="latency_grid",
            disabled=not latency,
            **keep,
            help="One short question is not sped up as a full batch is. Takes a minute or two.",
        )
    return {
        **limits,
        "importance": importance,
        "recover_epochs": int(epochs),
        "calibration_samples": samples,
        "seed": int(seed),
        "max_length": int(length) or None,
        "latency": latency,
        "latency_grid": latency and grid,
    }


def _start(values: dict[str, Any], files: tuple[Any, Any]) -> None:
    uploads.touch(values["checkpoint"])
    try:
        train, evaluation = (uploads.stored(file) if file is not None else None for file in files)
        run_id = jobs.submit(PruneSpec(**values, train_file=train, eval_file=evaluation), session=session.token())
    except SpecError as error:
        st.error(f"This cannot be run: {units.plain(str(error))}")
    except (PGBError, OSError) as error:
        st.error(units.plain(str(error)))
    else:
        url.write(run=run_id, **session.proof())
        st.rerun()

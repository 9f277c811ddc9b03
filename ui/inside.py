"""A checkpoint's weights as small pictures, measured when somebody opens them, once for the same weights."""

from __future__ import annotations

import contextlib
from pathlib import Path

import streamlit as st

from pgb_core import spectra
from pgb_core.checkpoints import CheckpointInfo
from pgb_core.errors import PGBError
from pgb_core.figures import checkpoint as figures
from pgb_core.settings import get_settings
from pgb_core.spectra import Spectra
from ui import charts, units, words

TITLE = "Inside its weights"


def show(folder: Path, info: CheckpointInfo, fingerprint: str) -> None:
    """A folded section with the size of all matrices and the singular values of two of each layer."""
    section = st.expander(TITLE, key=f"inside_{fingerprint[:12]}", on_change="rerun")
    if section.open:
        with section:
            draw(folder, info, fingerprint)


def draw(folder: Path, info: CheckpointInfo, fingerprint: str) -> None:
    """The pictures, measured first where they have not been."""
    found = _measured(folder, info, fingerprint)
    if found is None:
        return
    name = f"weights of {folder.name}"
    st.markdown("**Size of the weights**", help=words.RMS)
    charts.chart(
        figures.sizes(found),
        "Root mean square of the weights of each matrix, against the layer.",
        key="inside_sizes",
        name=f"{name}, sizes",
        rows=figures.table(found),
    )
    for matrix in spectra.DECOMPOSED:
        st.markdown(f"**Singular values of {matrix}**", help=words.DECAY)
        if not spectra.decomposed(found, matrix):
            st.caption(f"Not computed: there are more than {spectra.MOST_DIRECTIONS:,}, which takes minutes.")
            continue
        charts.chart(
            figures.decay(found, matrix),
            f"Singular values of the matrix {matrix} of each layer, the strongest first.",
            key=f"inside_{matrix}",
            name=f"{name}, singular values of {matrix}",
            rows=figures.decay_table(found, matrix),
        )


def _measured(folder: Path, info: CheckpointInfo, fingerprint: str) -> Spectra | None:
    cache = get_settings().cache_dir
    found = spectra.find(cache, fingerprint)
    if found is not None:
        return found
    bar = st.progress(0.0, text="Measuring the weights …")

    def step(done: int, total: int, message: str = "") -> None:
        bar.progress(done / max(total, 1), text=f"Measuring the weights: {message}")

    try:
        found = spectra.measure(folder, info, step)
    except (PGBError, OSError) as error:
        st.error(units.plain(str(error)))
        return None
    finally:
        bar.empty()
    with contextlib.suppress(OSError):  # a full disk: measured again next time
        spectra.keep(cache, fingerprint, found)
    return found

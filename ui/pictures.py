"""The matrices of finished runs for pages: read once per server, and kept with what is drawn of the whole of them.

Everything cached here is shared by all visitors and never written to. Keys name the files and say when they were
written, so that another content is read anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from pgb_core import matrices
from pgb_core.figures import matrix as figures
from pgb_core.figures import permuting, thumbnails
from pgb_core.figures.matrix import Color, Stage
from pgb_core.figures.permuting import Step
from pgb_core.figures.thumbnails import Key, Thumbnail
from pgb_core.following import Followed
from pgb_core.matrices import MatrixView
from pgb_core.store import Run
from ui.charts import Figure

_FILES = ("layout.json", "layout.safetensors", "importance.safetensors", "model/model.safetensors")
_MATRICES = 3
"""Kept at a time: one of a BERT of base size has 28 MB."""


class Pictures:
    """A matrix, and the figures of the whole of it; those that follow a weight are drawn anew."""

    def __init__(self, view: MatrixView) -> None:
        self.view = view
        self._overviews: dict[tuple[Stage, Color], Figure | None] = {}
        self._moves: tuple[Step, ...] | None = None
        self._animation: Figure | None = None

    def overview(self, stage: Stage, color: Color, followed: Followed | None) -> Figure | None:
        """As `figures.matrix.overview`."""
        if followed is not None:
            return figures.overview(self.view, stage, color, followed)
        if (stage, color) not in self._overviews:
            self._overviews[stage, color] = figures.overview(self.view, stage, color)
        return self._overviews[stage, color]

    @property
    def moves(self) -> tuple[Step, ...]:
        """As `figures.permuting.steps`."""
        self._moves = self._moves or permuting.steps(self.view)
        return self._moves

    def animation(self, followed: Followed | None) -> Figure:
        """As `figures.permuting.animation`."""
        if followed is not None:
            return permuting.animation(self.view, self.moves, followed)
        self._animation = self._animation or permuting.animation(self.view, self.moves)
        return self._animation


def all_matrices(run: Run) -> tuple[Thumbnail, ...]:
    """Of every matrix what its small picture shows.

    Raises:
        RunError: the run's files are damaged.
    """
    return _all_matrices(run, _content(run))


def pictures(run: Run, key: Key) -> Pictures:
    """Of one matrix, by (layer, kind, name).

    Raises:
        RunError: as `matrices.read_matrix`.
    """
    return _pictures(run, _content(run), key)


@st.cache_resource(max_entries=16, show_spinner=False)
def _all_matrices(_run: Run, content: str) -> tuple[Thumbnail, ...]:
    return thumbnails.thumbnails(matrices.read_layouts(_run), matrices.read_kept_importance(_run))


@st.cache_resource(max_entries=_MATRICES, show_spinner=False)
def _pictures(_run: Run, content: str, key: Key) -> Pictures:
    return Pictures(matrices.read_matrix(_run, *key))


def _content(run: Run) -> str:
    """What a run's matrices are read from: the checkpoint's weights too."""
    dense = Path(run.spec.get("checkpoint_path", "")) / "model.safetensors"
    return "|".join(f"{path}@{_stamp(path)}" for path in (*(run.path / name for name in _FILES), dense))


def _stamp(path: Path) -> Any:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None

"""How large the weights of a checkpoint are, layer by layer, and how fast their singular values fall; without torch.

Of every matrix of the encoder the root mean square; of the two that most of a layer's output passes through, value and
intermediate, all singular values, exactly, unless there are too many: the square roots of the eigenvalues of the Gram
matrix W^T W or W W^T, whichever is smaller. Two seconds of one core for BERT-base; what was measured is kept by the
weights' fingerprint.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from pgb_core import files, headers
from pgb_core.errors import RunError
from pgb_core.families import FAMILIES
from pgb_core.inspection import CheckpointInfo
from pgb_core.progress import Step, silent
from pgb_core.weights import read_tensor

SCHEMA = 1
DECOMPOSED = ("value", "intermediate")
RANKS = (*(round(0.05 * n, 2) for n in range(20)), 0.98, 1.0)
"""Where singular values are looked at: shares of all directions, the strongest first."""
ENERGY = 0.9
MOST_DIRECTIONS = 2048
"""Of a matrix that is decomposed: the time grows with the third power, and a page waits for it."""


@dataclass(frozen=True)
class MatrixSpectrum:
    """Of one matrix: the root mean square of its weights and, if it was decomposed, how its singular values fall."""

    rms: float
    decay: tuple[float, ...] = ()
    """Singular values at `RANKS`, as shares of the largest."""
    directions: float | None = None
    """Share of the directions that hold `ENERGY` of the squared weights."""


Spectra = list[dict[str, MatrixSpectrum]]
"""Per layer, by the name of the matrix as in `layout`."""


def measure(folder: Path, info: CheckpointInfo, step: Step = silent) -> Spectra:
    """The matrices of the dense checkpoint in `folder`, which `describe` accepts.

    Raises:
        CheckpointError, OSError: its files have changed since.
        KeyError: it is pruned, and has other matrices.
    """
    family = FAMILIES[info.family]
    stored = headers.read_headers(folder)
    prefix = f"{family.name}." if f"{family.name}.embeddings.word_embeddings.weight" in stored else ""
    found: Spectra = []
    with threadpool_limits(1):  # beside a run, threads that wait for each other take longer than one alone
        for layer in range(info.layers):
            step(layer, info.layers, f"layer {layer + 1} of {info.layers}")
            names = {name: f"{prefix}{family.layers}.{layer}.{path}.weight" for name, path in family.linears.items()}
            found.append({name: _spectrum(name, read_tensor(stored[path])) for name, path in names.items()})
    step(info.layers, info.layers, "")
    return found


def decomposed(spectra: Spectra, matrix: str) -> bool:
    """Whether the singular values of that matrix were measured, in every layer."""
    return all(layer[matrix].decay for layer in spectra)


def find(cache: Path, fingerprint: str) -> Spectra | None:
    """What was measured of the weights with that fingerprint; None if nothing was."""
    with contextlib.suppress(RunError, KeyError, TypeError, AttributeError):
        values = files.read_json(_file(cache, fingerprint))
        if values["schema"] == SCHEMA:
            return [{name: _restored(entry) for name, entry in layer.items()} for layer in values["layers"]]
    return None


def keep(cache: Path, fingerprint: str, spectra: Spectra) -> None:
    """Write what `find` finds.

    Raises:
        OSError: it cannot be written.
    """
    file = _file(cache, fingerprint)
    file.parent.mkdir(parents=True, exist_ok=True)
    layers = [{name: asdict(spectrum) for name, spectrum in layer.items()} for layer in spectra]
    files.write_json(file, {"schema": SCHEMA, "layers": layers})


def _file(cache: Path, fingerprint: str) -> Path:
    return cache / "spectra" / f"{fingerprint}.json"


def _restored(entry: Mapping[str, object]) -> MatrixSpectrum:
    values = dict(entry)
    decay = values.pop("decay")
    return MatrixSpectrum(decay=tuple(decay), **values)  # type: ignore[arg-type]


def _spectrum(name: str, weight: NDArray[np.float32]) -> MatrixSpectrum:
    rms = float(np.sqrt(np.mean(np.square(weight, dtype=np.float64))))
    if name not in DECOMPOSED or min(weight.shape) > MOST_DIRECTIONS:
        return MatrixSpectrum(rms)
    values = singular_values(weight)
    if not values[0]:
        return MatrixSpectrum(rms, (0.0,) * len(RANKS), 0.0)
    places = np.round(np.array(RANKS) * (len(values) - 1)).astype(int)
    energy = np.cumsum(values**2) / np.sum(values**2)
    directions = (int(np.searchsorted(energy, ENERGY)) + 1) / len(values)
    return MatrixSpectrum(rms, tuple(float(value) for value in values[places] / values[0]), directions)


def singular_values(weight: NDArray[np.float32]) -> NDArray[np.float64]:
    """(min(m, n),) of an (m, n) matrix, largest first, to about a thousandth of the largest."""
    smaller = weight if weight.shape[0] >= weight.shape[1] else weight.T
    eigenvalues = np.linalg.eigvalsh(smaller.T @ smaller)
    return np.sqrt(np.maximum(eigenvalues[::-1].astype(np.float64), 0.0))

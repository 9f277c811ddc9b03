"""Sizes and singular values of a checkpoint's matrices, compared with numpy's own decomposition."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from pgb_core import spectra
from pgb_core.inspection import describe
from pgb_core.spectra import DECOMPOSED, RANKS, singular_values
from tests.tiny import make_tiny_checkpoint


def test_what_is_measured_is_what_numpy_says(tiny_checkpoint: Path) -> None:
    told: list[int] = []
    found = spectra.measure(
        tiny_checkpoint, describe(tiny_checkpoint), lambda done, total, message="": told.append(done)
    )
    tensors = load_file(tiny_checkpoint / "model.safetensors")
    assert told == [0, 1, 2]
    assert len(found) == 2
    weight = tensors["bert.encoder.layer.1.intermediate.dense.weight"]
    entry = found[1]["intermediate"]
    expected = np.linalg.svd(weight, compute_uv=False)
    places = np.round(np.array(RANKS) * (len(expected) - 1)).astype(int)
    np.testing.assert_allclose(entry.decay, expected[places] / expected[0], atol=2e-3)
    assert entry.rms == pytest.approx(np.sqrt((weight.astype(np.float64) ** 2).mean()))
    share = np.cumsum(expected**2) / (expected**2).sum()
    assert entry.directions == (np.argmax(share >= 0.9) + 1) / len(expected)
    assert {name for name, matrix in found[0].items() if matrix.decay} == set(DECOMPOSED)


@pytest.mark.parametrize("family", ["distilbert", "roberta"])
def test_every_family_has_its_matrices(tmp_path: Path, family: str) -> None:
    folder = make_tiny_checkpoint(tmp_path / "tiny", family=family, train=False)
    found = spectra.measure(folder, describe(folder))
    assert [len(layer) for layer in found] == [6, 6]
    assert all(matrix.rms > 0 for layer in found for matrix in layer.values())


def test_matrices_with_many_directions_are_not_decomposed(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = describe(tiny_checkpoint)
    monkeypatch.setattr(spectra, "MOST_DIRECTIONS", info.hidden)
    found = spectra.measure(tiny_checkpoint, info)
    assert spectra.decomposed(found, "value")
    monkeypatch.setattr(spectra, "MOST_DIRECTIONS", info.hidden - 1)
    found = spectra.measure(tiny_checkpoint, info)
    assert not spectra.decomposed(found, "value")
    assert {matrix.directions for layer in found for matrix in layer.values()} == {None}
    assert all(matrix.rms > 0 for layer in found for matrix in layer.values())


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 100))
def test_singular_values_are_exact(rows: int, columns: int, seed: int) -> None:
    weight = np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)
    found, expected = singular_values(weight), np.linalg.svd(weight, compute_uv=False)
    np.testing.assert_allclose(found, expected, atol=2e-3 * expected[0])


def test_it_is_kept_by_the_fingerprint_and_read_back(tiny_checkpoint: Path, tmp_path: Path) -> None:
    found = spectra.measure(tiny_checkpoint, describe(tiny_checkpoint))
    assert spectra.find(tmp_path, "abc") is None
    spectra.keep(tmp_path, "abc", found)
    assert spectra.find(tmp_path, "abc") == found
    assert spectra.find(tmp_path, "abd") is None
    next((tmp_path / "spectra").iterdir()).write_text('{"schema": 1, "layers": [{"query": {}}]}')
    assert spectra.find(tmp_path, "abc") is None


def test_zeros_have_no_directions(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "zeros"))
    tensors = load_file(folder / "model.safetensors")
    tensors["bert.encoder.layer.0.attention.self.value.weight"] *= 0
    save_file(tensors, folder / "model.safetensors")
    value = spectra.measure(folder, describe(folder))[0]["value"]
    assert (value.rms, set(value.decay), value.directions) == (0.0, {0.0}, 0.0)

"""Weights of a checkpoint without torch: every float type, and only from the file that was meant."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pgb_core import weights
from tests.test_checkpoints import split


def write(file: Path, dtype: torch.dtype, seed: int = 0) -> tuple[torch.Tensor, str]:
    """A tensor called `second` between two others, and the file's fingerprint."""
    torch.manual_seed(seed)
    second = torch.randn(5, 3).to(dtype)
    save_file({"first": torch.ones(7, dtype=dtype), "second": second, "third": torch.zeros(2)}, file)
    os.utime(file, (seed, seed))  # two writes can fall into one tick of the clock
    return second, hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_every_float_type_is_read_as_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor, fingerprint = write(tmp_path / "model.safetensors", dtype)
    found = weights.read_weights(tmp_path, "second", fingerprint)
    assert found is not None
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, tensor.float().numpy())


def test_only_the_file_that_was_meant_is_read(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    _, fingerprint = write(file, torch.float32)
    assert weights.read_weights(tmp_path, "second", fingerprint) is not None
    write(file, torch.float32, seed=1)
    assert weights.read_weights(tmp_path, "second", fingerprint) is None
    assert weights.read_weights(tmp_path / "gone", "second", fingerprint) is None


def test_a_file_is_hashed_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "model.safetensors"
    _, fingerprint = write(file, torch.float32)
    digest, count = hashlib.file_digest, []

    def counted(*arguments: object) -> object:
        count.append(1)
        return digest(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("pgb_core.headers.hashlib.file_digest", counted)
    for _ in range(3):
        weights.read_weights(tmp_path, "second", fingerprint)
    assert len(count) == 1
    _, changed = write(file, torch.float32, seed=1)
    assert weights.read_weights(tmp_path, "second", changed) is not None
    assert len(count) == 2


def test_weights_in_several_files_are_read_and_each_counts(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "several"))
    split(folder)
    name = "bert.encoder.layer.1.output.dense.weight"
    fingerprint = weights.fingerprint_of(folder)
    found = weights.read_weights(folder, name, fingerprint)
    assert found is not None
    np.testing.assert_array_equal(found, load_file(tiny_checkpoint / "model.safetensors")[name].numpy())
    assert weights.read_weights(folder, "nothing", fingerprint) is None
    (folder / "model-00003-of-00003.safetensors").unlink()
    assert weights.read_weights(folder, name, fingerprint) is None


def test_what_is_no_tensor_file_has_no_weights(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"damaged")
    fingerprint = hashlib.sha256(b"damaged").hexdigest()
    assert weights.read_weights(tmp_path, "second", fingerprint) is None

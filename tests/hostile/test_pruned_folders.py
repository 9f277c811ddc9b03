"""A manifest that does not describe its weights is refused in one line and at once, before anything large is built."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pgb_core import PruneSpec, load_pruned, memory, prune
from pgb_core.checkpoints import describe
from pgb_core.errors import CheckpointError

Manifest = dict[str, Any]


@pytest.fixture(scope="module")
def pruned(tiny_checkpoint: Path, tiny_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pruned") / "run"
    spec = PruneSpec(
        checkpoint=str(tiny_checkpoint),
        task="csv",
        train_file=str(tiny_csv),
        method="pgb",
        sparsity=0.3,
        calibration_samples=32,
        latency=False,
    )
    prune(spec, out)
    return out / "model"


def grouped(manifest: Manifest) -> Manifest:
    """The first sublayer that has groups."""
    return next(sizes for sizes in manifest["sublayers"] if sizes.get("groups"))


def set_size(name: str, value: object) -> Callable[[Manifest], None]:
    def spoil(manifest: Manifest) -> None:
        grouped(manifest)["groups"][0][name] = value

    return spoil


def convert(name: str, kind: Callable[[int], object]) -> Callable[[Manifest], None]:
    """The right size, as something else than a whole number."""

    def spoil(manifest: Manifest) -> None:
        group = grouped(manifest)["groups"][0]
        group[name] = kind(group[name])

    return spoil


def repeat_groups(manifest: Manifest) -> None:
    sizes = grouped(manifest)
    sizes["groups"] = [{**sizes["groups"][0], "columns": 0, "rows": 0, "units": 0}] * 50_000


KINDS: dict[str, Callable[[Manifest], None]] = {
    "infinite columns": set_size("columns", float("inf")),
    "infinite units": set_size("units", float("inf")),
    "columns that are no number": set_size("columns", "many"),
    "columns that are a text": convert("columns", str),
    "units that are no whole number": convert("units", float),
    "negative units": set_size("units", -2),
    "units that are a list": set_size("units", [1]),
    "groups that are no table": lambda manifest: grouped(manifest).update(groups=[[1]]),
    "sublayers that are a number": lambda manifest: manifest.update(sublayers=5),
    "a schema that is true": lambda manifest: manifest.update(schema=True),
    "negative rows": set_size("rows", -1),
    "a billion units": set_size("units", 10**9),
    "fifty thousand groups": repeat_groups,
    "a sublayer too few": lambda manifest: manifest["sublayers"].pop(),
    "sublayers out of order": lambda manifest: manifest["sublayers"].reverse(),
    "a family with a line break": lambda manifest: manifest.update(family="bert\nsecond line"),
}


@pytest.mark.parametrize("name", KINDS)
def test_it_is_refused(name: str, pruned: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pruned, tmp_path / "model"))
    manifest = json.loads((folder / "pgb.json").read_text())
    KINDS[name](manifest)
    (folder / "pgb.json").write_text(json.dumps(manifest))
    began = time.process_time()
    with pytest.raises(CheckpointError) as caught:
        load_pruned(folder)
    assert time.process_time() - began < 1
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_as_float32(dtype: torch.dtype, pruned: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pruned, tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    halves = {name: value.to(dtype) if value.is_floating_point() else value for name, value in tensors.items()}
    save_file(halves, folder / "model.safetensors", metadata={"format": "pt"})
    assert {parameter.dtype for parameter in load_pruned(folder).parameters()} == {torch.float32}


def test_what_does_not_fit_into_memory_is_not_loaded(pruned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = describe(pruned).parameters * 8
    monkeypatch.setattr(memory, "available", lambda: needed)
    assert load_pruned(pruned)
    monkeypatch.setattr(memory, "available", lambda: needed - 1)
    with pytest.raises(CheckpointError, match="of memory"):
        load_pruned(pruned)

"""Grouped execution equals the masked dense model; saving and loading is exact and strict."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from pgb_core import CheckpointError, evaluation
from pgb_core.architectures import encoder_sublayers
from pgb_core.compensation import compensate
from pgb_core.grouped import BlockSizes, GroupedLinear, cut, install
from pgb_core.layout import Group, SublayerLayout, rectangle_layout
from pgb_core.saving import load_pruned, save_pruned
from tests.network import Network


def some_layouts(network: Network, seed: int) -> list[SublayerLayout]:
    """A random candidate of each sublayer; seed 0 has rectangles and outputs in no group."""
    if seed == 0:
        partial = Group(np.array([3, 1]), np.array([5, 9, 2]), np.array([0, 31, 7]))
        other = Group(np.array([0]), np.array([1, 30]), np.array([2, 4]))
        return [
            SublayerLayout(sub.shape, (partial, other)) if i % 2 else rectangle_layout(sub.shape, np.array([0, 2]))
            for i, sub in enumerate(network.sublayers)
        ]
    rng = np.random.default_rng(seed)
    return [candidates[rng.integers(len(candidates))] for candidates in network.candidates]


def masked_dense(network: Network, layouts: list[SublayerLayout]) -> nn.Module:
    """The same removal by the simplest means: zeros in a copy of the dense model."""
    model = copy.deepcopy(network.model)
    with torch.no_grad():
        for sub, layout in zip(encoder_sublayers(model), layouts, strict=True):
            for matrix, linear in zip(layout.matrices(), (*sub.entries, sub.exit), strict=True):
                linear.weight.mul_(torch.from_numpy(matrix.mask()))
            if layout.dropped:
                sub.exit.bias.zero_()
    return model


@pytest.mark.parametrize("seed", range(8))
def test_grouped_execution_equals_the_masked_dense_model(network: Network, seed: int) -> None:
    layouts = some_layouts(network, seed)
    pruned = [cut(sub, layout) for sub, layout in zip(network.sublayers, layouts, strict=True)]
    small, masked = install(network.model, network.sublayers, pruned), masked_dense(network, layouts)
    with torch.no_grad():
        for batch in network.batches:
            difference = small(**batch.inputs).logits - masked(**batch.inputs).logits
            assert float(difference.abs().max()) < 1e-4
    assert evaluation.encoder_weights(small) == sum(layout.cost for layout in layouts)


def test_installing_leaves_the_dense_model_alone(network: Network) -> None:
    before = {name: tensor.clone() for name, tensor in network.model.state_dict().items()}
    layouts = some_layouts(network, 1)
    small = install(
        network.model, network.sublayers, [cut(s, p) for s, p in zip(network.sublayers, layouts, strict=True)]
    )
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.model.state_dict().items())


def test_a_grouped_linear_trains() -> None:
    layer = GroupedLinear(BlockSizes((2, 3), (2, 2), rest=1, gather=True, scatter=True))
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    layer.gather, layer.scatter = torch.tensor([3, 0, 1, 2]), torch.tensor([5, 4, 3, 2, 1, 0])
    layer(torch.randn(2, 3, 4)).square().sum().backward()
    assert all(parameter.grad is not None and bool((parameter.grad != 0).any()) for parameter in layer.parameters())


@pytest.mark.parametrize("length", [1, 7])
def test_dropped_sublayers_work_for_any_batch_and_length_and_in_training(network: Network, length: int) -> None:
    layouts = [SublayerLayout(sub.shape, ()) for sub in network.sublayers]
    small = install(
        network.model, network.sublayers, [cut(s, p) for s, p in zip(network.sublayers, layouts, strict=True)]
    )
    ids = torch.full((3, length), 5)
    output = small.train()(input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True)
    assert output.logits.shape == (3, 2)
    assert len(output.hidden_states) == 3


# --- save and reload -----------------------------------------------------------------------------------------------


@pytest.fixture
def saved(network: Network, tmp_path: Path) -> tuple[nn.Module, Path]:
    layouts = some_layouts(network, 3)
    refitted = compensate(network.model, network.sublayers, layouts, network.batches)
    model = install(network.model, network.sublayers, refitted)
    pairs = [(sub.layer, layout) for sub, layout in zip(network.sublayers, layouts, strict=True)]
    save_pruned(model, pairs, tmp_path / "model")
    return model, tmp_path / "model"


def test_a_new_process_loads_the_same_tensors_and_logits(
    network: Network, saved: tuple[nn.Module, Path], tmp_path: Path
) -> None:
    model, path = saved
    batch = network.batches[0]
    save_file(batch.inputs, tmp_path / "inputs.safetensors")
    script = (
        "import sys; from safetensors.torch import load_file, save_file; from pgb_core import load_pruned\n"
        "model = load_pruned(sys.argv[1])\n"
        "logits = model(**load_file(sys.argv[2])).logits.detach()\n"
        "save_file({'logits': logits, **{'t.' + k: v for k, v in model.state_dict().items()}}, sys.argv[3])\n"
    )
    arguments = [str(path), str(tmp_path / "inputs.safetensors"), str(tmp_path / "out.safetensors")]
    subprocess.run([sys.executable, "-c", script, *arguments], check=True, timeout=100)
    found = load_file(tmp_path / "out.safetensors")
    with torch.no_grad():
        assert float((found.pop("logits") - model(**batch.inputs).logits).abs().max()) < 1e-6
    state = model.state_dict()
    assert {f"t.{name}" for name in state} == found.keys()
    assert all(torch.equal(found[f"t.{name}"], tensor) for name, tensor in state.items())


def test_the_loaded_model_can_be_trained_and_saved_dtype_is_kept(saved: tuple[nn.Module, Path]) -> None:
    loaded = load_pruned(saved[1])
    assert all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in loaded.parameters())
    assert not loaded.training


@pytest.mark.parametrize("damage", ["missing", "unexpected", "resized"])
def test_loading_is_strict(saved: tuple[nn.Module, Path], damage: str) -> None:
    file = saved[1] / "model.safetensors"
    tensors = load_file(file)
    name = "bert.encoder.layer.0.output.dense.bias"
    if damage == "missing":
        del tensors[name]
    elif damage == "unexpected":
        tensors["surprise"] = torch.zeros(1)
    else:
        tensors[name] = torch.zeros(3, 3)
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match="does not fit its manifest"):
        load_pruned(saved[1])


@pytest.mark.parametrize(
    ("ending", "position", "value", "reason"),
    [
        (".weights.0", (0, 0), float("nan"), "NaN or infinite"),
        ("word_embeddings.weight", (3, 1), float("inf"), "NaN or infinite"),
        (".gather", 0, 32, "indices that do not fit"),
        (".gather", 0, -1, "indices that do not fit"),
        (".scatter", 0, 32, "indices that do not fit"),
        (".scatter", slice(2), 5, "indices that do not fit"),  # one output twice, another never
    ],
)
def test_weights_and_indices_that_mean_nothing_are_refused(
    network: Network, tmp_path: Path, ending: str, position: Any, value: float, reason: str
) -> None:
    layouts = some_layouts(network, 0)
    modules = [cut(sub, layout) for sub, layout in zip(network.sublayers, layouts, strict=True)]
    pairs = [(sub.layer, layout) for sub, layout in zip(network.sublayers, layouts, strict=True)]
    save_pruned(install(network.model, network.sublayers, modules), pairs, tmp_path)
    assert load_pruned(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    name = next(name for name in tensors if name.endswith(ending))
    tensors[name][position] = value
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=reason):
        load_pruned(tmp_path)


@pytest.mark.parametrize(
    "manifest", ["{", "[]", "{}", '{"schema": 99, "family": "bert"}', '{"schema": 1, "family": "bert"}']
)
def test_a_damaged_manifest_is_one_clear_error(saved: tuple[nn.Module, Path], manifest: str) -> None:
    (saved[1] / "pgb.json").write_text(manifest)
    with pytest.raises(CheckpointError):
        load_pruned(saved[1])


def test_groups_that_overlap_are_refused(saved: tuple[nn.Module, Path]) -> None:
    file = saved[1] / "pgb.json"
    manifest = json.loads(file.read_text())
    grouped = next(entry for entry in manifest["sublayers"] if len(entry["groups"]) > 1)
    grouped["groups"][0]["rows"] += 1
    file.write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="does not fit its manifest"):
        load_pruned(saved[1])


def test_a_dense_folder_is_not_a_pruned_one(tiny_checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="not a pruned checkpoint"):
        load_pruned(tiny_checkpoint)


def test_plain_transformers_does_not_take_a_pruned_folder_for_a_bert(
    saved: tuple[nn.Module, Path], tmp_path: Path
) -> None:
    from transformers import AutoConfig

    shutil.copytree(saved[1], tmp_path / "copy")
    assert json.loads((tmp_path / "copy" / "config.json").read_text())["model_type"] == "pgb_bert"
    with pytest.raises(ValueError, match="pgb_bert"):
        AutoConfig.from_pretrained(tmp_path / "copy")

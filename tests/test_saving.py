"""Saving and loading pruned models is exact and strict."""

from __future__ import annotations

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
from pgb_core.compensation import compensate
from pgb_core.grouped import cut, install
from pgb_core.layout import Group, SublayerLayout, dropped_layout, rectangle_layout
from pgb_core.saving import block_tensors, load_pruned, save_pruned
from tests.network import Network, layouts_of_all_kinds, save_network, some_layouts


@pytest.fixture(params=["tied", "mixed"])
def saved(network: Network, tmp_path: Path, request: pytest.FixtureRequest) -> tuple[nn.Module, Path]:
    layouts = layouts_of_all_kinds(network)[request.param]
    refitted = compensate(network.model, network.sublayers, layouts, network.weights, network.batches)
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
    name = next(name for name in tensors if name.endswith(("dense.bias", "exit.bias")))
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
        (".gather", slice(2), 5, "indices that do not fit"),  # groups that overlap
    ],
)
def test_weights_and_indices_that_mean_nothing_are_refused(
    network: Network, tmp_path: Path, ending: str, position: Any, value: float, reason: str
) -> None:
    save_network(network, some_layouts(network, 0), tmp_path)
    assert load_pruned(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    name = next(name for name in tensors if name.endswith(ending))
    tensors[name][position] = value
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=reason):
        load_pruned(tmp_path)


@pytest.mark.parametrize(
    "manifest", ["{", "[]", "{}", "[" * 100_000, '{"schema": 99, "family": "bert"}', '{"schema": 1, "family": "bert"}']
)
def test_a_damaged_manifest_is_one_clear_error(saved: tuple[nn.Module, Path], manifest: str) -> None:
    (saved[1] / "pgb.json").write_text(manifest)
    with pytest.raises(CheckpointError):
        load_pruned(saved[1])


def refuses(path: Path, manifest: dict[str, Any]) -> None:
    (path / "pgb.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="does not fit its manifest"):
        load_pruned(path)


def write(network: Network, path: Path, kind: str) -> dict[str, Any]:
    """Save a network with layouts of one kind; its manifest."""
    save_network(network, layouts_of_all_kinds(network)[kind], path)
    assert load_pruned(path)
    manifest: dict[str, Any] = json.loads((path / "pgb.json").read_text())
    return manifest


def test_groups_that_overlap_are_refused(network: Network, tmp_path: Path) -> None:
    manifest = write(network, tmp_path, "tied")
    grouped = next(entry for entry in manifest["sublayers"] if len(entry["groups"]) > 1)
    grouped["groups"][0]["rows"] += 1
    refuses(tmp_path, manifest)


def test_groups_that_read_a_part_of_the_inputs_have_to_say_which(network: Network, tmp_path: Path) -> None:
    save_network(network, some_layouts(network, 0), tmp_path)
    manifest, tensors = json.loads((tmp_path / "pgb.json").read_text()), load_file(tmp_path / "model.safetensors")
    assert manifest["sublayers"][1]["gather"]
    manifest["sublayers"][1]["gather"] = False
    del tensors["bert.encoder.layer.0.intermediate.entry.gather"]
    save_file(tensors, tmp_path / "model.safetensors")
    refuses(tmp_path, manifest)


@pytest.mark.parametrize("damage", ["larger", "smaller", "none", "missing", "more", "order", "negative"])
def test_blocks_that_do_not_tile_their_matrix_are_refused(network: Network, tmp_path: Path, damage: str) -> None:
    manifest = write(network, tmp_path, "untied")
    matrices = manifest["sublayers"][1]["matrices"]
    groups = matrices[0]["groups"]
    if damage in ("larger", "smaller"):
        groups[0]["rows"] += 1 if damage == "larger" else -1
    elif damage == "none":
        groups.clear()
    elif damage == "missing":
        matrices.pop()
    elif damage == "more":
        matrices.append({**matrices[0], "name": "surprise"})
    elif damage == "negative":
        groups += [{"rows": 70, "columns": 40}, {"rows": -70, "columns": -40}]
    else:
        manifest["sublayers"][0], manifest["sublayers"][1] = manifest["sublayers"][1], manifest["sublayers"][0]
    refuses(tmp_path, manifest)


def test_zeros_inside_groups_are_refused(network: Network, tmp_path: Path) -> None:
    manifest = write(network, tmp_path, "untied")
    matrix = next(m for s in manifest["sublayers"] for m in s["matrices"] if len(m["groups"]) > 1)
    matrix["zeros"] = True
    refuses(tmp_path, manifest)


def test_zeros_are_known_as_such_after_reloading(network: Network, tmp_path: Path) -> None:
    write(network, tmp_path, "zeros")
    cost = sum(layout.cost for layout in layouts_of_all_kinds(network)["zeros"])
    loaded = load_pruned(tmp_path)
    assert evaluation.encoder_weights(loaded) == cost
    batch = network.batches[0]
    torch.autograd.backward(loaded.train()(**batch.inputs).logits.sum())
    for name, parameter in loaded.named_parameters():
        if ".weights." in name:
            assert parameter.grad is not None
            assert not bool(parameter.grad[parameter == 0].any())


def test_a_folder_of_the_first_version_loads(network: Network, tmp_path: Path) -> None:
    """Its manifest, word for word as it was written then."""
    shape = network.sublayers[0].shape
    layouts = [
        SublayerLayout(shape, (Group(np.array([2, 0]), np.arange(5, 20), np.arange(0, 32, 2)),)),
        *(rectangle_layout(sub.shape, np.arange(sub.shape.units)) for sub in network.sublayers[1:3]),
        dropped_layout(network.sublayers[3].shape),
    ]
    model = save_network(network, layouts, tmp_path)
    plain = {"gather": False, "scatter": False}
    first = {
        "schema": 1,
        "family": "bert",
        "sublayers": [
            {
                "layer": 0,
                "kind": "attention",
                "groups": [{"units": 2, "columns": 15, "rows": 16}],
                "gather": True,
                "scatter": True,
            },
            {"layer": 0, "kind": "feed_forward", "groups": [{"units": 64, "columns": 32, "rows": 32}], **plain},
            {"layer": 1, "kind": "attention", "groups": [{"units": 4, "columns": 32, "rows": 32}], **plain},
            {"layer": 1, "kind": "feed_forward", "groups": [], **plain},
        ],
    }
    assert json.loads((tmp_path / "pgb.json").read_text()) == {**first, "schema": 2}
    (tmp_path / "pgb.json").write_text(json.dumps(first))
    names = {
        ".attention.self.exit.": ".attention.output.dense.",
        ".intermediate.entry.": ".intermediate.dense.",
        ".intermediate.exit.": ".output.dense.",
    }
    tensors = load_file(tmp_path / "model.safetensors")
    for now, then in names.items():
        assert any(now in name for name in tensors)
        tensors = {name.replace(now, then): tensor for name, tensor in tensors.items()}
    save_file(tensors, tmp_path / "model.safetensors")
    loaded = load_pruned(tmp_path).state_dict()
    assert loaded.keys() == model.state_dict().keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("kind", ["tied", "untied", "zeros"])
def test_the_file_holds_each_block_where_it_is_said_to_be(network: Network, kind: str) -> None:
    layouts = layouts_of_all_kinds(network)[kind]
    modules = [cut(sub, layout) for sub, layout in zip(network.sublayers, layouts, strict=True)]
    tensors = install(network.model, network.sublayers, modules).state_dict()
    for sub, layout in zip(network.sublayers, layouts, strict=True):
        where = block_tensors(sub, layout)
        dense = dict(zip(sub.shape.matrices, (*sub.entries, sub.exit), strict=True))
        assert [key[2] for key in where] == list(sub.shape.matrices)
        for matrix in layout.matrices():
            kept = dense[matrix.name].weight.detach().numpy() * matrix.mask()
            places = where[*sub.key, matrix.name]
            for (name, start, stop), r, c in zip(places, matrix.row_groups, matrix.column_groups, strict=True):
                np.testing.assert_array_equal(tensors[name][start:stop].numpy(), kept[np.ix_(r, c)])


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

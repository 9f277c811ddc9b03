"""Pruned checkpoints on disk: config.json, model.safetensors, and pgb.json with the sizes of every block.

The manifest lists the sublayers. A tied one has `groups` (units, columns and rows of each) and whether its inputs are
gathered and its outputs scattered; one whose matrices stand alone has the same for each of its `matrices`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pgb_core import bounded_json
from pgb_core.architectures import Sublayer, all_shapes, dense_config, empty_pruned, family_of, head_of, pruned_modules
from pgb_core.checkpoints import refuse_without_memory
from pgb_core.errors import CheckpointError
from pgb_core.families import PRUNED_PREFIX, class_name
from pgb_core.inspection import PRUNED_MANIFEST, describe, read_config
from pgb_core.layout import ENTRY_NAMES, EXIT_NAME, Kind, Layout, SublayerShape
from pgb_core.matrixwise import matrix_sizes

_MANIFEST_LIMIT = 2**23
"""Largest pgb.json that is read, in bytes."""
_COPIES = 2
"""Of the weights, in memory while they are loaded: as they are in the file, and in full precision."""
SCHEMA = 2
"""Of the manifest and of the tensors' names; folders of schema 1 are read as well."""
_FIRST_NAMES = {
    ".attention.output.dense.": ".attention.self.exit.",
    ".intermediate.dense.": ".intermediate.entry.",
    ".output.dense.": ".intermediate.exit.",
}
"""Of schema 1, where an exit stood in the place of the dense matrix."""


def save_pruned(model: nn.Module, layouts: Sequence[tuple[int, Layout]], path: Path) -> None:
    """Write config.json, model.safetensors and the manifest pgb.json into folder `path`; no tokenizer."""
    path.mkdir(parents=True, exist_ok=True)
    config: Any = model.config
    family = family_of(config).name
    names = [class_name(family, head_of(model), pruned=True)]
    values = config.to_dict() | {"model_type": PRUNED_PREFIX + family, "architectures": names}
    (path / "config.json").write_text(json.dumps(values, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    sublayers = [{"layer": n, "kind": layout.shape.kind, **layout.manifest()} for n, layout in layouts]
    write_manifest(family, sublayers, path)
    write_weights(model, path)


def write_manifest(family: str, sublayers: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """pgb.json, which lists the sizes of every block."""
    manifest = {"schema": SCHEMA, "family": family, "sublayers": list(sublayers)}
    (folder / PRUNED_MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def write_weights(model: nn.Module, folder: Path) -> None:
    """model.safetensors, with every tensor of the model."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def load_pruned(path: str | Path) -> nn.Module:
    """A pruned checkpoint as a torch module with the forward signature and outputs of the dense model's class.

    Strict: every tensor of the manifest must be there with its size, and no other.

    >>> model = load_pruned("runs/first/model")  # doctest: +SKIP

    Raises:
        CheckpointError: the folder is not a pruned checkpoint, it is damaged, or there is too little memory for it.
    """
    path = Path(path)
    info = describe(path)  # refuses what is not safe to load, and what is larger than its file
    refuse_without_memory(path, info, _COPIES)
    manifest, config = _read_manifest(path, info.family), read_config(path / "config.json")
    try:
        shapes = all_shapes(dense_config(info.family, config))
        for place, (shape, sizes) in enumerate(zip(shapes, manifest["sublayers"], strict=True)):
            if (sizes["layer"], sizes["kind"]) != (place // 2, shape.kind):
                raise ValueError("sublayers out of order")
            _refuse_misfits(shape, sizes)
        model = empty_pruned(info.family, info.head, config, manifest["sublayers"])
        tensors = {name: _in_full(tensor) for name, tensor in load_file(path / "model.safetensors").items()}
        if manifest["schema"] == 1:
            tensors = _renamed(tensors, model.state_dict().keys())
        model.load_state_dict(tensors, strict=True, assign=True)
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise CheckpointError(f"{path} does not fit its manifest {PRUNED_MANIFEST}; export the run again.") from error
    _refuse_unsound(path, model)
    return model.eval()


def _in_full(tensor: Tensor) -> Tensor:
    """Weights in half precision as float32, as dense checkpoints are read; indices as they are."""
    return tensor.float() if tensor.is_floating_point() else tensor


def _read_manifest(path: Path, expected: str) -> dict[str, Any]:
    try:
        manifest = bounded_json.read_object(path / PRUNED_MANIFEST, _MANIFEST_LIMIT)
        schema, family = manifest["schema"], manifest["family"]
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is not a pruned checkpoint: it has no readable {PRUNED_MANIFEST}.") from error
    if type(schema) is not int or schema not in (1, SCHEMA) or family != expected:
        raise CheckpointError(f"{path} was written by another version (schema {schema}, family {family}).")
    return manifest


def _renamed(tensors: Mapping[str, Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
    """`tensors` of schema 1, under the names that are `wanted` now."""

    def now(name: str) -> str:
        candidates = (name, *(name.replace(first, second) for first, second in _FIRST_NAMES.items()))
        return next((candidate for candidate in candidates if candidate in wanted), name)

    return {now(name): tensor for name, tensor in tensors.items()}


def _refuse_misfits(shape: SublayerShape, sizes: dict[str, Any]) -> None:
    """Raise a ValueError where the blocks are not those of any layout; sizes of tensors are checked as they load."""
    if "matrices" not in sizes:
        groups = sizes["groups"]
        units, columns, rows = (sum(_size(group[part]) for group in groups) for part in ("units", "columns", "rows"))
        if max(units, len(groups)) > shape.units:
            raise ValueError("more units or groups than there are units")
        if max(columns, rows) > shape.hidden:
            raise ValueError("groups overlap")
        if groups and columns < shape.hidden and not sizes["gather"]:
            raise ValueError("inputs in no group, and nothing says which")
        return
    if tuple(matrix["name"] for matrix in sizes["matrices"]) != shape.matrices:
        raise ValueError("not the matrices of the sublayer")
    for matrix, size in zip(sizes["matrices"], matrix_sizes(shape).values(), strict=True):
        blocks = [(_size(group["rows"]), _size(group["columns"])) for group in matrix["groups"]]
        if min(min(block) for block in blocks) < 1 or size != tuple(map(sum, zip(*blocks, strict=True))):
            raise ValueError("groups do not tile their matrix")
        if matrix["zeros"] and len(blocks) > 1:
            raise ValueError("groups with zeros")


def _size(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("not a size")
    return value


def _refuse_unsound(path: Path, model: nn.Module) -> None:
    """What has the right sizes and is wrong all the same: weights that are no numbers, indices that point nowhere."""
    config: Any = model.config
    inputs: dict[nn.Module, int] = {}  # of each linear layer that is in blocks
    for entry, exit_ in pruned_modules(model):
        if entry is not None:
            inputs |= dict.fromkeys(entry.linears, config.hidden_size)
            inputs[exit_] = entry.part_size
    for prefix, module in model.named_modules():
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            if name in ("gather", "scatter"):
                size = inputs[module] if name == "gather" else len(tensor)
                sound, reason = _indices(tensor, size), f"holds indices that do not fit the size {size}"
            else:
                sound, reason = bool(torch.isfinite(tensor).all()), "holds NaN or infinite values"
            if not sound:
                raise CheckpointError(
                    f"{path}: tensor {prefix}.{name} {reason}; the checkpoint is damaged, export the run again."
                )


def _indices(tensor: Tensor, size: int) -> bool:
    """Whether the tensor holds different indices below `size`."""
    if tensor.dtype != torch.int64:
        return False
    return bool(((tensor >= 0) & (tensor < size)).all()) and len(tensor.unique()) == len(tensor)


def block_tensors(sub: Sublayer, layout: Layout) -> dict[tuple[int, Kind, str], list[tuple[str, int, int]]]:
    """Where the pruned model.safetensors holds each matrix: (tensor, first row, last row + 1) per group."""
    kind = layout.shape.kind
    path = f"{sub.prefix}.{sub.place}"
    linears = layout.entry_linears()
    where: dict[tuple[int, Kind, str], list[tuple[str, int, int]]] = {(*sub.key, n): [] for n in sub.shape.matrices}
    for n, linear in enumerate(linears):
        own = f"{path}.entry" if len(linears) == 1 else f"{path}.entry.linears.{n}"
        for part, name in enumerate(ENTRY_NAMES[kind][n : n + linear.parts]):
            sizes = [len(block.rows) // linear.parts for block in linear.blocks]
            where[*sub.key, name] = [
                (f"{own}.weights.{g}", part * size, (part + 1) * size) for g, size in enumerate(sizes)
            ]
    where[*sub.key, EXIT_NAME] = [
        (f"{path}.exit.weights.{g}", 0, len(block.rows)) for g, block in enumerate(layout.exit_linear().blocks)
    ]
    return where

"""Pruned checkpoints on disk: config.json, model.safetensors, and pgb.json with the sizes of every block.

The manifest lists the sublayers. A tied one has `groups` (units, columns and rows of each) and whether its inputs are
gathered and its outputs scattered; one whose matrices stand alone has the same for each of its `matrices`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pgb_core.architectures import Sublayer, encoder_sublayers
from pgb_core.errors import CheckpointError
from pgb_core.grouped import BlockSizes, Constant, Entry, GroupedLinear, entry_module, replace
from pgb_core.inspection import PRUNED_MANIFEST, PRUNED_TYPE, describe, read_config
from pgb_core.layout import ENTRY_NAMES, EXIT_NAME, Kind, Layout, SublayerShape
from pgb_core.matrixwise import matrix_sizes

SCHEMA = 1


def save_pruned(model: nn.Module, layouts: Sequence[tuple[int, Layout]], path: Path) -> None:
    """Write config.json, model.safetensors and the manifest pgb.json into folder `path`; no tokenizer."""
    path.mkdir(parents=True, exist_ok=True)
    config: Any = model.config
    values = config.to_dict() | {"model_type": PRUNED_TYPE, "architectures": ["PGBBertForSequenceClassification"]}
    (path / "config.json").write_text(json.dumps(values, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    sublayers = [{"layer": layer, "kind": layout.shape.kind, **layout.manifest()} for layer, layout in layouts]
    manifest = {"schema": SCHEMA, "family": "bert", "sublayers": sublayers}
    (path / PRUNED_MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})


def load_pruned(path: str | Path) -> nn.Module:
    """A pruned checkpoint as a torch module with the forward signature and outputs of `BertForSequenceClassification`.

    Strict: every tensor of the manifest must be there with its size, and no other.

    >>> model = load_pruned("runs/first/model")  # doctest: +SKIP

    Raises:
        CheckpointError: the folder is not a pruned checkpoint, or it is damaged.
    """
    from transformers import BertConfig, BertForSequenceClassification
    from transformers.models.bert.modeling_bert import BertLayer

    path = Path(path)
    layers = describe(path).layers  # refuses what is not safe to load, and what is larger than its file
    manifest = _read_manifest(path)
    config = BertConfig(**{**read_config(path / "config.json"), "num_hidden_layers": 0}, attn_implementation="sdpa")
    model: Any = BertForSequenceClassification(config)
    config.num_hidden_layers = layers
    inputs: dict[nn.Module, int] = {}
    try:
        with torch.device("meta"):  # sizes only: every tensor comes from the file
            for layer in range(layers):
                model.bert.encoder.layer.append(BertLayer(config, layer))
            for sub, sizes in zip(encoder_sublayers(model), manifest["sublayers"], strict=True):
                if (sub.layer, sub.shape.kind) != (sizes["layer"], sizes["kind"]):
                    raise ValueError("sublayers out of order")
                entry, exit_ = _from_manifest(sub.shape, sizes)
                inputs |= _inputs(sub.shape, entry, exit_)
                replace(model, sub, entry, exit_)
        model.load_state_dict(load_file(path / "model.safetensors"), strict=True, assign=True)
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} does not fit its manifest {PRUNED_MANIFEST}; export the run again.") from error
    _refuse_unsound(path, model, inputs)
    loaded: nn.Module = model.eval()
    return loaded


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((path / PRUNED_MANIFEST).read_text(encoding="utf-8"))
        schema, family = manifest["schema"], manifest["family"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is not a pruned checkpoint: it has no readable {PRUNED_MANIFEST}.") from error
    if schema != SCHEMA or family != "bert":
        raise CheckpointError(f"{path} was written by another version (schema {schema}, family {family}).")
    return manifest


def _from_manifest(shape: SublayerShape, sizes: dict[str, Any]) -> tuple[Entry | None, GroupedLinear | Constant]:
    if "matrices" in sizes:
        found = {matrix["name"]: matrix for matrix in sizes["matrices"]}
        *entries, exit_ = [_single(found[name], *size) for name, size in matrix_sizes(shape).items()]
        if len(sizes["matrices"]) != len(shape.matrices):
            raise ValueError("matrices that the sublayer does not have")
        return entry_module(entries), exit_
    if not sizes["groups"]:
        return None, Constant(shape.hidden)
    return _tied(shape, sizes)


def _tied(shape: SublayerShape, sizes: dict[str, Any]) -> tuple[GroupedLinear, GroupedLinear]:
    groups = sizes["groups"]
    if any(sum(g[part] for g in groups) > shape.hidden for part in ("columns", "rows")):
        raise ValueError("groups overlap")
    units = tuple(int(g["units"]) * shape.width for g in groups)
    columns, rows = tuple(int(g["columns"]) for g in groups), tuple(int(g["rows"]) for g in groups)
    first = BlockSizes(units, columns, len(ENTRY_NAMES[shape.kind]), gather=bool(sizes["gather"]))
    last = BlockSizes(rows, units, rest=shape.hidden - sum(rows), scatter=bool(sizes["scatter"]))
    return GroupedLinear(first), GroupedLinear(last)


def _single(sizes: dict[str, Any], rows: int, columns: int) -> GroupedLinear:
    """A matrix that stands alone: its blocks tile it."""
    groups = [(int(g["rows"]), int(g["columns"])) for g in sizes["groups"]]
    if min(min(group) for group in groups) < 1 or (rows, columns) != tuple(map(sum, zip(*groups, strict=True))):
        raise ValueError("groups do not tile their matrix")
    if sizes["zeros"] and len(groups) > 1:
        raise ValueError("groups with zeros")
    row_sizes, column_sizes = zip(*groups, strict=True)
    gather, scatter, zeros = (bool(sizes[key]) for key in ("gather", "scatter", "zeros"))
    return GroupedLinear(BlockSizes(row_sizes, column_sizes, gather=gather, scatter=scatter, zeros=zeros))


def _inputs(shape: SublayerShape, entry: Entry | None, exit_: GroupedLinear | Constant) -> dict[nn.Module, int]:
    """How many inputs each linear layer of a sublayer is given."""
    if entry is None or isinstance(exit_, Constant):
        return {}
    return {**dict.fromkeys(entry.linears, shape.hidden), exit_: entry.part_size}


def _refuse_unsound(path: Path, model: nn.Module, inputs: dict[nn.Module, int]) -> None:
    """What has the right sizes and is wrong all the same: weights that are no numbers, indices that point nowhere."""
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
    path = f"{sub.prefix}.{'attention.self.entry' if kind == 'attention' else 'intermediate.dense'}"
    linears = layout.entry_linears()
    where: dict[tuple[int, Kind, str], list[tuple[str, int, int]]] = {(*sub.key, n): [] for n in sub.shape.matrices}
    for n, linear in enumerate(linears):
        own = path if len(linears) == 1 else f"{path}.linears.{n}"
        for part, name in enumerate(ENTRY_NAMES[kind][n : n + linear.parts]):
            sizes = [len(block.rows) // linear.parts for block in linear.blocks]
            where[*sub.key, name] = [
                (f"{own}.weights.{g}", part * size, (part + 1) * size) for g, size in enumerate(sizes)
            ]
    where[*sub.key, EXIT_NAME] = [
        (f"{sub.prefix}.{sub.paths[-1]}.weights.{g}", 0, len(block.rows))
        for g, block in enumerate(layout.exit_linear().blocks)
    ]
    return where

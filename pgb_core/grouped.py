"""Grouped execution: modules that hold only the kept blocks, the surgery that puts them into a model, save and reload.

Permutations of heads and neurons are absorbed in the weights. What remains is at most one gather of the inputs where a
sublayer is entered and one scatter of the outputs where it is left (stage 5 of PGB, re-permutation).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pgb_core.architectures import (
    Mix,
    Sublayer,
    encoder_sublayers,
    grouped_attention,
    replace_sublayer,
)
from pgb_core.errors import CheckpointError
from pgb_core.inspection import PRUNED_MANIFEST, PRUNED_TYPE, describe, read_config
from pgb_core.layout import ENTRY_NAMES, EXIT_NAME, IntArray, Kind, SublayerLayout, SublayerShape, listing

SCHEMA = 1


@dataclass(frozen=True)
class BlockSizes:
    """Sizes of a `GroupedLinear`: group g maps `columns[g]` inputs to `parts` times `rows[g]` outputs."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    parts: int = 1
    rest: int = 0
    """Outputs in no group: they are their bias."""
    gather: bool = False
    scatter: bool = False


class GroupedLinear(nn.Module):
    """A linear layer of G blocks: y_g = x_g W_g^T + b_g, inputs gathered by `gather`, outputs scattered by `scatter`.

    With `parts` > 1 each block stacks the rows of several matrices that read the same inputs (query, key and value).
    """

    gather: Tensor | None
    scatter: Tensor | None

    def __init__(self, sizes: BlockSizes) -> None:
        super().__init__()
        self.sizes = sizes
        pairs = list(zip(sizes.rows, sizes.columns, strict=True))
        self.weights = nn.ParameterList([nn.Parameter(torch.empty(sizes.parts * r, c)) for r, c in pairs])
        outputs = sizes.parts * sum(sizes.rows) + sizes.rest
        self.bias = nn.Parameter(torch.empty(outputs))  # groups one after another, then the rest
        self.register_buffer("gather", torch.empty(sum(sizes.columns), dtype=torch.int64) if sizes.gather else None)
        self.register_buffer("scatter", torch.empty(outputs, dtype=torch.int64) if sizes.scatter else None)

    def blocks(self, x: Tensor) -> list[Tensor]:
        """(..., inputs) -> one (tokens, parts * rows[g]) per group."""
        x = x.flatten(0, -2)  # two dimensions: a slice of columns then needs no copy before the product
        if self.gather is not None:
            x = x.index_select(1, self.gather)
        inputs = x.split(self.sizes.columns, dim=1)
        biases = self.bias.split([*(self.sizes.parts * r for r in self.sizes.rows), self.sizes.rest])
        return [F.linear(i, w, b) for i, w, b in zip(inputs, self.weights, biases, strict=False)]

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs), for `parts` = 1."""
        outputs = self.blocks(x)
        if self.sizes.rest:
            outputs.append(self.bias[-self.sizes.rest :].expand(outputs[0].shape[0], -1).to(outputs[0].dtype))
        y = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)
        if self.scatter is not None:
            y = y.index_select(1, self.scatter)
        output: Tensor = y.unflatten(0, x.shape[:-1])
        return output

    def forward_parts(self, x: Tensor) -> tuple[Tensor, ...]:
        """(..., inputs) -> `parts` tensors (..., sum of rows), each with the groups one after another."""
        by_group = [block.chunk(self.sizes.parts, dim=1) for block in self.blocks(x)]
        return tuple(torch.cat(part, dim=1).unflatten(0, x.shape[:-1]) for part in zip(*by_group, strict=True))


class Constant(nn.Module):
    """What is left of a dropped sublayer before its LayerNorm: a bias, whatever the input."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.empty(size))

    def forward(self, x: Tensor) -> Tensor:
        return self.bias.expand(*x.shape[:-1], -1)


@dataclass(frozen=True, eq=False)
class PrunedSublayer:
    """The modules of one pruned sublayer; `entry` is None when it is dropped."""

    layout: SublayerLayout
    entry: GroupedLinear | None
    exit: GroupedLinear | Constant
    mix: Mix

    def hidden(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, L, hidden) -> (B, L, kept inner), what the exit reads: the kept units, group by group."""
        if self.entry is None:
            return x
        return self.mix(self.entry.forward_parts(x), mask)

    def __call__(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, L, hidden) -> (B, L, hidden), before residual and LayerNorm."""
        output: Tensor = self.exit(self.hidden(x, mask))
        return output


# --- building ------------------------------------------------------------------------------------------------------


def block_sizes(layout: SublayerLayout) -> tuple[BlockSizes, BlockSizes]:
    """Sizes of the entry and the exit of a sublayer that is not dropped."""
    shape = layout.shape
    units = tuple(len(g.units) * shape.width for g in layout.groups)
    columns = tuple(len(g.columns) for g in layout.groups)
    rows = tuple(len(g.rows) for g in layout.groups)
    entry = BlockSizes(
        units, columns, len(ENTRY_NAMES[shape.kind]), gather=not _in_order([g.columns for g in layout.groups], shape)
    )
    in_order = _in_order([g.rows for g in layout.groups], shape)
    return entry, BlockSizes(rows, units, rest=shape.hidden - sum(rows), scatter=not in_order)


def empty_sublayer(layout: SublayerLayout, mix: Mix) -> PrunedSublayer:
    """The modules of `layout` with uninitialized weights and with its permutations set."""
    if layout.dropped:
        return PrunedSublayer(layout, None, Constant(layout.shape.hidden), mix)
    entry_sizes, exit_sizes = block_sizes(layout)
    entry, exit_ = GroupedLinear(entry_sizes), GroupedLinear(exit_sizes)
    if entry.gather is not None:
        entry.gather = torch.from_numpy(np.concatenate([g.columns for g in layout.groups]))
    if exit_.scatter is not None:
        exit_.scatter = torch.from_numpy(np.argsort(exit_order(layout)))
    return PrunedSublayer(layout, entry, exit_, mix)


@torch.no_grad()
def cut(sublayer: Sublayer, layout: SublayerLayout) -> PrunedSublayer:
    """The dense sublayer with everything outside the groups removed; biases as they were, none where it is dropped."""
    device = sublayer.exit.weight.device
    pruned = empty_sublayer(layout, sublayer.mix)
    pruned.exit.to(device)
    if pruned.entry is None or isinstance(pruned.exit, Constant):
        pruned.exit.bias.zero_()
        return pruned
    pruned.entry.to(device)
    weight, bias = stacked_entry(sublayer)
    exit_weight, exit_bias = sublayer.exit.weight, sublayer.exit.bias
    order = torch.from_numpy(exit_order(layout)).to(device)
    for g, group in enumerate(layout.groups):
        rows = entry_rows(layout, g).to(device)
        inner = torch.from_numpy(layout.unit_rows(group)).to(device)
        pruned.entry.weights[g].copy_(weight[rows][:, torch.from_numpy(group.columns).to(device)])
        pruned.exit.weights[g].copy_(exit_weight[torch.from_numpy(group.rows).to(device)][:, inner])
    pruned.entry.bias.copy_(torch.cat([bias[entry_rows(layout, g).to(device)] for g in range(len(layout.groups))]))
    pruned.exit.bias.copy_(exit_bias[order])
    return pruned


def stacked_entry(sublayer: Sublayer) -> tuple[Tensor, Tensor]:
    """The entry matrices one below the other, (parts * inner, hidden), and their biases, (parts * inner,)."""
    weight = torch.cat([entry.weight for entry in sublayer.entries]).detach()
    return weight, torch.cat([entry.bias for entry in sublayer.entries]).detach()


def entry_rows(layout: SublayerLayout, group: int) -> Tensor:
    """(parts * units * width,) rows of `stacked_entry` that block `group` of the entry holds, in its order."""
    rows = layout.unit_rows(layout.groups[group])
    parts = len(ENTRY_NAMES[layout.shape.kind])
    return torch.from_numpy(np.concatenate([rows + part * layout.shape.inner for part in range(parts)]))


def exit_order(layout: SublayerLayout) -> IntArray:
    """(hidden,) original output at each place of the exit's bias: the groups one after another, then the rest."""
    return listing([g.rows for g in layout.groups], layout.shape.hidden)


def install(model: nn.Module, sublayers: Sequence[Sublayer], pruned: Sequence[PrunedSublayer]) -> nn.Module:
    """A copy of `model` whose encoder runs the pruned sublayers (in the order of `sublayers`)."""
    # the dense matrices are not copied, only to be thrown away
    memo = {id(module): module for sub in sublayers for module in (*sub.entries, sub.exit)}
    smaller = copy.deepcopy(model, memo)
    for sub, new in zip(sublayers, pruned, strict=True):
        _replace(smaller, sub.layer, new)
    return smaller.eval()


def _replace(model: nn.Module, layer: int, new: PrunedSublayer) -> None:
    kind = new.layout.shape.kind
    entry: nn.Module | None = new.entry
    if kind == "attention" and new.entry is not None:
        entry = grouped_attention(model, new.entry, new.layout.shape.width)
    replace_sublayer(model, layer, kind, entry, new.exit)


def _in_order(groups: Sequence[IntArray], shape: SublayerShape) -> bool:
    return np.array_equal(np.concatenate(groups), np.arange(shape.hidden))


# --- saving and loading --------------------------------------------------------------------------------------------


def save_pruned(model: nn.Module, layouts: Sequence[tuple[int, SublayerLayout]], path: Path) -> None:
    """Write config.json, model.safetensors and the manifest pgb.json into folder `path`; no tokenizer."""
    path.mkdir(parents=True, exist_ok=True)
    config: Any = model.config
    values = config.to_dict() | {"model_type": PRUNED_TYPE, "architectures": ["PGBBertForSequenceClassification"]}
    (path / "config.json").write_text(json.dumps(values, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    sublayers = [
        {
            "layer": layer,
            "kind": layout.shape.kind,
            "groups": [{"units": len(g.units), "columns": len(g.columns), "rows": len(g.rows)} for g in layout.groups],
            "gather": not layout.dropped and block_sizes(layout)[0].gather,
            "scatter": not layout.dropped and block_sizes(layout)[1].scatter,
        }
        for layer, layout in layouts
    ]
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
    try:
        with torch.device("meta"):  # sizes only: every tensor comes from the file
            for layer in range(layers):
                model.bert.encoder.layer.append(BertLayer(config, layer))
            sublayers = encoder_sublayers(model)
            for sub, entry in zip(sublayers, manifest["sublayers"], strict=True):
                if (sub.layer, sub.shape.kind) != (entry["layer"], entry["kind"]):
                    raise ValueError("sublayers out of order")
                _replace(model, sub.layer, _from_manifest(sub, entry))
        model.load_state_dict(load_file(path / "model.safetensors"), strict=True, assign=True)
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} does not fit its manifest {PRUNED_MANIFEST}; export the run again.") from error
    _refuse_unsound(path, model)
    loaded: nn.Module = model.eval()
    return loaded


def _refuse_unsound(path: Path, model: Any) -> None:
    """What has the right sizes and is wrong all the same: weights that are no numbers, indices that point nowhere."""
    hidden = model.config.hidden_size
    for name, tensor in model.state_dict().items():
        if name.endswith((".gather", ".scatter")):
            sound = tensor.dtype == torch.int64 and bool(((tensor >= 0) & (tensor < hidden)).all())
            if name.endswith(".scatter"):
                sound = sound and len(tensor.unique()) == hidden
            reason = f"holds indices that do not fit the hidden size {hidden}"
        else:
            sound, reason = bool(torch.isfinite(tensor).all()), "holds NaN or infinite values"
        if not sound:
            raise CheckpointError(f"{path}: tensor {name} {reason}; the checkpoint is damaged, export the run again.")


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((path / PRUNED_MANIFEST).read_text(encoding="utf-8"))
        schema, family = manifest["schema"], manifest["family"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is not a pruned checkpoint: it has no readable {PRUNED_MANIFEST}.") from error
    if schema != SCHEMA or family != "bert":
        raise CheckpointError(f"{path} was written by another version (schema {schema}, family {family}).")
    return manifest


def _from_manifest(sub: Sublayer, entry: dict[str, Any]) -> PrunedSublayer:
    shape, groups = sub.shape, entry["groups"]
    if not groups:
        return PrunedSublayer(SublayerLayout(shape, ()), None, Constant(shape.hidden), sub.mix)
    if any(sum(g[part] for g in groups) > shape.hidden for part in ("columns", "rows")):
        raise ValueError("groups overlap")
    units = tuple(int(g["units"]) * shape.width for g in groups)
    columns, rows = tuple(int(g["columns"]) for g in groups), tuple(int(g["rows"]) for g in groups)
    first = BlockSizes(units, columns, len(ENTRY_NAMES[shape.kind]), gather=bool(entry["gather"]))
    last = BlockSizes(rows, units, rest=shape.hidden - sum(rows), scatter=bool(entry["scatter"]))
    return PrunedSublayer(SublayerLayout(shape, ()), GroupedLinear(first), GroupedLinear(last), sub.mix)


def block_tensors(sub: Sublayer, layout: SublayerLayout) -> dict[tuple[int, Kind, str], list[tuple[str, int, int]]]:
    """Where the pruned model.safetensors holds each matrix: (tensor, first row, last row + 1) per group."""
    kind = layout.shape.kind
    entry_path = "attention.self.entry" if kind == "attention" else "intermediate.dense"
    where: dict[tuple[int, Kind, str], list[tuple[str, int, int]]] = {}
    for part, name in enumerate(ENTRY_NAMES[kind]):
        sizes = [len(g.units) * layout.shape.width for g in layout.groups]
        where[sub.layer, kind, name] = [
            (f"{sub.prefix}.{entry_path}.weights.{g}", part * size, (part + 1) * size) for g, size in enumerate(sizes)
        ]
    where[sub.layer, kind, EXIT_NAME] = [
        (f"{sub.prefix}.{sub.paths[-1]}.weights.{g}", 0, len(group.rows)) for g, group in enumerate(layout.groups)
    ]
    return where

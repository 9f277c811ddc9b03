"""What a run leaves behind: the resolved spec, result.json's parts, and the files of the pruned model."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pgb_core import __version__, evaluation, matrices, scored, store
from pgb_core.architectures import Sublayer
from pgb_core.budget import LENGTH, cost_of, table_of
from pgb_core.checkpoints import Checkpoint
from pgb_core.inspection import describe
from pgb_core.layout import Kind, Layout, untouched_layout
from pgb_core.options import TABLE_METHODS, Option, choosers
from pgb_core.saving import block_tensors, save_pruned
from pgb_core.spec import PruneSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def resolved_spec(spec: PruneSpec, checkpoint: Checkpoint, device: torch.device, max_length: int) -> dict[str, Any]:
    """The spec with everything that was left open, and what a second run needs to be the same."""
    return {
        **spec.to_dict(),
        "device": device.type,
        "max_length": max_length,
        "checkpoint_path": str(checkpoint.path),
        "checkpoint_source": checkpoint.source,
        "fingerprint": checkpoint.fingerprint,
        "revision": checkpoint.revision,
        "device_name": evaluation.device_name(device),
        "dtype": "float32",
        "threads": evaluation.cpu_threads(),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Of the libraries that decide a run's figures."""
    import transformers

    return {
        "pgb": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def sizes(dense: nn.Module, pruned: nn.Module, target: float) -> dict[str, Any]:
    """result.json's `sparsity`, `parameters` and `flops`, counted in the modules that run."""
    encoder = {"dense": evaluation.encoder_weights(dense), "pruned": evaluation.encoder_weights(pruned)}
    return {
        "sparsity": {"target": target, "achieved": 1 - encoder["pruned"] / encoder["dense"]},
        "parameters": {
            "dense": evaluation.parameters(dense),
            "pruned": evaluation.parameters(pruned),
            "encoder_dense": encoder["dense"],
            "encoder_pruned": encoder["pruned"],
        },
        "flops": {
            "dense": evaluation.flops(dense, batch=1, length=128),
            "pruned": evaluation.flops(pruned, batch=1, length=128),
            "batch": 1,
            "length": 128,
        },
    }


def budget(layouts: Sequence[Layout], unit: str) -> dict[str, Any]:
    """result.json's `budget`: what the target is a share of, and how much of that is gone."""
    dense = sum(cost_of(untouched_layout(layout.shape), unit) for layout in layouts)
    return {"unit": unit, "achieved": 1 - sum(cost_of(layout, unit) for layout in layouts) / dense}


def dense_bytes(checkpoint: Path) -> int:
    """Bytes of the dense model.safetensors; of a half-precision one, what it takes in float32, as the pruned one is."""
    info = describe(checkpoint)
    return info.bytes if info.dtype == "float32" else 4 * info.parameters


def environment(device: torch.device) -> dict[str, Any]:
    """result.json's `environment`."""
    return {
        **versions(),
        "device": evaluation.device_name(device),
        "threads": evaluation.cpu_threads(),
        "peak_memory_bytes": evaluation.peak_memory_bytes(device),
    }


def describe_sublayer(sub: Sublayer, layout: Layout, importance: Mapping[str, Tensor]) -> dict[str, Any]:
    """One entry of result.json's `sublayers`."""
    total = sum(float(score.double().sum()) for score in importance.values()) or 1.0
    kept = sum(share for m in layout.matrices() for share in m.block_sums(importance[m.name].double().cpu().numpy()))
    return {
        "layer": sub.layer,
        "kind": sub.shape.kind,
        "dropped": layout.dropped,
        "tied": layout.tied,
        "label": layout.label,
        "density": layout.density,
        "kept_importance": kept / total,
        "units": {"dense": sub.shape.units, "kept": layout.kept_units},
        "matrices": [
            {
                "name": m.name,
                "rows": m.rows,
                "columns": m.columns,
                "groups": len(m.row_groups),
                "group_rows": [len(rows) for rows in m.row_groups],
                "group_columns": [len(columns) for columns in m.column_groups],
                "density": m.density,
            }
            for m in layout.matrices()
        ],
    }


def save_model(
    folder: Path,
    pruned: nn.Module,
    tokenizer: PreTrainedTokenizerFast,
    sublayers: Sequence[Sublayer],
    layouts: Sequence[Layout],
) -> None:
    """Write the pruned checkpoint into `folder`/model, which appears only when it is whole."""
    with store.new_model(folder) as partial:
        save_pruned(pruned, [(sub.layer, layout) for sub, layout in zip(sublayers, layouts, strict=True)], partial)
        tokenizer.save_pretrained(partial)


def save_layout(
    folder: Path,
    sublayers: Sequence[Sublayer],
    layouts: Sequence[Layout],
    importance: Sequence[Mapping[str, Tensor]],
) -> None:
    """Write the permutations, groups and importance of every matrix into run folder `folder`."""
    dense_tensors: dict[tuple[int, Kind, str], str] = {}
    blocks: dict[tuple[int, Kind, str], list[tuple[str, int, int]]] = {}
    scores: dict[tuple[int, Kind, str], Any] = {}
    for sub, layout, entry in zip(sublayers, layouts, importance, strict=True):
        blocks |= block_tensors(sub, layout)
        dense_tensors |= {(*sub.key, name): sub.tensor_name(name) for name in sub.shape.matrices}
        scores |= {(*sub.key, name): score.float().cpu().numpy() for name, score in entry.items()}
    pairs = [(sub.layer, layout) for sub, layout in zip(sublayers, layouts, strict=True)]
    matrices.write_layout(folder, pairs, dense_tensors, blocks, scores)


def save_options(
    folder: Path,
    sublayers: Sequence[Sublayer],
    tables: Sequence[Sequence[Option]],
    chosen: Sequence[int],
    spec: PruneSpec,
) -> None:
    """Write the option table of every sublayer, and which option was chosen, into run folder `folder`.

    Beside its own values an option has its `flops`, its `group_units` (heads or neurons in each group), the `methods`
    that may choose it, and whether the constraints of the run's `spec` admit it: a table is shared by several methods,
    and holds what any of them may choose.
    """
    entries = []
    for sub, table, option in zip(sublayers, tables, chosen, strict=True):
        offers = table_of(sub.layer, [(entry.layout, entry.loss) for entry in table], spec.budget).offers
        options = [
            {
                **found,
                "methods": choosers(entry.layout) if spec.method in TABLE_METHODS else [spec.method],
                "admitted": spec.constraints.admit(sub.layer, sub.shape.kind, offer.groups, offer.units),
            }
            for entry, offer, found in zip(table, offers, _described(sub, table), strict=True)
        ]
        entries.append({"layer": sub.layer, "kind": sub.shape.kind, "chosen": option, "options": options})
    store.write_json(folder / "options.json", {"schema": store.SCHEMA, "sublayers": entries})


def _described(sub: Sublayer, table: Sequence[Option]) -> list[dict[str, Any]]:
    """The options of a sublayer as they are written."""
    return [
        {
            **entry.to_dict(),
            "flops": cost_of(entry.layout, "flops"),
            "group_units": [len(rows) // sub.shape.width for rows in entry.layout.matrices()[0].row_groups],
        }
        for entry in table
    ]


def save_record(
    runs_dir: Path,
    resolved: Mapping[str, Any],
    checkpoint: Checkpoint,
    dense: nn.Module,
    sublayers: Sequence[Sublayer],
    tables: Sequence[Sequence[Option]],
) -> str:
    """Leave the scored record of a shared table; returns its key.

    Args:
        resolved: the spec as `resolved_spec` gives it.
    """
    entries = []
    for sub, table in zip(sublayers, tables, strict=True):
        found = zip(table, _described(sub, table), strict=True)
        options = [{**values, "methods": choosers(entry.layout)} for entry, values in found]
        entries.append((sub.layer, sub.shape, options))
    sizes = {
        "parameters": evaluation.parameters(dense),
        "flops": evaluation.flops(dense, batch=1, length=LENGTH),
        "bytes": dense_bytes(checkpoint.path),
    }
    return scored.write(runs_dir, resolved, sizes, entries)

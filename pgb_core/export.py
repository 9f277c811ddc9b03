"""Taking a model along: a folder that transformers loads without this package, or an ONNX graph, with a model card.

What is written appears in its place only when it is whole. Importing this module imports neither torch nor
transformers.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgb_core import checkpoints, store
from pgb_core.errors import CheckpointError, RunError, SpecError
from pgb_core.families import FAMILIES, auto_map, portable_files
from pgb_core.layout import UNIT_NAMES
from pgb_core.model_card import Facts, model_card
from pgb_core.progress import Step, silent

if TYPE_CHECKING:
    from torch import nn

FORMATS: dict[str, str] = {
    "safetensors": "A folder that transformers loads without this package.",
    "onnx": "An ONNX graph for any batch and length, also of a dense checkpoint.",
}
"""Formats by name, each with the sentence that `--help` shows."""


@dataclass(frozen=True)
class Source:
    """What is exported: the folder of a model, and the run that made it, where that is known."""

    model: Path
    run: store.Run | None


def export(run_or_model: Path, out: Path, format: str, step: Step = silent) -> dict[str, Any]:  # noqa: A002
    """Write the model of a run folder, or of a model folder, into the new folder `out`; what was written.

    >>> export(Path("runs/first"), Path("pruned"), "onnx")["files"]["model.onnx"]  # doctest: +SKIP
    62134526

    Args:
        format: one of `FORMATS`.

    Returns:
        `format`, `folder` and `files`, the bytes of each file by its name.

    Raises:
        SpecError: there is no such format.
        RunError: there is nothing to export, the run is not finished, or `out` is in use.
        CheckpointError: the model cannot be loaded, or it is dense and the format is for pruned ones.
    """
    if format not in FORMATS:
        raise SpecError(f"format {format!r} is none of {', '.join(FORMATS)}.")
    source = _find(run_or_model)
    write = {"safetensors": _write_folder, "onnx": _write_onnx}[format]
    with _new_folder(out) as part:
        step(0, 10, "loading the model")
        tokenizer = checkpoints.load_tokenizer(source.model)
        model = write(source, part, step)
        for key in ("auto_map", "is_local", "local_files_only"):  # foreign code; how and where it was loaded here
            tokenizer.init_kwargs.pop(key, None)
        tokenizer.save_pretrained(part)
        (part / "README.md").write_text(_card(format, source, model), encoding="utf-8")
        files = {file.name: file.stat().st_size for file in sorted(part.iterdir())}
    step(10, 10, "done")
    return {"format": format, "folder": str(out), "files": files}


def _find(path: Path) -> Source:
    run = store.run_at(path.resolve())
    if run is None:
        checkpoints.describe(path)  # says what is wrong with what is no model either
        return Source(path, None)
    if run.status.state != "done":
        raise RunError(f"run {run.id} is {run.status.state}; only a run that is done can be exported.")
    return Source(run.model_dir, run)


@contextlib.contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` to write into, which takes its place at the end; after an error nothing remains.

    Raises:
        RunError: `out` is there and is not an empty folder.
    """
    place = out.resolve()
    if place.exists() and not (place.is_dir() and not any(place.iterdir())):
        raise RunError(f"{out} is there already; choose a new or empty folder for --out.")
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
    part.mkdir()
    try:
        yield part
        part.replace(place)
    finally:
        shutil.rmtree(part, ignore_errors=True)


# --- what goes into the folder -------------------------------------------------------------------------------------


def _write_folder(source: Source, part: Path, step: Step) -> nn.Module:
    """config.json, weights, manifest and the files that run them. Written anew from what passed all checks."""
    from pgb_core.saving import load_pruned, write_manifest, write_weights

    info = checkpoints.describe(source.model)
    if not info.pruned:
        raise CheckpointError(
            f"{source.model.name} is a dense {FAMILIES[info.family].title}, which transformers loads as it is; export "
            "it with --format onnx, or a run of it."
        )
    model = load_pruned(source.model)
    step(4, 10, "writing the weights")
    config: Any = model.config
    config.architectures, config.auto_map = [type(model).__name__], auto_map(info.family, info.head)
    config.save_pretrained(part)
    write_weights(model, part)
    shutil.copymode(part / "config.json", part / "model.safetensors")  # else only its owner could read it
    write_manifest(info.family, config.sublayers, part)
    for name in portable_files(info.family):
        shutil.copyfile(Path(__file__).with_name(name), part / name)
    return model


def _write_onnx(source: Source, part: Path, step: Step) -> nn.Module:
    """The graph, and a config.json for what reads labels and sizes there."""
    if missing := [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]:
        raise SpecError(f"format onnx needs {' and '.join(missing)}; install what requirements.txt lists.")
    from pgb_core.architectures import dense_config
    from pgb_core.evaluation import load_any
    from pgb_core.inspection import read_config
    from pgb_core.onnx_graph import TOLERANCE, largest_difference, write_graph

    model = load_any(source.model).float()
    step(2, 10, "writing the graph")
    write_graph(model, part / "model.onnx")
    step(8, 10, "comparing it with torch")
    difference = largest_difference(model, part / "model.onnx")
    if not difference <= TOLERANCE:  # NaN included
        raise CheckpointError(
            f"the graph's logits are {difference:.1e} from torch's, more than {TOLERANCE:.0e}; nothing was written."
        )
    family = checkpoints.describe(source.model).family
    dense_config(family, read_config(source.model / "config.json")).save_pretrained(part)
    return model


def _card(format_: str, source: Source, model: nn.Module) -> str:
    info = checkpoints.describe(source.model)
    spec, result = (None, None) if source.run is None else (source.run.spec, source.run.result)
    return model_card(Facts(format_, info, _kept(model) if info.pruned else [], spec, result))


def _kept(model: nn.Module) -> list[tuple[str, str]]:
    """What is left of the attention and of the feed-forward of each layer of a pruned model, in words."""
    from pgb_core.architectures import all_shapes, pruned_modules
    from pgb_core.pgb_blocks import Constant

    config: Any = model.config
    words = []
    for shape, sizes, (entry, exit_) in zip(all_shapes(config), config.sublayers, pruned_modules(model), strict=True):
        if entry is None or isinstance(exit_, Constant):
            words.append("dropped")
            continue
        linears = (*entry.linears, exit_)
        held = sum(weight.numel() for linear in linears for weight in linear.weights)
        share = (held - sum(linear.removed for linear in linears)) / shape.weights
        groups = [len(linear.weights) for linear in linears]
        if share == 1:
            words.append("whole")
        elif held == shape.weights:
            words.append(f"{share:.1%}, zeros elsewhere")
        elif "matrices" in sizes:
            words.append(f"{share:.1%}: each matrix in groups of its own ({', '.join(map(str, groups))})")
        else:
            units = f"{entry.part_size // shape.width} of {shape.units} {UNIT_NAMES[shape.kind]}"
            words.append(f"{share:.1%}: {units}" + (f" in {groups[0]} groups" if groups[0] > 1 else ""))
    return list(zip(words[::2], words[1::2], strict=True))

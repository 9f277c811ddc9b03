"""How much faster a pruned model is, beside its arithmetic and beside what one could do instead.

    python -m benchmarks.latency [--model base demo] [--densities 0.5,0.25,0.12] [--groups 1,2,4,8]
        [--engines eager,compiled,onnxruntime] [--batch 8] [--length 128] [--threads N] [--layers 12]

`base` has the shape of BERT-base and random weights, `demo` is the demo checkpoint. Every sublayer keeps the same share
of its weights, in so many equal groups, so that nothing is dropped and nothing untouched: the hardest case for the
execution. A density and a number of groups need heads or neurons enough: G groups that keep everything have density
1/G. Beside them stand the same density as zeros in the dense matrices, and the dense model with dynamic int8.

All models of an engine take turns in one process; speed-ups are ratios of medians. Prints Markdown and writes OUT.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from benchmarks.permutation import markdown
from pgb_core import checkpoints, evaluation, latency
from pgb_core.architectures import encoder_sublayers
from pgb_core.grouped import cut, install
from pgb_core.grouping import equal_shares, sizes
from pgb_core.latency import Forward, Shape
from pgb_core.layout import Group, SublayerLayout, SublayerShape

ENGINES = ("eager", "compiled", "onnxruntime")
DENSE, ZEROS, INT8 = "dense", "zeros", "int8"
MODELS = 64
"""Most models of one table."""


@dataclass(frozen=True)
class Entry:
    """One model of the table."""

    name: str
    model: nn.Module
    density: float = 1.0
    groups: int | None = None


# --- the models ----------------------------------------------------------------------------------------------------


def base_model(layers: int) -> nn.Module:
    """BERT-base with random weights and `layers` layers."""
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(num_hidden_layers=layers, num_labels=2)).eval()


def demo_model() -> nn.Module:
    """The demo checkpoint of BBC news."""
    model: nn.Module = checkpoints.load_model(checkpoints.resolve("demo", "bbc-news").path).eval()
    return model


def uniform_layout(shape: SublayerShape, density: float, groups: int, seed: int) -> SublayerLayout | None:
    """`groups` random equal groups that keep `density` of the weights; None where that is more than they hold."""
    count = round(density * groups * shape.units)
    if not groups <= count <= shape.units:
        return None
    rng = np.random.default_rng(seed)
    shares = equal_shares(groups)

    def parts(chosen: np.ndarray, total: int) -> list[np.ndarray]:
        return np.split(chosen, np.cumsum(sizes(total, shares))[:-1])

    hidden = np.arange(shape.hidden)
    units = parts(rng.permutation(shape.units)[:count], count)
    # one group reads and writes everything, in the order in which it is there
    columns, rows = (parts(rng.permutation(hidden) if groups > 1 else hidden, shape.hidden) for _ in range(2))
    return SublayerLayout(shape, tuple(Group(*group) for group in zip(units, columns, rows, strict=True)))


def pruned_model(dense: nn.Module, density: float, groups: int) -> nn.Module | None:
    """`dense` with that layout in every sublayer."""
    sublayers = encoder_sublayers(dense)
    layouts = [uniform_layout(sub.shape, density, groups, seed) for seed, sub in enumerate(sublayers)]
    if any(layout is None for layout in layouts):
        return None
    pairs = [(sub, layout) for sub, layout in zip(sublayers, layouts, strict=True) if layout is not None]
    return install(dense, sublayers, [cut(sub, layout) for sub, layout in pairs])


def masked_model(dense: nn.Module, density: float) -> nn.Module:
    """`dense` with zeros in the place of the smallest weights of each matrix."""
    masked = copy.deepcopy(dense)
    for sub in encoder_sublayers(masked):
        for linear in (*sub.entries, sub.exit):
            weight = linear.weight.data
            threshold = weight.abs().flatten().kthvalue(max(1, round((1 - density) * weight.numel()))).values
            weight[weight.abs() <= threshold] = 0
    return masked


def int8_model(dense: nn.Module) -> nn.Module:
    """`dense` with dynamically quantized linear layers."""
    with warnings.catch_warnings():  # deprecated, and still what torch has for a CPU
        warnings.simplefilter("ignore")
        quantized: nn.Module = torch.ao.quantization.quantize_dynamic(dense, {nn.Linear}, dtype=torch.qint8)
    return quantized


def entries(dense: nn.Module, densities: list[float], groups: list[int], engine: str) -> Iterator[Entry]:
    """The dense model, the pruned ones, and what one could do instead."""
    yield Entry(DENSE, dense)
    for density in densities:
        for count in groups:
            model = pruned_model(dense, density, count)
            if model is not None:
                yield Entry(f"{count} group{'s' if count > 1 else ''}", model, density, count)
        if engine == "eager":
            yield Entry(ZEROS, masked_model(dense, density), density)
    if engine == "eager":
        yield Entry(INT8, int8_model(dense))


def forward_of(model: nn.Module, engine: str, folder: Path, threads: int) -> Forward:
    """How `engine` runs `model`; `folder` is for what it has to write."""
    if engine == "onnxruntime":
        return latency.onnx_forward_of(model, folder, threads)
    if engine == "compiled":
        torch._dynamo.config.recompile_limit = MODELS  # noqa: SLF001  # they share code, and differ in shapes
        return latency.forward_of(torch.compile(model, fullgraph=True))  # type: ignore[arg-type]
    return latency.forward_of(model)


# --- measuring -----------------------------------------------------------------------------------------------------


def measure(
    model: nn.Module, engine: str, densities: list[float], groups: list[int], shape: Shape, threads: int, rounds: int
) -> list[dict[str, Any]]:
    """One row per model."""
    found = {f"{entry.name} {entry.density:g}": entry for entry in entries(model, densities, groups, engine)}
    inputs = latency.random_inputs(model, shape)
    with tempfile.TemporaryDirectory() as folder:
        forwards = {
            name: forward_of(entry.model, engine, Path(folder, str(n)), threads)
            for n, (name, entry) in enumerate(found.items())
        }
        times = latency.take_turns(forwards, dict.fromkeys(found, inputs), threads=threads, rounds=rounds)
    dense = times[f"{DENSE} 1"]
    rows = []
    for name, entry in found.items():
        speedup = float(np.median(dense) / np.median(times[name]))
        row: dict[str, Any] = {"engine": engine, "name": entry.name, "density": entry.density, "speedup": speedup}
        if entry.groups:
            arithmetic = (evaluation.flops(m, batch=shape.batch, length=shape.length) for m in (model, entry.model))
            first, second = arithmetic
            row |= {"groups": entry.groups, "ideal": first / second, "share": speedup * second / first}
        rows.append({**row, **latency.summary(times[name])})
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows of one model and engine, in Markdown."""
    head = ["model", "density", "median ms", "10 to 90 %", "speed-up", "ideal", "of ideal"]
    lines = [
        [
            row["name"],
            f"{row['density']:g}",
            f"{row['median_ms']:.1f}",
            f"{row['p10_ms']:.1f} to {row['p90_ms']:.1f}",
            f"{row['speedup']:.2f}x",
            f"{row['ideal']:.2f}x" if "ideal" in row else "",
            f"{row['share']:.2f}" if "share" in row else "",
        ]
        for row in rows
    ]
    return markdown([head, *lines])


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])

    def listed(kind: type) -> Any:
        return lambda text: [kind(part) for part in text.split(",")]

    parser.add_argument("--model", nargs="+", choices=("base", "demo"), default=["base", "demo"])
    parser.add_argument("--densities", type=listed(float), default=[0.5, 0.25, 0.12])
    parser.add_argument("--groups", type=listed(int), default=[1, 2, 4, 8])
    parser.add_argument("--engines", type=listed(str), default=list(ENGINES))
    parser.add_argument("--batch", type=int, default=latency.DEFAULT.batch)
    parser.add_argument("--length", type=int, default=latency.DEFAULT.length)
    parser.add_argument("--layers", type=int, default=12, help="of base")
    parser.add_argument("--rounds", type=int, default=latency.ROUNDS)
    parser.add_argument("--threads", type=int, default=evaluation.cpu_threads())
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/latency.json"))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    shape, results = Shape(given.batch, given.length), []
    for name in given.model:
        model = base_model(given.layers) if name == "base" else demo_model()
        for engine in given.engines:
            rows = measure(model, engine, given.densities, given.groups, shape, given.threads, given.rounds)
            results += [{"shape": name, "batch": shape.batch, "length": shape.length, **row} for row in rows]
            print(f"\n{name}, {engine}, {shape}, threads: {given.threads}\n\n{table(rows)}", flush=True)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

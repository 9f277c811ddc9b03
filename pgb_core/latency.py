"""Latency: how long a forward pass of a dense and of a pruned model takes, and how much memory, side by side.

Times on a machine that does other work cannot be compared between runs. So the models take turns, round by round, and
what counts is their ratio, beside the ratio of their FLOPs, which no execution can beat by much.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pgb_core import checkpoints
from pgb_core.architectures import input_names, max_length
from pgb_core.cache import locked
from pgb_core.errors import SpecError
from pgb_core.evaluation import choose_device, cpu_threads, device_name, flops, load_any
from pgb_core.progress import Step, part, silent
from pgb_core.settings import get_settings
from pgb_core.status import machine

ROUNDS = 15
FEWEST_ROUNDS = 5
ROUND_SECONDS = 0.05
"""What a model's turn takes at least: a quick one runs several times in it."""
SHAPE_SECONDS = 15.0
"""After so much time a shape gets `FEWEST_ROUNDS`, not `ROUNDS`."""


@dataclass(frozen=True, order=True)
class Shape:
    """What is sent through a model at once: `batch` sequences of `length` tokens, without padding."""

    batch: int
    length: int

    def __str__(self) -> str:
        return f"batch {self.batch} of {self.length} tokens"


DEFAULT = Shape(8, 128)
GRID = tuple(dict.fromkeys((DEFAULT, *(Shape(batch, length) for batch in (1, 8, 32) for length in (32, 128, 384)))))
"""From one short question to a full batch of long texts; `DEFAULT` comes first."""

Forward = Callable[[dict[str, Tensor]], object]
"""One forward pass of a model over inputs on its device."""


def random_inputs(model: nn.Module, shape: Shape) -> dict[str, Tensor]:
    """Seeded token ids, on the model's device: times do not depend on what they say."""
    config: Any = model.config
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, config.vocab_size, (shape.batch, shape.length), generator=generator)
    inputs = {name: torch.zeros_like(ids) for name in input_names(model)}
    inputs |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    device = next(model.parameters()).device
    return {name: values.to(device) for name, values in inputs.items()}


def forward_of(model: nn.Module) -> Forward:
    """The forward pass of a torch model, in eval mode and without gradients."""
    model.eval()
    return torch.inference_mode()(lambda inputs: model(**inputs))


def onnx_forward_of(model: nn.Module, folder: Path, threads: int) -> Forward:
    """The forward pass of onnxruntime, on the CPU, with the graph of a torch model, written to the new `folder`."""
    import onnxruntime

    from pgb_core.onnx_graph import output_names, write_graph

    folder.mkdir()
    file = folder / "model.onnx"
    write_graph(model, file)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    outputs = output_names(model)
    return lambda inputs: session.run(outputs, {name: values.numpy() for name, values in inputs.items()})


# --- time ----------------------------------------------------------------------------------------------------------


def take_turns(
    forwards: Mapping[str, Forward],
    inputs: Mapping[str, dict[str, Tensor]],
    *,
    threads: int,
    rounds: int = ROUNDS,
    step: Step = silent,
) -> dict[str, list[float]]:
    """Milliseconds of one forward pass of each model, one value per round.

    Each is warmed up, then all take turns, so that whatever else the machine does hits all of them. CUDA is waited for,
    and so is a measurement of another process: they would disturb each other.

    Args:
        inputs: by the names of `forwards`.
    """
    name = f"latency-{machine()}"  # machines may share the cache
    with locked(get_settings().cache_dir, name, step, "waiting for another measurement"):
        return _take_turns(forwards, inputs, threads, rounds, step)


def _take_turns(
    forwards: Mapping[str, Forward], inputs: Mapping[str, dict[str, Tensor]], threads: int, rounds: int, step: Step
) -> dict[str, list[float]]:
    from torch.utils.benchmark import Timer

    timers = {
        name: Timer("forward(inputs)", globals={"forward": forward, "inputs": inputs[name]}, num_threads=threads)
        for name, forward in forwards.items()
    }
    for timer in timers.values():
        timer.timeit(1)  # compilations, caches
    once = {name: timer.timeit(1).median for name, timer in timers.items()}
    numbers = {name: max(1, round(ROUND_SECONDS / seconds)) for name, seconds in once.items()}
    if rounds * sum(numbers[name] * once[name] for name in once) > SHAPE_SECONDS:
        rounds = min(rounds, FEWEST_ROUNDS)
    times: dict[str, list[float]] = {name: [] for name in timers}
    for n in range(rounds):
        for name, timer in timers.items():
            times[name].append(timer.timeit(numbers[name]).median * 1000)
        step(n + 1, rounds, f"round {n + 1} of {rounds}")
    return times


def summary(milliseconds: Sequence[float]) -> dict[str, float]:
    """`median_ms`, `p10_ms`, `p90_ms` and `repeats`."""
    p10, median, p90 = np.percentile(milliseconds, [10, 50, 90])
    return {"median_ms": float(median), "p10_ms": float(p10), "p90_ms": float(p90), "repeats": len(milliseconds)}


# --- memory --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def peak_bytes(model: nn.Module, inputs: dict[str, Tensor]) -> int:
    """The most memory that tensors take during a forward pass, those of the model itself included.

    On a GPU as its allocator counts it; elsewhere tensor by tensor, without the scratch memory of a single operation.
    """
    own = sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers()))
    device = next(model.parameters()).device
    model.eval()
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        model(**inputs)
        return own + int(torch.cuda.max_memory_allocated(device) - before)
    from torch.distributed._tools.mem_tracker import MemTracker

    with MemTracker() as tracker:
        model(**inputs)
    peak: dict[Any, int] = tracker.get_tracker_snapshot("peak")[device]
    return own + sum(size for kind, size in peak.items() if getattr(kind, "name", "") in ("ACT", "TEMP"))


# --- two models ----------------------------------------------------------------------------------------------------


def compare(
    dense: nn.Module,
    pruned: nn.Module,
    shapes: Sequence[Shape] = (DEFAULT,),
    *,
    threads: int | None = None,
    runtime: str = "torch",
    step: Step = silent,
) -> list[dict[str, Any]]:
    """The contract's `latency` object for each shape; `ideal_speedup` is the ratio of the FLOPs.

    Sequences are cut to as many tokens as the models have positions for. Beside the times of a torch model stand its
    `peak_bytes`.

    Args:
        runtime: one of `spec.RUNTIMES`; onnxruntime runs on the CPU, where the models must be.
    """
    cut = (Shape(shape.batch, min(shape.length, max_length(pruned))) for shape in shapes)
    fitting = list(dict.fromkeys(cut))
    threads = threads or cpu_threads()
    both = {"dense": dense, "pruned": pruned}
    with tempfile.TemporaryDirectory() as folder:
        if runtime == "torch":
            forwards = {name: forward_of(model) for name, model in both.items()}
        else:
            step(0, 1, "writing the graphs")
            forwards = {name: onnx_forward_of(model, Path(folder, name), threads) for name, model in both.items()}
        return [
            {
                **_at(shape, both, forwards, threads, part(step, n / len(fitting), (n + 1) / len(fitting)), runtime),
                "batch": shape.batch,
                "length": shape.length,
                "threads": threads,
                "device": device_name(next(pruned.parameters()).device),
                "dtype": "float32",
                "runtime": runtime,
            }
            for n, shape in enumerate(fitting)
        ]


def _at(
    shape: Shape,
    models: Mapping[str, nn.Module],
    forwards: Mapping[str, Forward],
    threads: int,
    step: Step,
    runtime: str,
) -> dict[str, Any]:
    """What one shape tells of the models `dense` and `pruned`."""

    def round_of_shape(done: int, total: int, message: str = "") -> None:
        step(done, total, f"{shape}, {message}")

    inputs = {name: random_inputs(model, shape) for name, model in models.items()}
    times = take_turns(forwards, inputs, threads=threads, step=round_of_shape)
    found: dict[str, Any] = {name: summary(ms) for name, ms in times.items()}
    if runtime == "torch":
        for name, model in models.items():
            found[name]["peak_bytes"] = peak_bytes(model, inputs[name])
    arithmetic = {name: flops(model, batch=shape.batch, length=shape.length) for name, model in models.items()}
    return {
        **found,
        "speedup": found["dense"]["median_ms"] / found["pruned"]["median_ms"],
        "ideal_speedup": arithmetic["dense"] / arithmetic["pruned"],
    }


def measure_checkpoints(
    checkpoint: str,
    *,
    against: str | None = None,
    task: str = "bbc-news",
    shapes: Sequence[Shape] = (DEFAULT,),
    threads: int | None = None,
    device: str = "auto",
    runtime: str = "torch",
    step: Step = silent,
) -> list[dict[str, Any]]:
    """Latency of a pruned checkpoint beside a dense one at each shape, as in the contract's `latency --json`.

    Args:
        against: the dense checkpoint; by default the one itself, which shows the noise of the measurement.

    Raises:
        CheckpointError: one of the checkpoints cannot be loaded.
        SpecError: a sequence is longer than the checkpoints' positions, or onnxruntime is to run on a GPU.
    """
    if runtime == "onnxruntime" and device == "cuda":
        raise SpecError("onnxruntime is timed on the CPU; choose device cpu or auto.")
    target = choose_device("cpu" if runtime == "onnxruntime" else device)
    pruned = load_any(checkpoints.resolve(checkpoint, task, step).path).to(target)
    dense = load_any(checkpoints.resolve(against or checkpoint, task, step).path).to(target)
    longest = max(shape.length for shape in shapes)
    for model in (dense, pruned):
        if longest > max_length(model):
            raise SpecError(f"length {longest} is more than the checkpoint's {max_length(model)} positions.")
    return compare(dense, pruned, shapes, threads=threads, runtime=runtime, step=step)

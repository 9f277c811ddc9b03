"""Seconds and memory of pruning a BERT of base size, beside one forward and backward pass over its calibration text.

    python -m benchmarks.pruning_time [--layers 2] [--samples 192] [--every 4] [--threads 1] [--part PART ...]

The model has the shape of BERT-base and random weights, the texts are random tokens, 1,024 samples of 128: times do not
depend on the values, so nothing is downloaded. Only `--layers` of the 12 layers are built and only `--samples` of the
samples are read; times are multiplied up. What does not grow with the samples (matrix inverses, solves in the refit)
is then counted too often, so the refit comes out a little dearer than it is. `--every 4` prices one option in four and
multiplies. `--layers 12 --samples 1024 --every 1` measures it all, in an hour on two cores.

Parts: `pass`, forward and backward with gradients for all parameters, batches of 32, measured before and after all
others; `score`; `grouping`, the candidate layouts; `tables`, their prices; `refit` at the sparsities 0.5 and 0.88;
`resolve`, the budget solved anew (not multiplied up by layers: see benchmarks/budget.py). Parts that others need run
too. CPU seconds are those of all threads; take them where the machine does other work, with `--threads 1`, as threads
that wait for each other count as well. Memory is the most that the process held during a part (Linux), less what it
held with the model loaded; it is not multiplied up, so only a run with all layers and samples tells it. Prints a
Markdown table and writes OUT.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BertConfig, BertForSequenceClassification

from benchmarks.permutation import markdown
from pgb_core import planning
from pgb_core.architectures import encoder_sublayers
from pgb_core.batching import Example, batches
from pgb_core.importance import collect_statistics, matrix_importance
from pgb_core.memory import release

LAYERS, SAMPLES, LENGTH, BATCH = 12, 1024, 128, 32
SPARSITIES = (0.5, 0.88)
METHOD = "pgb-mixed"
NEEDS = {"grouping": ["score"], "tables": ["score", "grouping"], "refit": ["score", "grouping", "tables"]}
NEEDS["resolve"] = NEEDS["refit"]
PARTS = ("pass", "score", "grouping", "tables", "refit", "resolve")
PASS_SAMPLES = 64


class Clock:
    """Seconds of each part, wall and CPU, for the whole model and all samples."""

    def __init__(self, layers: int) -> None:
        self.seconds: dict[str, dict[str, float]] = {}
        self.memory: dict[str, int] = {}
        self._layers = LAYERS / layers
        self.loaded = held()

    @contextmanager
    def part(self, name: str, samples: int = SAMPLES, every: int = 1) -> Iterator[None]:
        """Adds to part `name` what happens inside.

        `samples`: how many were read, if the time grows with them; `every`: how often it is counted.
        """
        scale = self._layers * SAMPLES / samples * every
        forget_peak()
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        found = self.seconds.setdefault(name, {"wall": 0.0, "cpu": 0.0})
        found["wall"] += scale * (time.perf_counter() - wall)
        found["cpu"] += scale * (time.process_time() - cpu)
        self.memory[name] = max(self.memory.get(name, 0), held(peak=True) - self.loaded)


_PROCESS = Path("/proc/self")


def held(*, peak: bool = False) -> int:
    """Bytes that this process holds in memory, or the most since `forget_peak`; 0 where the system does not tell."""
    file = _PROCESS / "status"
    lines = file.read_text().splitlines() if file.exists() else []
    name = "VmHWM:" if peak else "VmRSS:"
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(name)), 0)


def forget_peak() -> None:
    """Let the peak begin anew."""
    if (_PROCESS / "clear_refs").exists():
        (_PROCESS / "clear_refs").write_text("5")


def base_model(layers: int) -> BertForSequenceClassification:
    """BERT-base with random weights and `layers` layers."""
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(num_hidden_layers=layers, num_labels=2)).eval()


def random_examples(count: int) -> list[Example]:
    """`count` texts of `LENGTH` random tokens."""
    ids = np.random.default_rng(0).integers(1000, 30_000, (count, LENGTH))
    return [Example(tuple(row), (0,) * LENGTH, n % 2) for n, row in enumerate(ids.tolist())]


def training_pass(model: BertForSequenceClassification, examples: list[Example]) -> None:
    """Forward and backward over `examples`, with gradients for all parameters."""
    for batch in batches(examples, BATCH):
        model(**batch.inputs, labels=batch.labels).loss.backward()
    model.zero_grad()


def scores_of(model: BertForSequenceClassification, examples: list[Example], clock: Clock) -> planning.Scores:
    """As `planning.score`, with as large a part of the samples behind the exits' Gram matrices as all of them have."""
    sublayers = encoder_sublayers(model)
    every = planning.exit_every(SAMPLES * LENGTH, SAMPLES, sublayers)
    with clock.part("score", len(examples)):
        found = collect_statistics(
            model,
            sublayers,
            list(batches(examples, planning.BATCH, tokens=planning.batch_tokens(sublayers))),
            len(examples),
            exit_every=every,
        )
    with clock.part("score"):
        release()
        importance = [matrix_importance(sub, stats, "compensated") for sub, stats in zip(sublayers, found, strict=True)]
        release()
    return planning.Scores(model, sublayers, examples, found, importance, [stats.weights for stats in found])


def price(scores: planning.Scores, candidates: planning.Candidates, every: int, clock: Clock) -> planning.Tables:
    """The tables of one option in `every`; what is done once for all options is not multiplied."""
    extremes = [layouts[:2] for layouts in candidates]  # dropped and untouched
    with clock.part("tables", every=1 - every):
        planning.tables_of(METHOD, scores, extremes)
    few = [[*layouts[:2], *layouts[2::every]] for layouts in candidates]
    with clock.part("tables", every=every):
        return planning.tables_of(METHOD, scores, few)


def measure(layers: int, samples: int, every: int, parts: list[str]) -> dict[str, Any]:
    """Seconds of the `parts` and of those that they need, and the milliseconds of a re-solve."""
    wanted = {*parts, *(needed for part in parts for needed in NEEDS.get(part, []))}
    model, examples = base_model(layers), random_examples(samples)
    clock = Clock(layers)

    def one_pass() -> None:
        if "pass" in wanted:
            with clock.part("pass", 2 * PASS_SAMPLES):  # twice, before and after
                training_pass(model, examples[:PASS_SAMPLES])

    training_pass(model, examples[:BATCH])  # warm up
    one_pass()
    resolve_ms = None
    if "score" in wanted:
        scores = scores_of(model, examples, clock)
    if "grouping" in wanted:
        with clock.part("grouping"):
            candidates = planning.candidates_of(METHOD, scores)
    if "tables" in wanted:
        tables = price(scores, candidates, every, clock)
    if "refit" in wanted:
        scores.statistics.clear()  # as a run does
    for sparsity in SPARSITIES if "refit" in wanted else ():
        choice = planning.choose_options(scores.sublayers, tables, METHOD, planning.Goal(sparsity))
        layouts = [table[option].layout for table, option in zip(tables, choice.options, strict=True)]
        print(sparsity, [layout.label for layout in layouts], flush=True)
        with clock.part(f"refit {sparsity}", len(examples)):
            scores.refit(layouts)
    if "resolve" in wanted:
        resolve_ms = _median_ms(lambda: planning.choose_options(scores.sublayers, tables, METHOD, planning.Goal(0.7)))
    one_pass()
    return {
        "layers": layers,
        "samples": samples,
        "every": every,
        "threads": torch.get_num_threads(),
        "seconds": clock.seconds,
        "ratios": ratios(clock.seconds),
        "resolve_ms": resolve_ms,
        "memory_bytes": clock.memory,
        "model_bytes": sum(parameter.numel() * parameter.element_size() for parameter in model.parameters()),
    }


def _median_ms(function: Callable[[], object], repeats: int = 11) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times)


def ratios(seconds: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Scores, tables and one refit, without and with the grouping, over the pass; where all were measured."""
    found: dict[str, dict[str, float]] = {}
    for sparsity in SPARSITIES:
        parts = ["score", "tables", f"refit {sparsity}"]
        if not {"pass", *parts} <= set(seconds):
            continue
        for more in ([], ["grouping"]):
            found[" + ".join([*parts, *more])] = {
                kind: sum(seconds[part][kind] for part in [*parts, *more]) / seconds["pass"][kind]
                for kind in ("wall", "cpu")
            }
    return found


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--samples", type=int, default=192)
    parser.add_argument("--every", type=int, default=4)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/pruning_time.json"))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    found = measure(given.layers, given.samples, given.every, given.part)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    rows = [["part", "seconds", "CPU seconds", "of the pass", "of its CPU time", "memory above the model"]]
    whole = found["seconds"].get("pass")
    for name, took in found["seconds"].items():
        shares = [f"{took[kind] / whole[kind]:.2f}" if whole else "" for kind in ("wall", "cpu")]
        memory = f"{found['memory_bytes'][name] / 2**30:.2f} GiB"
        rows.append([name, f"{took['wall']:.0f}", f"{took['cpu']:.0f}", *shares, memory])
    rows += [[name, "", "", f"{r['wall']:.2f}", f"{r['cpu']:.2f}", ""] for name, r in found["ratios"].items()]
    print(markdown(rows))
    if found["resolve_ms"] is not None:
        print(f"\nre-solve: {found['resolve_ms']:.1f} ms")
    most = max(size for name, size in found["memory_bytes"].items() if name != "pass") / 2**30
    model = found["model_bytes"] / 2**30
    print(
        f"\npeak memory: {most:.2f} GiB above the loaded model, which has {model:.2f} GiB, "
        f"of {found['layers']} layers and {found['samples']} samples"
    )


if __name__ == "__main__":
    main()

"""How long a what-if takes: the budget of MiniLM's and BERT-base's shape, solved anew for one target and for nineteen.

    python -m benchmarks.budget [--options 120]

The tables are drawn at random; the number of options and the common divisor of their costs are what the time depends
on. Prints medians in milliseconds.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from pgb_core.budget import frontier

SHAPES = {"MiniLM": (6, 384), "BERT-base": (12, 768)}
"""Layers and hidden size."""


def tables(layers: int, hidden: int, options: int, unit: int, seed: int) -> tuple[list[list[int]], list[list[float]]]:
    """Costs, multiples of `unit`, and losses that fall with the cost, of attention and feed-forward in turn."""
    rng = np.random.default_rng(seed)
    costs, losses = [], []
    for dense in (4 * hidden * hidden, 8 * hidden * hidden) * layers:
        shares = np.sort(np.concatenate([[0.0, 1.0], rng.random(options - 2) ** 2]))
        costs.append([round(dense * share / unit) * unit for share in shares])
        loss = rng.lognormal(0, 2) * (1 - shares) ** rng.uniform(1, 4)
        losses.append((loss * rng.uniform(0.9, 1.1, options)).tolist())
    return costs, losses


def main() -> None:
    """Print one line per shape and divisor."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--options", type=int, default=120)
    options = parser.parse_args().options
    for name, (layers, hidden) in SHAPES.items():
        total = 12 * hidden * hidden * layers
        for unit in (2 * hidden, 64):  # whole neurons; groups of any size
            for targets in ([0.5], np.linspace(0.05, 0.95, 19)):
                budgets = [round(total * (1 - sparsity)) for sparsity in targets]
                times = []
                for seed in range(11):
                    costs, losses = tables(layers, hidden, options, unit, seed)
                    started = time.perf_counter()
                    frontier(costs, losses, budgets, slack=round(0.004 * total))
                    times.append(1000 * (time.perf_counter() - started))
                print(f"{name}, multiples of {unit}, {len(budgets)} targets: {statistics.median(times):.1f} ms")


if __name__ == "__main__":
    main()

"""What a sweep saves: 12 points that share their scores against 12 runs by themselves.

    OMP_NUM_THREADS=1 python -m benchmarks.sweep [--checkpoint demo --task bbc-news | --tiny] [--no-latency]

Both make the same runs in one process, so that the time to load libraries is in neither; it ends with the two times
and their ratio. Recovery, which no two points share, is left out. `--tiny` takes the checkpoint of the tests.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgb_core import PruneSpec, prune
from pgb_core.sweep import sweep
from pgb_core.sweep_spec import SweepSpec
from tests.tiny import make_tiny_checkpoint, make_tiny_csv

SPARSITIES = (0.3, 0.5, 0.65, 0.75, 0.88, 0.94)
METHODS = ("pgb", "structured")
WANTED = 2.0


def main() -> int:
    """Measure and print; fails where the sweep is not `WANTED` times as fast."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", default="demo")
    parser.add_argument("--task", default="bbc-news")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--calibration-samples", type=int, default=1024)
    parser.add_argument("--latency", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()
    common = {"calibration_samples": args.calibration_samples, "latency": args.latency}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if args.tiny:
            checkpoint, table = make_tiny_checkpoint(folder / "tiny"), make_tiny_csv(folder / "tiny.csv", rows=2000)
            base = PruneSpec(str(checkpoint), "csv", SPARSITIES[0], train_file=str(table), **common)
        else:
            base = PruneSpec(args.checkpoint, args.task, SPARSITIES[0], **common)
        spec = SweepSpec(base, SPARSITIES, METHODS)
        rows, shared = timed(lambda: sweep(spec, folder / "sweep"))
        print(f"{spec.size} points that share their scores: {shared}", flush=True)
        results, alone = timed(lambda: [prune(point, folder / f"run{n}") for n, point in enumerate(spec.points())])
    print(f"{spec.size} runs by themselves: {alone}")
    same = [row["score"] for row in rows] == [result["score"]["compensated"] for result in results]
    ratio = alone.wall / shared.wall
    verdict = "the same scores" if same else "OTHER SCORES"
    print(f"{ratio:.2f} times as fast ({alone.cpu / shared.cpu:.2f} in CPU time), {verdict} (wanted: {WANTED} times)")
    return 0 if same and ratio >= WANTED else 1


@dataclass(frozen=True)
class Cost:
    """Seconds that something took: by the clock, and of the processor, which others on the machine do not change."""

    wall: float
    cpu: float

    def __str__(self) -> str:
        return f"{self.wall:.1f} s ({self.cpu:.1f} s of CPU time)"


def timed(work: Callable[[], list[dict[str, Any]]]) -> tuple[list[dict[str, Any]], Cost]:
    """What `work` returns, and what it cost."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = work()
    return found, Cost(time.perf_counter() - wall, time.process_time() - cpu)


if __name__ == "__main__":
    sys.exit(main())

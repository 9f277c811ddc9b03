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
from pathlib import Path

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
        started = time.perf_counter()
        rows = sweep(spec, folder / "sweep")
        shared = time.perf_counter() - started
        print(f"{spec.size} points that share their scores: {shared:.1f} s", flush=True)
        started = time.perf_counter()
        results = [prune(point, folder / f"run{n}") for n, point in enumerate(spec.points())]
        alone = time.perf_counter() - started
    print(f"{spec.size} runs by themselves: {alone:.1f} s")
    same = [row["score"] for row in rows] == [result["score"]["compensated"] for result in results]
    print(
        f"{alone / shared:.2f} times as fast, {'the same' if same else 'NOT the same'} scores (wanted: {WANTED} times)"
    )
    return 0 if same and alone / shared >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())

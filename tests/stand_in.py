"""Stands in for `python -m pgb_core prune` in the tests of jobs: the real turns, cancellation and status, no pruning.

    python -m tests.stand_in RUN_DIR BEHAVIOR

The time at which it began and ended to "compute" is left in RUN_DIR/began and RUN_DIR/ended.
"""

from __future__ import annotations

import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

from pgb_core import jobs, store


def compute(run_dir: Path, behavior: str) -> None:
    (run_dir / "began").write_text(str(time.time()))
    if behavior == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if behavior == "crash":
        raise ValueError("a fault of the program")
    if behavior == "full":
        raise OSError(28, "No space left on device", str(run_dir / "model"))
    if behavior == "wait":  # until the test lets it end
        while not (run_dir / "go").exists():
            time.sleep(0.02)
    elif behavior in ("long", "stubborn"):
        time.sleep(60)
    else:
        time.sleep(float(behavior))
    (run_dir / "ended").write_text(str(time.time()))
    store.write_json(run_dir / "result.json", {})
    store.write_status(run_dir, replace(store.recorded_status(run_dir), state="done", finished=time.time()))


def main() -> None:
    run_dir, behavior = Path(sys.argv[1]), sys.argv[2]
    if behavior == "early-crash":
        sys.exit("ended before its turn")
    with jobs.cancellable(run_dir):
        try:
            jobs.wait_for_turn(run_dir)
            compute(run_dir, behavior)
        except BaseException as error:
            jobs.settle(run_dir, error)
            raise


if __name__ == "__main__":
    main()

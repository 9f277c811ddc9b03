"""Stands in for the processes of a worker in the tests of jobs: real turns, cancellation and status, no pruning.

    python -m tests.stand_in worker [--lock=N]    the real worker, whose runs are:
    python -m tests.stand_in run RUN_DIR          what the run's checkpoint names: a time in seconds, or a behavior

The time at which a run began and ended to "compute" is left in RUN_DIR/began and RUN_DIR/ended.
"""

from __future__ import annotations

import argparse
import logging
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from pgb_core import ending, store
from pgb_core.settings import get_settings

WORKER = (sys.executable, "-m", "tests.stand_in", "worker")


def command(run_dir: Path, device: str) -> list[str]:
    """The command line of a run, for the worker."""
    if store.read_json(run_dir / "spec.json")["checkpoint"] == "no-program":
        return ["/no-such-program"]
    return [sys.executable, "-m", "tests.stand_in", "run", str(run_dir)]


def compute(run_dir: Path, behavior: str) -> None:
    with (run_dir / "began").open("a") as file:
        print(time.time(), file=file)
    if behavior == "crash":
        raise ValueError("a fault of the program")
    if behavior == "full":
        raise OSError(28, "No space left on device", str(run_dir / "model"))
    if behavior == "memory":
        resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))
        print(len(bytearray(2**32)))
    if behavior == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if behavior == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if behavior == "family":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        (run_dir / "child").write_text(str(subprocess.Popen(["sleep", "61"]).pid))
    if behavior == "wait":  # until the test lets it end
        while not (run_dir / "go").exists():
            time.sleep(0.02)
    else:
        time.sleep(60 if behavior in ("long", "stubborn", "family") else float(behavior))
    (run_dir / "ended").write_text(str(time.time()))
    store.write_json(run_dir / "result.json", {"behavior": behavior})
    store.write_status(run_dir, replace(store.recorded_status(run_dir), state="done", finished=time.time()))


def run(run_dir: Path) -> None:
    behavior = store.read_json(run_dir / "spec.json")["checkpoint"]
    if behavior == "early-crash":
        sys.exit("ended before it began")
    with ending.cancellable(run_dir):
        try:
            store.claim(run_dir)
            compute(run_dir, behavior)
        except BaseException as error:
            ending.settle(run_dir, error)
            raise


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=("worker", "run"))
    parser.add_argument("run_dir", type=Path, nargs="?")
    parser.add_argument("--lock", type=int)
    parser.add_argument("--jobs", type=int)
    args = parser.parse_args()
    if args.role == "run":
        run(args.run_dir)
        return
    from pgb_core.worker import serve

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    serve(get_settings().runs_dir, jobs=args.jobs, lock=args.lock, command=command)


if __name__ == "__main__":
    main()

"""The real `python -m pgb_core prune`, held at the beginning of a stage so that a fault hits it there.

    python -m tests.faults.held worker [--lock=N]      the real worker, whose runs are:
    python -m tests.faults.held run HOLD ARGUMENTS...  the command with these arguments, as file HOLD says

HOLD has the name of a stage, at which the run waits for as long as the file is there, or `memory STAGE`: from there on
the process gets hardly more memory. Without the file nothing is held. A run whose checkpoint is not a folder is one of
`tests.stand_in`, which is quick.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from pathlib import Path

import psutil

from pgb_core import __main__ as command_line
from pgb_core import store
from pgb_core.commands import command_of
from pgb_core.progress import Reporter, Step
from pgb_core.settings import get_settings
from tests import stand_in

WORKER = (sys.executable, "-m", "tests.faults.held", "worker")
MORE_BYTES = 4_000_000


def hold_file(runs_dir: Path) -> Path:
    return runs_dir.parent / "hold"


def command(run_dir: Path, device: str) -> list[str]:
    """The command line of a run, for the worker."""
    if not Path(store.read_json(run_dir / "spec.json")["checkpoint"]).is_dir():
        return stand_in.command(run_dir, device)
    arguments = command_of(run_dir, device)[3:]
    return [sys.executable, "-m", "tests.faults.held", "run", str(hold_file(run_dir.parent)), *arguments]


def run(hold: Path, arguments: list[str]) -> int:
    begin = Reporter.stage

    def stage(self: Reporter, name: str) -> Step:
        step = begin(self, name)
        asked = hold.read_text() if hold.exists() else ""
        if asked == f"memory {name}":
            size = psutil.Process().memory_info().vms + MORE_BYTES
            resource.setrlimit(resource.RLIMIT_AS, (size, size))
        while asked == name and hold.exists():
            time.sleep(0.05)
        return step

    Reporter.stage = stage  # type: ignore[method-assign]
    return command_line.main(arguments)


def main() -> None:
    if sys.argv[1] == "run":
        sys.exit(run(Path(sys.argv[2]), sys.argv[3:]))
    from pgb_core.worker import serve

    parser = argparse.ArgumentParser()
    parser.add_argument("--lock", type=int)
    serve(get_settings().runs_dir, lock=parser.parse_args(sys.argv[2:]).lock, command=command)


if __name__ == "__main__":
    main()

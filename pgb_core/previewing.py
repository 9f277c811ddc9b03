"""A look at a stranger's file, in a process of its own: one that unpacks to more than fits ends that, not the server.

A Parquet file of a few kilobytes can hold a billion rows, and nothing short of reading it tells. A run reads its files
in its own process anyway.
"""

from __future__ import annotations

import contextlib
import json
import resource
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from pgb_core.data_files import Preview, preview
from pgb_core.errors import TaskError

MOST_BYTES = 4 * 2**30
"""Memory that the process may allocate."""
MOST_SECONDS = 60


def preview_apart(file: Path) -> Preview:
    """As `data_files.preview`.

    Raises:
        TaskError: the file cannot be read as a table, or not with that much memory and time.
    """
    command = [sys.executable, "-m", "pgb_core.previewing", str(file)]
    too_much = TaskError(f"{file.name} takes too much memory or time to be read; give a smaller file.")
    try:
        done = subprocess.run(command, capture_output=True, timeout=MOST_SECONDS, check=True)
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
        raise too_much from error
    answer = json.loads(done.stdout)
    if "refused" in answer:
        raise TaskError(answer["refused"])
    values = {column: tuple((value, count) for value, count in pairs) for column, pairs in answer["values"].items()}
    return Preview(tuple(answer["columns"]), answer["rows"], values, answer["lengths"], frozenset(answer["numbers"]))


def main() -> None:
    """Print the preview of the file that is named, or why it is refused, as JSON."""
    with contextlib.suppress(ValueError, OSError):  # a system that cannot limit it, or limits it to less already
        resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))
    try:
        found = preview(Path(sys.argv[1]))
    except TaskError as error:
        json.dump({"refused": str(error)}, sys.stdout)
    else:
        json.dump({**asdict(found), "numbers": sorted(found.numbers)}, sys.stdout)


if __name__ == "__main__":
    main()

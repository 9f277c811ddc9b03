"""Resolves one folder after another, as a run does, and says for each how that ended and what it took.

A process of its own, so that its memory is that of the inspection and its modules are those that the inspection needs.
"""

from __future__ import annotations

import json
import re
import resource
import sys
import time
from pathlib import Path

from pgb_core.checkpoints import resolve
from pgb_core.errors import CheckpointError

FORBIDDEN = ("pickle.", "os.system", "os.exec", "os.fork", "os.spawn", "subprocess.", "socket.connect", "ctypes.dlopen")
"""Audit events that reading data never raises; `import`, `compile` and `exec` are raised by our own modules as well."""
ATTEMPTS = 3
"""The machine may be busy with other things: the best of so many counts."""


def peak() -> int:
    """Most memory that this process ever took, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would say what the process that started this one took
        return 1024 * int(re.findall(r"VmHWM:\s*(\d+) kB", status.read_text())[0])
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def main() -> None:
    resolve(sys.argv[1], "csv")  # a good one: what is loaded on first use is idle memory
    idle, known, raised = peak(), set(sys.modules), set()
    sys.addaudithook(lambda event, _: raised.add(event) if event.startswith(FORBIDDEN) else None)
    for line in sys.stdin:
        seconds = []
        for _ in range(ATTEMPTS):
            started = time.perf_counter()
            try:
                outcome = resolve(line.strip(), "csv").fingerprint
            except CheckpointError as error:
                outcome = f"refused: {error}"
            seconds.append(time.perf_counter() - started)
            if seconds[-1] < 0.5:
                break
        done = [*raised, *(set(sys.modules) - known)]
        print(json.dumps({"outcome": outcome, "seconds": min(seconds), "memory": peak() - idle, "done": done}))
        sys.stdout.flush()


if __name__ == "__main__":
    main()

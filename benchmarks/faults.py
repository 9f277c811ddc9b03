"""What becomes of runs when something breaks: every fault of `tests/faults`, those that take minutes as well.

    python -m benchmarks.faults [-k NAME]

Prints a Markdown table of all faults with their outcome and seconds, and ends with `N passed, 0 failed`; the exit code
is that of pytest. What a fault is and what must come of it is told by the test of its name.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest

from benchmarks.permutation import markdown

ROOT = Path(__file__).resolve().parent.parent
FAULTS = ("tests/faults", "tests/browser/test_restart.py")


class Table:
    """A pytest plugin that keeps what became of every test."""

    def __init__(self) -> None:
        self.rows: list[list[str]] = []
        self.counts = dict.fromkeys(("passed", "failed", "skipped"), 0)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.passed:
            return
        said = str(dict(report.user_properties).get("outcome", ""))
        if report.skipped:
            said = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else "skipped"
        outcome = f"FAILED {said}".strip() if report.failed else said or "passed"
        name = report.nodeid.rpartition("::")[2].removeprefix("test_").replace("_", " ")
        self.counts[report.outcome] += 1
        self.rows.append([name, outcome, f"{report.duration:.1f}"])
        print(f"{name}: {outcome}", report.longreprtext if report.failed else "", file=sys.stderr, flush=True)


def main() -> int:
    """Run the faults and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-k", default="", help="only faults with this in their name, as for pytest")
    args = parser.parse_args()
    table = Table()
    tests = [str(ROOT / path) for path in FAULTS]
    quiet = ["-p", "no:terminal", "-o", "addopts=--strict-markers", f"--rootdir={ROOT}"]
    code = pytest.main([*tests, "--long", "-k", args.k, *quiet], [table])
    print(markdown([["fault", "outcome", "seconds"], *table.rows]))
    skipped = f", {table.counts['skipped']} skipped" if table.counts["skipped"] else ""
    print(f"\n{table.counts['passed']} passed, {table.counts['failed']} failed{skipped}")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())

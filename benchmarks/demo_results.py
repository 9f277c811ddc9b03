"""The README's table: the demo checkpoint pruned by each method at several sparsities, through the command line.

    python benchmarks/demo_results.py [--out benchmarks/results/demo]

Finished runs are kept in their folders and not repeated, so an interrupted benchmark goes on where it stopped. Prints
the table as Markdown and writes it, with the results it is made of, to OUT/demo_results.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

TASK = "bbc-news"
POINTS = [
    ("pgb", 0.5, 0),
    ("structured", 0.5, 0),
    ("pgb", 0.75, 0),
    ("structured", 0.75, 0),
    ("pgb", 0.88, 0),
    ("structured", 0.88, 0),
    ("pgb", 0.88, 2),
    ("structured", 0.88, 2),
]
"""Method, sparsity, epochs of recovery."""


def run(folder: Path, method: str, sparsity: float, epochs: int) -> dict[str, Any]:
    """The result of one point, computed unless its folder has it."""
    if not (folder / "result.json").exists():
        arguments = ["--checkpoint", "demo", "--task", TASK, "--method", method, "--sparsity", str(sparsity)]
        arguments += ["--recover-epochs", str(epochs), "--out", str(folder)]
        subprocess.run([sys.executable, "-m", "pgb_core", "prune", *arguments], check=True, stdout=subprocess.DEVNULL)
    result: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return result


def row(method: str, epochs: int, result: dict[str, Any]) -> list[str]:
    """One line of the table."""
    score, latency, sparsity = result["score"], result["latency"], result["sparsity"]
    final = "recovered" if epochs else "compensated"
    halves = result["sublayers"]
    grouped = sum(1 for half in halves if half["matrices"][0]["groups"] > 1)
    return [
        f"`{method}`",
        f"{sparsity['achieved']:.1%}",
        f"{score['dense']:.1%}",
        f"{score['masked']:.1%}",
        f"{score['compensated']:.1%}",
        f"{score['recovered']:.1%}" if epochs else "",
        f"{score['standard_error'][final]:.1%}",
        f"{grouped} / {sum(half['dropped'] for half in halves)} of {len(halves)}",
        f"{result['parameters']['pruned'] / 1e6:.1f} M",
        f"{result['bytes']['pruned'] / 1e6:.0f} MB",
        f"{latency['speedup']:.2f}x of {latency['ideal_speedup']:.2f}x",
        f"{result['seconds']['total']:.0f} s",
    ]


def markdown(rows: list[list[str]]) -> str:
    """`rows`, the first the head, as a Markdown table."""
    lines = ["| " + " | ".join(cells) + " |" for cells in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])


def main() -> None:
    """Run every point and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/demo"))
    out = parser.parse_args().out
    head = [
        "method", "removed", "dense", "cut", "refit", "recovered", "std. error", "grouped / dropped", "parameters",
        "file", "speed-up (ideal)", "time",
    ]  # fmt: skip
    rows, results = [head], []
    for method, sparsity, epochs in POINTS:
        result = run(out / f"{method}-{sparsity}-{epochs}", method, sparsity, epochs)
        results.append({"method": method, "recover_epochs": epochs, "result": result})
        rows.append(row(method, epochs, result))
    (out / "demo_results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(markdown(rows))


if __name__ == "__main__":
    main()

"""What the command line shows: progress on stderr, an answer on stdout, and results in words."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TextIO

from pgb_core.progress import Progress, Step


class ProgressPrinter:
    """Progress on `stream`: one line that is written anew on a terminal, else a line a second at most."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._terminal = stream.isatty()
        self._next = 0.0
        self._open = False

    def report(self, progress: Progress) -> None:
        """Show the progress of a run."""
        self._show(str(progress))

    def step(self, name: str) -> Step:
        """A step function that shows the progress of one piece of work called `name`."""

        def step(done: int, total: int, message: str = "") -> None:
            self._show(f"[{min(1.0, done / max(total, 1)):4.0%}] {name}{': ' if message else ''}{message}")

        return step

    def close(self) -> None:
        """End the line on a terminal; what is printed next begins a new one."""
        if self._open:
            self._stream.write("\n")
            self._stream.flush()
            self._open = False

    def _show(self, line: str) -> None:
        now = self._clock()
        if now < self._next:
            return
        self._next = now + (0.1 if self._terminal else 1.0)
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            self._stream.write(f"\r\x1b[2K{line[:width]}")
            self._open = True
        else:
            self._stream.write(f"{line}\n")
        self._stream.flush()


@contextlib.contextmanager
def only_the_answer_on_stdout() -> Iterator[None]:
    """Inside, whatever a library or a child process prints on stdout goes to stderr."""
    sys.stdout.flush()
    saved = os.dup(1)
    try:
        os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)


def to_json(value: object) -> str:
    """`value` as one JSON document, never with NaN."""
    return json.dumps(value, indent=2, allow_nan=False)


def describe_result(result: Mapping[str, Any]) -> str:
    """The result of a run in a few aligned lines."""
    sparsity, parameters, score = result["sparsity"], result["parameters"], result["score"]
    further = score.get("secondary") or {}
    asked = f"(asked for {sparsity['target']:.2%})"
    removed = f"{sparsity['achieved']:.2%} of the encoder weights"
    if (budget := result.get("budget", {})).get("unit") == "flops":
        removed = f"{budget['achieved']:.2%} of the encoder's FLOPs {asked}, {removed}"
    else:
        removed = f"{removed} {asked}"
    rows: list[tuple[str, ...]] = [
        ("removed", removed),
        (score["metric"], describe_score(score)),
        *((name, describe_score({**found, "samples": score["samples"]})) for name, found in further.items()),
        ("parameters", _ratio(parameters["dense"], parameters["pruned"], _millions)),
        ("FLOPs", _ratio(result["flops"]["dense"], result["flops"]["pruned"], _billions)),
        ("file size", _ratio(result["bytes"]["dense"], result["bytes"]["pruned"], _megabytes)),
    ]
    if result.get("note"):
        rows.append(("note", result["note"]))
    if result["latency"] is not None:
        rows.append(("latency", describe_latency(result["latency"])))
    if len(result.get("predictions") or {}) > 1:
        rows.append(("predicted", describe_predictions(result["predictions"])))
    rows += [("restored", describe_restored(entry)) for entry in result.get("restored", [])]
    rows.append(("took", f"{result['seconds']['total']:.0f} s"))
    return table(rows)


def describe_scoring(found: Mapping[str, Any]) -> str:
    """What a scoring did, and the key of its record."""
    done = "scored now" if found["scored"] else "scored before"
    if found["measured"]:
        done += ", latency table measured"
    return f"record {found['record']}: {done}, {found['seconds']['total']:.0f} s"


def describe_finetuned(found: Mapping[str, Any]) -> str:
    """What a fine-tuned checkpoint scores, and its folder."""
    score = f"{found['metric']} {found['score']:.4f} ±{found['standard_error']:.4f} on {found['samples']} examples"
    labels = ", ".join(found["labels"][:10])
    return f"{score}, {found['seconds']['total']:.0f} s; labels: {labels}\n{found['checkpoint']}"


def describe_score(score: Mapping[str, Any]) -> str:
    """The scores that were measured, in the order of the stages, with their standard errors."""
    errors = score.get("standard_error") or {}
    parts = []
    for stage in ("dense", "masked", "compensated", "recovered"):
        if score.get(stage) is not None:
            error = f" ±{errors[stage]:.4f}" if errors.get(stage) is not None else ""
            parts.append(f"{stage} {score[stage]:.4f}{error}")
    return f"{', '.join(parts)} on {score['samples']} examples"


def describe_predictions(predictions: Mapping[str, Mapping[str, Any] | None]) -> str:
    """The loss that the shared option tables predict for each method."""
    losses = (f"{name} {'out of reach' if p is None else format(p['loss'], '.3g')}" for name, p in predictions.items())
    return f"loss by the option tables: {', '.join(losses)}"


def describe_restored(restored: Mapping[str, Any]) -> str:
    """A sublayer that could not be dropped beside others, and why."""
    layer, kind = restored["pin"]["layer"], restored["pin"]["kind"]
    return (
        f"{layer}.{kind}: with it the drops would have lost {restored['together']:.3g} nats together, "
        f"not the {restored['alone']:.3g} of their prices"
    )


def describe_latency(latency: Mapping[str, Any], *, itself: bool = False) -> str:
    """Measured latency of two models, or of one that was measured against `itself`."""
    first, second = latency["dense"]["median_ms"], latency["pruned"]["median_ms"]
    place = (
        f"batch {latency['batch']} of {latency['length']} tokens, {latency['device']}, "
        f"{latency['threads']} thread{'' if latency['threads'] == 1 else 's'}"
    )
    if itself:
        return f"{first:.1f} ms, measured again {second:.1f} ms; {place}"
    speedup = f"{latency['speedup']:.2f}x as fast (ideal {latency['ideal_speedup']:.2f}x)"
    return f"dense {first:.1f} ms, pruned {second:.1f} ms, {speedup}; {place}"


def describe_latencies(latencies: Sequence[Mapping[str, Any]]) -> str:
    """Measured latency of two models at several shapes, as a table."""
    rows: list[tuple[str, ...]] = [("batch", "tokens", "dense ms", "pruned ms", "speed-up", "ideal", "speed-up/ideal")]
    for found in latencies:
        times = (f"{found[name]['median_ms']:.1f}" for name in ("dense", "pruned"))
        ratios = (found["speedup"], found["ideal_speedup"], found["speedup"] / found["ideal_speedup"])
        rows.append((str(found["batch"]), str(found["length"]), *times, *(f"{ratio:.2f}" for ratio in ratios)))
    return table(rows)


def describe_point(row: Mapping[str, Any]) -> str:
    """One point of a sweep in a line."""
    recovered = f", {row['recover_epochs']} epochs" if row["recover_epochs"] else ""
    name = f"{row['checkpoint']}, {row['task']}, {row['method']}, {row['sparsity']:.1%} to remove{recovered}"
    if row["seed"]:
        name += f", seed {row['seed']}"
    if row["state"] != "done":
        return f"{name}: {row['state']}{': ' if row['message'] else ''}{row['message'] or ''}"
    return f"{name}: {row['metric']} {row['score']:.4f} (dense {row['dense']:.4f})"


def describe_points(rows: Sequence[Mapping[str, Any]]) -> str:
    """The points of a sweep as a table."""
    head = ("RUN", "STATE", "CHECKPOINT", "TASK", "METHOD", "TARGET", "EPOCHS", "SEED", "SCORE", "±", "SPEED-UP")
    lines: list[tuple[str, ...]] = [head]
    for row in rows:
        found = (("score", ".4f"), ("standard_error", ".4f"), ("speedup", ".2f"))
        numbers = ("-" if row[name] is None else format(row[name], style) for name, style in found)
        texts = (row[name] for name in ("run", "state", "checkpoint", "task", "method"))
        place = (f"{row['sparsity']:.1%}", str(row["recover_epochs"]), str(row["seed"]))
        lines.append((*texts, *place, *numbers))
    return table(lines)


def describe_export(written: Mapping[str, Any]) -> str:
    """The files of an export with their sizes, and their folder."""
    rows: list[tuple[str, ...]] = [(name, f"{size:,} bytes") for name, size in written["files"].items()]
    return f"{table(rows)}\n{written['folder']}"


def table(rows: list[tuple[str, ...]]) -> str:
    """`rows` as text in aligned columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _ratio(dense: float, pruned: float, show: Callable[[float], str]) -> str:
    return f"{show(dense)} -> {show(pruned)} ({pruned / dense:.1%})"


def _millions(value: float) -> str:
    return f"{value / 1e6:.2f} M"


def _billions(value: float) -> str:
    return f"{value / 1e9:.2f} G"


def _megabytes(value: float) -> str:
    return f"{value / 1e6:.1f} MB"

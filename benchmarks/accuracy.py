"""How good each method is: the score on held-out text against the sparsity, one-shot and recovered, on the demo tasks.

    python -m benchmarks.accuracy [--tasks bbc-news,tweets] [--methods ...] [--sparsities 0.3,0.5,...] [--no-recover]
    python -m benchmarks.accuracy --report-only

Every finished point is kept as a small file below --out and not made again: a benchmark that was stopped goes on where
it was, a point at a time. Points of another checkpoint or other data are always made anew; points that other code or
libraries made are kept and marked, unless --code is given. What points share (the scoring pass and the option tables of
a task) is computed once per process, and only if a point needs it. One-shot points come first.

Prints a report in Markdown and writes it, with the figure, to OUT: report.md, accuracy.json, accuracy.html and, where
there are Playwright and a Chromium, accuracy.png (or --picture). On two CPU cores all of it takes over an hour.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy_measure import Subject, load, measure, measure_dense
from benchmarks.accuracy_points import (
    DENSE,
    EPOCHS,
    ONE_SHOT_CODE,
    RECOVERY_CODE,
    Key,
    Origin,
    Point,
    code_digest,
    commit,
    read,
    read_all,
    write,
)
from benchmarks.accuracy_report import Results, report, results_of
from benchmarks.picture import take_picture
from pgb_core import evaluation, results
from pgb_core.console import ProgressPrinter
from pgb_core.corpora import CORPORA
from pgb_core.errors import PGBError, explain
from pgb_core.figures.accuracy import Curve, Panel, accuracy_chart
from pgb_core.progress import silent
from pgb_core.spec import METHODS

SPARSITIES = (0.3, 0.5, 0.75, 0.88, 0.94)
RECOVERED_METHODS = ("pgb", "pgb-mixed", "structured", "kprune")
RECOVERED_SPARSITIES = (0.5, 0.88, 0.94)
CALIBRATION = 1024
PICTURE_WIDTH = 900
"""Pixels that a README shows."""


# --- what to make --------------------------------------------------------------------------------------------------


def plan(tasks: Sequence[str], methods: Sequence[str], sparsities: Sequence[float], recover: bool) -> list[Key]:
    """The points in the order in which they are made: the dense models, one-shot, and recovered ones last.

    The dense model is trained on as well: what recovery gives without any pruning.
    """
    one_shot = [Key(task, method, sparsity) for task in tasks for sparsity in sparsities for method in methods]
    again = [Key(task, DENSE, recovered=True) for task in tasks]
    again += [
        replace(key, recovered=True)
        for key in one_shot
        if key.method in RECOVERED_METHODS and key.sparsity in RECOVERED_SPARSITIES
    ]
    return [Key(task, DENSE) for task in tasks] + one_shot + (again if recover else [])


def folder_of(out: Path, seed: int, samples: int | None, calibration: int) -> Path:
    """Where points of these settings lie: what is tried with fewer examples does not overwrite the real ones."""
    name = f"seed-{seed}"
    name += "" if samples is None else f"-samples-{samples}"
    return out / (name + ("" if calibration == CALIBRATION else f"-calibration-{calibration}"))


@cache
def code_of(key: Key) -> str:
    """Digest of the code that decides a point: nothing of ours decides what the dense model says."""
    if key.reference:
        return ""
    return code_digest(RECOVERY_CODE, f"{EPOCHS} epochs") if key.recovered else code_digest(ONE_SHOT_CODE)


def origin_of(subject: Subject, key: Key) -> Origin:
    """What a point made now would be made of."""
    device = next(subject.model.parameters()).device
    threads = evaluation.cpu_threads()
    return Origin(
        subject.checkpoint,
        subject.data,
        code_of(key),
        results.versions(),
        commit(),
        evaluation.device_name(device),
        threads,
    )


def run(
    keys: Sequence[Key],
    subject_of: Callable[[str], Subject],
    folder: Path,
    *,
    remake: bool = False,
    tell: Callable[[str], object] = print,
) -> int:
    """Make every point of `keys` that is not in `folder`; returns how many were made.

    Args:
        keys: the dense model of a task before its other points.
        subject_of: the subject of a task, the same one each time.
        remake: also those that other code or libraries made.
        tell: gets a line for each point that was made.
    """
    made = 0
    dense_logits: dict[str, NDArray[np.float32]] = {}
    for key in keys:
        subject = subject_of(key.task)
        origin = origin_of(subject, key)
        point = read(folder / key.task / key.file)
        kept = point is not None and point.origin.comparable(origin)
        if point is None or not kept or (remake and not point.origin.same_code(origin)):
            if key.reference:
                point = measure_dense(subject, key, origin)
            else:
                point = measure(subject, key, origin, dense_logits[key.task])
            write(folder, point)
            made += 1
            spent = point.own_seconds + point.seconds.get("evaluation", 0.0)
            tell(f"{key}: {point.failure or f'{point.score:.2%}'}, {spent:.0f} s")
        if point.logits is not None:
            dense_logits[key.task] = point.logits
    return made


def stale_keys(points: Sequence[Point]) -> list[Key]:
    """Points that other code or libraries made than the present ones."""
    versions = results.versions()
    return [p.key for p in points if (p.origin.code, p.origin.versions) != (code_of(p.key), versions)]


# --- what comes out ------------------------------------------------------------------------------------------------


def panel_of(found: Results) -> Panel:
    """What the figure shows of one task."""
    curves = []
    for recovered in (False, True):
        for method in METHODS:
            settings = [sparsity for sparsity, done in found.settings() if done == recovered]
            points = [found.points.get((method, sparsity, recovered)) for sparsity in settings]
            measured = [point for point in points if point is not None and not point.failure]
            if measured:
                errors = [found.under_dense(point).error for point in measured]
                sparsities = [point.key.sparsity for point in measured]
                curves.append(Curve(method, recovered, sparsities, [point.score for point in measured], errors))
    return Panel(found.task, found.dense.score, curves)


def publish(folder: Path, picture: Path) -> str:
    """Write report and figure of all points below `folder`; returns the report, empty if there is no point."""
    points = read_all(folder)
    found = results_of(points, stale_keys(points))
    if not found:
        return ""
    text = report(found)
    (folder / "report.md").write_text(text, encoding="utf-8")
    panels = [panel_of(entry) for entry in found]
    if any(panel.curves for panel in panels):
        figure = accuracy_chart(panels)
        figure.write_json(folder / "accuracy.json")
        figure.write_html(folder / "accuracy.html")
        if not take_picture(folder / "accuracy.html", picture, PICTURE_WIDTH, int(figure.layout.height)):
            print("No picture: it takes Playwright and a Chromium.", file=sys.stderr)
    return text


# --- command line --------------------------------------------------------------------------------------------------


def listed(kind: Callable[[str], Any], allowed: Collection[Any] | None = None) -> Callable[[str], list[Any]]:
    """A type for argparse: values with commas between them, each of `allowed`."""

    def parse(text: str) -> list[Any]:
        try:
            values = [kind(part.strip()) for part in text.split(",") if part.strip()]
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers") from error
        unknown = [value for value in values if allowed is not None and value not in allowed]
        if unknown or not values:
            choices = ", ".join(map(str, allowed or ()))
            raise argparse.ArgumentTypeError(f"{text!r} is not a list of some of: {choices}")
        return list(dict.fromkeys(values))

    return parse


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--tasks", type=listed(str, CORPORA), default=list(CORPORA), help="default: all of %(default)s")
    add("--methods", type=listed(str, METHODS), default=list(METHODS), help="default: all of %(default)s")
    add("--sparsities", type=listed(float), default=list(SPARSITIES), help="default: %(default)s")
    add("--recover", action=argparse.BooleanOptionalAction, default=True, help="whether recovered points are made")
    add("--samples", type=int, help="held-out examples to use (default: all); kept apart from the real points")
    add("--calibration-samples", type=int, default=CALIBRATION, help="default: %(default)s")
    add("--seed", type=int, default=0, help="default: %(default)s")
    add("--code", action="store_true", help="make the points anew that other code or libraries made")
    add("--report-only", action="store_true", help="only report what is there")
    add("--out", type=Path, default=Path("benchmarks/results/accuracy"), help="default: %(default)s")
    add("--picture", type=Path, help="where the PNG goes (default: OUT's accuracy.png)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Make what is missing, report all that is there."""
    options = make_parser().parse_args(arguments)
    folder = folder_of(options.out, options.seed, options.samples, options.calibration_samples)
    printer = ProgressPrinter(sys.stderr)
    step = printer.step("accuracy") if sys.stderr.isatty() else silent  # a log needs the points only

    def tell(line: str) -> None:
        printer.close()
        print(line, file=sys.stderr, flush=True)

    subject_of = cache(
        partial(load, seed=options.seed, samples=options.samples, calibration=options.calibration_samples, step=step)
    )
    try:
        if not options.report_only:
            keys = plan(options.tasks, options.methods, options.sparsities, options.recover)
            run(keys, subject_of, folder, remake=options.code, tell=tell)
    except (PGBError, KeyboardInterrupt) as error:
        tell(explain(error) or str(error))
        return 1
    finally:
        printer.close()
    text = publish(folder, options.picture or folder / "accuracy.png")
    print(text or f"There is no point in {folder} yet.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

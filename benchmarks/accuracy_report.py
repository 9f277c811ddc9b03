"""What the points of `benchmarks.accuracy` say: tables in Markdown, the acceptance lines, and where groups pay.

All functions are pure. Differences are paired, in points (hundredths), with their standard errors; `2 SE` is the level
at which something is called a difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.accuracy_points import DENSE, EPOCHS, Key, Point
from pgb_core.significance import Difference, paired
from pgb_core.spec import METHODS

ERRORS = 2.0
"""Standard errors that make a difference."""
STRUCTURED = ("structured", "heads-neurons", "kwon", "kprune")
"""Methods that keep whole heads and neurons."""


# --- points of one task --------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Results:
    """The measured points of one task by method, sparsity and whether they were recovered."""

    task: str
    dense: Point
    points: Mapping[tuple[str, float, bool], Point]
    dense_recovered: Point | None = None
    stale: frozenset[Key] = frozenset()
    """Points that other code or libraries made than the present ones."""

    def settings(self) -> list[tuple[float, bool]]:
        """Sparsities, first of the one-shot points, then of the recovered ones."""
        return sorted({(sparsity, recovered) for _, sparsity, recovered in self.points}, key=lambda s: (s[1], s[0]))

    def at(self, sparsity: float, recovered: bool) -> dict[str, Point]:
        """By method: the points at one target, those that failed as well, in the order of `METHODS`."""
        found = {method: self.points.get((method, sparsity, recovered)) for method in METHODS}
        return {method: point for method, point in found.items() if point is not None}

    def under_dense(self, point: Point) -> Difference:
        """How much better than `point` the dense model is."""
        return paired(self.dense.correct, point.correct)

    def between(self, method: str, other: str, sparsity: float, recovered: bool = False) -> Difference | None:
        """How much better `method` is than `other` at one target; None where one of them is not measured."""
        pair = [self.points.get((name, sparsity, recovered)) for name in (method, other)]
        if pair[0] is None or pair[1] is None or pair[0].failure or pair[1].failure:
            return None
        return paired(pair[0].correct, pair[1].correct)


def results_of(points: Iterable[Point], stale: Iterable[Key] = ()) -> list[Results]:
    """The points by task; those that were measured on other data than the task's dense model are left out."""
    points = list(points)
    found = []
    for dense in points:
        if dense.key.reference:
            mine = [p for p in points if p.key.task == dense.key.task and p is not dense]
            mine = [p for p in mine if p.origin.comparable(dense.origin)]
            by_key = {(p.key.method, p.key.sparsity, p.key.recovered): p for p in mine}
            trained = by_key.pop((DENSE, 0.0, True), None)
            found.append(Results(dense.key.task, dense, by_key, trained, frozenset(stale)))
    return found


def ranking(points: Mapping[str, Point]) -> list[str]:
    """Methods from the highest score to the lowest; of equal ones, first what is closer to the dense model."""
    measured = [method for method, point in points.items() if not point.failure]
    return sorted(measured, key=lambda method: (-points[method].score, points[method].divergence))


# --- tables --------------------------------------------------------------------------------------------------------


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|" + " --- |" * len(head), *lines[1:]])


def overview(results: Results, recovered: bool) -> str:
    """Points under dense with their paired standard errors: a row per method, a column per sparsity."""
    sparsities = [sparsity for sparsity, done in results.settings() if done == recovered]
    best = {s: ranking(results.at(s, recovered))[:1] for s in sparsities}
    rows = []
    for method in METHODS:
        points = [results.points.get((method, sparsity, recovered)) for sparsity in sparsities]
        if not any(points):
            continue
        cells = []
        for sparsity, point in zip(sparsities, points, strict=True):
            text = "" if point is None else "-" if point.failure else _signed_under(results.under_dense(point))
            cells.append(f"**{text}**" if method in best[sparsity] else text)
        rows.append([f"`{method}`", *cells])
    return markdown(["points under dense", *(f"{sparsity:.0%} removed" for sparsity in sparsities)], rows)


def details(results: Results, recovered: bool) -> str:
    """A row per point: score, comparisons with dense and with the next best method, and how the model looks."""
    head = [
        "target", "method", "removed", "score", "under dense", "p", "next best", "ahead of it", "p", "KL",
        "predicted loss", "grouped / dropped", "seconds",
    ]  # fmt: skip
    rows = []
    for sparsity in (sparsity for sparsity, done in results.settings() if done == recovered):
        points = results.at(sparsity, recovered)
        ranked = ranking(points)
        for place, method in enumerate(ranked):
            follower = ranked[place + 1] if place + 1 < len(ranked) else None
            rows.append(_row(results, points[method], points[follower] if follower else None))
        failed = [point for point in points.values() if point.failure]
        rows += [[f"{sparsity:.0%}", _name(results, point), f"{point.failure}", *[""] * 10] for point in failed]
    return markdown(head, rows)


def _row(results: Results, point: Point, follower: Point | None) -> list[str]:
    dense = results.under_dense(point)
    ahead = paired(point.correct, follower.correct) if follower else None
    return [
        f"{point.key.sparsity:.0%}",
        _name(results, point),
        f"{point.achieved:.1%}",
        f"{point.score:.2%}",
        _signed_under(dense),
        probability(dense.p_value),
        f"`{follower.key.method}`" if follower else "",
        f"{100 * ahead.value:.2f} ± {100 * ahead.error:.2f}" if ahead else "",
        probability(ahead.p_value) if ahead else "",
        f"{point.divergence:.3f}",
        "" if point.loss is None else f"{point.loss:.3f}",
        f"{point.grouped} / {point.dropped} of {point.sublayers}",
        f"{point.own_seconds:.0f} + {point.shared_seconds:.0f}",
    ]


def _name(results: Results, point: Point) -> str:
    return f"`{point.key.method}`{' *' if point.key in results.stale else ''}"


def _signed_under(dense: Difference) -> str:
    return f"{100 * dense.value:.2f} ± {100 * dense.error:.2f}"


def probability(value: float) -> str:
    """A p-value in three characters or so."""
    return "<.001" if value < 0.001 else f"{value:.3f}".removeprefix("0")


# --- acceptance ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bar:
    """At most so many points under dense."""

    method: str
    sparsity: float
    recovered: bool
    bar: float
    stretch: float | None = None

    def __str__(self) -> str:
        return f"`{self.method}` at {self.sparsity:.0%}{' after recovery' if self.recovered else ''}"


BARS = (
    Bar("pgb-mixed", 0.5, False, 1.0, 0.3),
    Bar("pgb-mixed", 0.75, False, 2.0, 1.0),
    Bar("pgb-mixed", 0.88, False, 3.0, 1.5),
    Bar("pgb-mixed", 0.94, False, 5.5, 3.5),
    Bar("pgb-mixed", 0.5, True, 0.0),
    Bar("pgb-mixed", 0.88, True, 2.0, 1.0),
    Bar("pgb-mixed", 0.94, True, 4.0, 2.5),
    Bar("pgb", 0.5, False, 1.0, 0.2),
    Bar("pgb", 0.75, False, 3.0, 1.5),
    Bar("pgb", 0.88, False, 4.0, 2.5),
)
EVERYWHERE = (0.3, 0.5, 0.75, 0.88, 0.94)
"""Sparsities at which `pgb-mixed` must not be below a structured method."""
CLEARLY = {0.88: ("kwon", "heads-neurons")}
"""Where and what `pgb-mixed` must beat by more than `ERRORS`."""


@dataclass(frozen=True)
class Verdict:
    """One acceptance line; `passed` is None where it was not measured."""

    what: str
    found: str
    passed: bool | None
    note: str = ""


def acceptance(results: Results) -> list[Verdict]:
    """All acceptance lines for one task."""
    verdicts = [_bar(results, bar) for bar in BARS]
    for sparsity in EVERYWHERE:
        for other in STRUCTURED:
            difference = results.between("pgb-mixed", other, sparsity)
            what = f"`pgb-mixed` within {ERRORS:g} SE of `{other}` or above at {sparsity:.0%}"
            verdicts.append(_comparison(what, difference, None if difference is None else not difference.below(ERRORS)))
    for sparsity, others in CLEARLY.items():
        for other in others:
            difference = results.between("pgb-mixed", other, sparsity)
            what = f"`pgb-mixed` above `{other}` by more than {ERRORS:g} SE at {sparsity:.0%}"
            verdicts.append(_comparison(what, difference, None if difference is None else difference.above(ERRORS)))
    return verdicts


def _bar(results: Results, bar: Bar) -> Verdict:
    what = f"{bar}: at most {bar.bar:g} under dense"
    if bar.stretch is not None:
        what += f" (stretch {bar.stretch:g})"
    point = results.points.get((bar.method, bar.sparsity, bar.recovered))
    if point is None:
        return Verdict(what, "", None)
    if point.failure:
        return Verdict(what, point.failure, False)
    dense = results.under_dense(point)
    points = round(100 * dense.value, 9)  # 0.3 is not above 0.3
    note = "stretch" if bar.stretch is not None and points <= bar.stretch else ""
    return Verdict(what, _signed_under(dense), points <= bar.bar, note)


def _comparison(what: str, difference: Difference | None, passed: bool | None) -> Verdict:
    found = "" if difference is None else f"{100 * difference.value:+.2f} ± {100 * difference.error:.2f}"
    return Verdict(what, found, passed)


def acceptance_table(verdicts: Sequence[Verdict]) -> str:
    """The lines and how many of them hold."""
    words = {True: "pass", False: "FAIL", None: "not measured"}
    rows = [[v.what, v.found, words[v.passed] + (f", {v.note}" if v.note else "")] for v in verdicts]
    passed, failed = (sum(v.passed is value for v in verdicts) for value in (True, False))
    count = f"{passed} pass, {failed} fail, {len(verdicts) - passed - failed} not measured."
    return f"{markdown(['line', 'measured', ''], rows)}\n\n{count}"


# --- where groups pay ----------------------------------------------------------------------------------------------


def where_groups_pay(results: Results) -> str:
    """A sentence per target: `pgb-mixed`, which may choose groups, against `structured`, which may not."""
    lines = []
    for sparsity, recovered in results.settings():
        difference = results.between("pgb-mixed", "structured", sparsity, recovered)
        if difference is None:
            continue
        mixed = results.points["pgb-mixed", sparsity, recovered]
        if difference.above(ERRORS):
            verdict = "groups pay"
        elif difference.below(ERRORS):
            verdict = "groups cost"
        else:
            verdict = "no difference to be seen"
        if not mixed.grouped:
            verdict = "no groups were chosen"
        when = f"{sparsity:.0%} removed{', recovered' if recovered else ''}"
        lines.append(
            f"- {when}: {verdict}. `pgb-mixed` less `structured`: {100 * difference.value:+.2f} ± "
            f"{100 * difference.error:.2f} points (p {probability(difference.p_value)}), with {mixed.grouped} of "
            f"{mixed.sublayers} sublayers grouped."
        )
    if not lines:
        return "Not measured: it takes `pgb-mixed` and `structured` at the same sparsity."
    chance = f"A difference counts from {ERRORS:g} standard errors on; of {len(lines)} comparisons of equal models"
    return "\n".join([*lines, "", f"{chance}, about {0.05 * len(lines):.1f} would get there by chance."])


# --- all together --------------------------------------------------------------------------------------------------


def report(found: Sequence[Results]) -> str:
    """Everything, in Markdown."""
    parts = ["# Accuracy"]
    for results in found:
        dense = results.dense
        error = 100 * (dense.score * (1 - dense.score) / len(dense.correct)) ** 0.5
        parts.append(
            f"## {results.task}\n\nDense: {dense.score:.2%} ± {error:.2f} on {len(dense.correct)} held-out examples. "
            "All differences are paired, in points, with their standard errors. Bold: the highest "
            "score, among equal ones that with the smallest KL."
        )
        for recovered, title in ((False, "One-shot"), (True, f"After {EPOCHS} epochs of recovery")):
            if any(done == recovered for _, done in results.settings()):
                parts.append(f"### {title}\n\n{overview(results, recovered)}\n\n{details(results, recovered)}")
        if results.dense_recovered and not results.dense_recovered.failure:
            trained = _signed_under(results.under_dense(results.dense_recovered))
            parts.append(f"The dense model itself, trained on in the same way: {trained} under dense.")
        parts.append(f"### Where groups pay\n\n{where_groups_pay(results)}")
        parts.append(f"### Acceptance\n\n{acceptance_table(acceptance(results))}")
        if results.stale:
            stale = "made by other code or libraries than the present ones; `--code` makes them anew."
            parts.append(f"\\* {stale}")
    parts.append(
        "*p*: exact McNemar test. *Next best*: the method ranked one lower. *KL*: of the predictions from the dense "
        "model's, in nats. *Predicted loss*: by the option tables. *Seconds*: of the point + shared by the points of a "
        "task (scores and tables)."
    )
    return "\n\n".join(parts) + "\n"

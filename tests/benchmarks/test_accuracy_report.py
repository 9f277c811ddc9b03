"""The report on made-up points, whose differences are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import accuracy_report
from benchmarks.accuracy_points import Key, Origin, Point
from benchmarks.accuracy_report import Results, Verdict, acceptance, ranking, results_of
from pgb_core.spec import METHODS

ORIGIN = Origin("checkpoint", "data", "code", {})
COUNT = 1000


def answers(wrong: Sequence[int]) -> np.ndarray:
    found = np.ones(COUNT, dtype=bool)
    found[list(wrong)] = False
    return found


def dense(task: str = "news") -> Point:
    return Point(Key(task, "dense"), ORIGIN, answers(range(100)))


def point(method: str, under: int, sparsity: float = 0.5, *, recovered: bool = False, grouped: int = 3) -> Point:
    """Wrong where the dense model is, and on `under` examples more (or right on so many more)."""
    return Point(
        Key("news", method, sparsity, recovered),
        ORIGIN,
        answers(range(100 + under)),
        achieved=sparsity + 0.001,
        sublayers=12,
        grouped=grouped,
        dropped=2,
        loss=None if method == "kwon" else 0.125,
        divergence=0.01 * len(method),
        seconds={"scores": 10.0, "tables": 20.0, "pruning": 5.4, "recovery": 2.0, "evaluation": 100.0},
    )


def results(*points: Point, stale: Sequence[Key] = ()) -> Results:
    return results_of([dense(), *points], stale)[0]


def failed(method: str, sparsity: float) -> Point:
    return Point(Key("news", method, sparsity), ORIGIN, np.zeros(0, dtype=bool), failure="out of reach.")


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def verdict(found: Results, *parts: str) -> Verdict:
    fitting = [v for v in acceptance(found) if all(part in v.what for part in parts)]
    assert len(fitting) == 1
    return fitting[0]


def test_points_on_other_data_are_left_out() -> None:
    strange = replace(point("kwon", 3), origin=replace(ORIGIN, data="other"))
    found = results(point("pgb", 2), strange)
    assert list(found.points) == [("pgb", 0.5, False)]
    assert results_of([point("pgb", 2)]) == []  # nothing to compare with


def test_the_dense_model_that_was_trained_on_is_a_reference_not_a_method() -> None:
    trained = Point(Key("news", "dense", recovered=True), ORIGIN, answers(range(104)))
    found = results_of([dense(), trained, point("pgb", 5)])
    assert found[0].settings() == [(0.5, False)]
    assert "trained on in the same way: 0.40 ±" in accuracy_report.report(found)
    assert "trained on" not in accuracy_report.report(results_of([dense(), point("pgb", 5)]))


def test_the_ranking_goes_by_score_then_by_closeness_and_leaves_failures_out() -> None:
    points = {
        p.key.method: p for p in (point("structured", 5), point("pgb", 5), point("kwon", 1), failed("kprune", 0.5))
    }
    assert ranking(points) == ["kwon", "pgb", "structured"]


def test_the_overview_shows_points_under_dense_and_the_best() -> None:
    found = results(point("pgb", 20), point("kwon", 30), point("pgb", 40, 0.75), failed("kwon", 0.75))
    table = [cells(line) for line in accuracy_report.overview(found, recovered=False).splitlines()]
    error = 100 * np.sqrt((0.02 - 0.02**2) / COUNT)
    assert table[0] == ["points under dense", "50% removed", "75% removed"]
    assert table[2][:2] == ["`pgb`", f"**2.00 ± {error:.2f}**"]
    assert table[3][0] == "`kwon`"
    assert table[3][2] == "-"
    assert len(table) == 4


def test_the_details_compare_with_dense_and_the_next_best() -> None:
    points = [point("pgb", 20), point("kwon", 30), failed("kprune", 0.5), point("pgb", 0, 0.5, recovered=True)]
    found = results(*points, stale=[Key("news", "kwon", 0.5)])
    lines = [cells(line) for line in accuracy_report.details(found, recovered=False).splitlines()]
    assert {len(line) for line in lines} == {13}
    first = dict(zip(lines[0], lines[2], strict=True))  # the second p hides the first
    assert first["removed"] == "50.1%"
    assert first["score"] == "88.00%"
    assert first["under dense"] == "2.00 ± 0.44"
    assert first["next best"] == "`kwon`"
    assert first["ahead of it"] == "1.00 ± 0.31"
    assert first["p"] == ".002"  # ten throws, all heads
    assert lines[2][5] == "<.001"
    assert first["predicted loss"] == "0.125"
    assert first["grouped / dropped"] == "3 / 2 of 12"
    assert first["seconds"] == "7 + 30"
    assert lines[3][1] == "`kwon` *"
    assert lines[3][6:9] == ["", "", ""]  # none is lower
    assert lines[4][1:3] == ["`kprune`", "out of reach."]


@pytest.mark.parametrize(
    ("under", "passed", "note"),
    [(3, True, "stretch"), (4, True, ""), (10, True, ""), (11, False, ""), (-5, True, "stretch")],
)
def test_a_bar_holds_up_to_its_value(under: int, passed: bool, note: str) -> None:
    found = verdict(results(point("pgb-mixed", under)), "`pgb-mixed` at 50%:")
    assert (found.passed, found.note) == (passed, note)


def test_recovery_must_reach_the_dense_score() -> None:
    for under, passed in ((0, True), (1, False)):
        found = verdict(results(point("pgb-mixed", under, recovered=True)), "`pgb-mixed` at 50% after recovery")
        assert found.passed is passed


def test_what_was_not_measured_is_neither_passed_nor_failed() -> None:
    found = acceptance(results())
    assert {v.passed for v in found} == {None}
    assert len(found) == 10 + 5 * 4 + 2
    assert "0 pass, 0 fail, 32 not measured." in accuracy_report.acceptance_table(found)
    assert verdict(results(failed("pgb", 0.5)), "`pgb` at 50%").passed is False


def test_mixed_may_be_below_a_structured_method_by_two_errors() -> None:
    for under, passed in ((3, True), (4, False)):  # n lost, none gained: a little over sqrt(n) errors
        found = verdict(results(point("pgb-mixed", under), point("kprune", 0)), "within 2 SE of `kprune`", "50%")
        assert found.passed is passed


def test_mixed_must_beat_the_simple_ones_by_more_than_two_errors_at_88() -> None:
    for ahead, passed in ((3, False), (6, True)):
        points = [point("pgb-mixed", 20, 0.88), point("kwon", 20 + ahead, 0.88), point("heads-neurons", 10, 0.88)]
        assert verdict(results(*points), "above `kwon` by more").passed is passed
        assert verdict(results(*points), "above `heads-neurons` by more").passed is False


@pytest.mark.parametrize(
    ("mixed", "structured", "grouped", "expected"),
    [
        (10, 40, 4, "groups pay"),
        (40, 10, 4, "groups cost"),
        (10, 11, 4, "no difference to be seen"),
        (10, 10, 0, "no groups were chosen"),
    ],
)
def test_where_groups_pay(mixed: int, structured: int, grouped: int, expected: str) -> None:
    found = results(point("pgb-mixed", mixed, grouped=grouped), point("structured", structured))
    text = accuracy_report.where_groups_pay(found)
    assert f"50% removed: {expected}." in text
    assert f"{(structured - mixed) / 10:+.2f} ±" in text
    assert "Not measured" in accuracy_report.where_groups_pay(results(point("pgb-mixed", 1)))


def test_the_report_has_all_tasks_and_parts() -> None:
    other = dense("tweets")
    found = results_of([dense(), other, *(point(m, 5) for m in METHODS), point("pgb", 1, recovered=True)])
    text = accuracy_report.report(found)
    assert text.count("## news") == text.count("## tweets") == 1
    assert text.count("### One-shot") == 1
    assert text.count("### After 2 epochs of recovery") == 1
    assert text.count("### Acceptance") == 2
    assert "Dense: 90.00% ± 0.95 on 1000" in text
    assert "made by other code" not in text
    stale = results_of([dense(), point("pgb", 5)], [Key("news", "pgb", 0.5)])
    assert "made by other code" in accuracy_report.report(stale)

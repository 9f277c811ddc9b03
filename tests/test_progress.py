"""Steps of stages become the progress of the whole run."""

from __future__ import annotations

import pytest

from pgb_core import JobCancelled
from pgb_core.progress import Progress, Reporter, part, silent


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("pgb_core.progress.time.monotonic", lambda: now[0])
    return now


def test_fractions_add_up_over_the_stages(clock: list[float]) -> None:
    seen: list[Progress] = []
    reporter = Reporter(seen.append, {"first": 1, "second": 3})
    step = reporter.stage("first")
    step(1, 2, "half of it")
    step(2, 2)
    step = reporter.stage("second")
    step(1, 3, "layer 1 of 3")
    step(3, 3)
    assert [progress.stage for progress in seen] == ["first"] * 3 + ["second"] * 3
    assert [progress.stage_fraction for progress in seen] == pytest.approx([0, 0.5, 1, 0, 1 / 3, 1])
    assert [progress.fraction for progress in seen] == pytest.approx([0, 0.125, 0.25, 0.25, 0.5, 1])
    assert [progress.message for progress in seen] == ["starting", "half of it", "", "starting", "layer 1 of 3", ""]


def test_a_stage_that_is_left_out_counts_as_done(clock: list[float]) -> None:
    seen: list[Progress] = []
    Reporter(seen.append, {"a": 1, "b": 1, "c": 2}).stage("c")
    assert seen[-1].fraction == pytest.approx(0.5)


def test_the_remaining_time_is_told_when_it_can_be(clock: list[float]) -> None:
    seen: list[Progress] = []
    step = Reporter(seen.append, {"only": 1}).stage("only")
    assert seen[-1].eta_seconds is None
    clock[0] += 10
    step(1, 4)
    assert seen[-1].eta_seconds == pytest.approx(30)
    assert str(seen[-1]) == "[ 25%] only, about 30 s left"
    clock[0] += 30
    step(4, 4, "all of it")
    assert str(seen[-1]) == "[100%] only: all of it, about 0 s left"
    assert seen[-1].eta_seconds == pytest.approx(0)


def test_a_stage_that_counts_anew_does_not_take_the_run_back(clock: list[float]) -> None:
    """While loading, the demo is prepared in steps of its own before those of the stage."""
    seen: list[Progress] = []
    step = Reporter(seen.append, {"loading": 1, "work": 3}).stage("loading")
    for done, total in ((50, 100), (100, 100), (1, 3), (2, 3)):
        step(done, total)
    assert [progress.fraction for progress in seen] == pytest.approx([0, 0.125, 0.25, 0.25, 0.25])


def test_the_remaining_time_leaves_out_how_long_loading_took(clock: list[float]) -> None:
    seen: list[Progress] = []
    reporter = Reporter(seen.append, {"loading": 5, "work": 45, "more": 50})
    step = reporter.stage("loading")
    clock[0] += 300
    step(1, 1)
    assert {progress.eta_seconds for progress in seen} == {None}
    step = reporter.stage("work")
    clock[0] += 9
    step(1, 5)  # 9 of the 95 that are not loading
    assert seen[-1].eta_seconds == pytest.approx(86)
    clock[0] += 36
    reporter.stage("more")
    assert seen[-1].eta_seconds == pytest.approx(50)


def test_steps_without_pieces_or_past_the_end_stay_in_range(clock: list[float]) -> None:
    seen: list[Progress] = []
    step = Reporter(seen.append, {"only": 1}).stage("only")
    step(0, 0)
    step(5, 4)
    assert [progress.fraction for progress in seen] == [0, 0, 1]


def test_a_callback_that_raises_stops_the_stage() -> None:
    def stop(progress: Progress) -> None:
        if progress.stage_fraction > 0:
            raise JobCancelled("stop")

    step = Reporter(stop, {"only": 1}).stage("only")
    with pytest.raises(JobCancelled):
        step(1, 2)


def test_an_unknown_stage_is_a_fault() -> None:
    with pytest.raises(ValueError, match="nowhere"):
        Reporter(lambda progress: None, {"only": 1}).stage("nowhere")


def test_silent_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    silent(1, 2, "psst")
    assert capsys.readouterr() == ("", "")


def test_a_part_reports_its_share_of_the_whole() -> None:
    seen: list[tuple[int, int, str]] = []
    step = part(lambda done, total, message="": seen.append((done, total, message)), 0.25, 0.75, "the rest")
    step(0, 4, "first")
    step(3, 4)
    step(0, 0)
    assert seen == [(250, 1000, "first"), (625, 1000, "the rest"), (250, 1000, "the rest")]

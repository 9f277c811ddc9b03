"""Figures of other papers: complete, cited, and shown where they belong."""

from __future__ import annotations

import json

import pytest

from pgb_core.published import FILE, published


def test_every_figure_has_its_source_and_lies_in_range() -> None:
    entries = json.loads(FILE.read_text(encoding="utf-8"))["results"]
    found = [
        p
        for task in ("sst2", "qnli", "mnli", "squad")
        for metric in ("accuracy", "f1")
        for p in published(task, metric)
    ]
    assert len(found) == len(entries)
    for figure in found:
        assert figure.source
        assert 0 < figure.density <= 1
        assert 0 < figure.score < 1
        assert (figure.retraining is None) == (figure.density == 1)


def test_only_those_of_the_task_and_metric_come_by_rising_density() -> None:
    found = published("sst2", "accuracy")
    assert [(p.method, p.density) for p in found][-1] == ("BERT-base (PGB's baseline)", 1.0)
    assert [p.density for p in found] == sorted(p.density for p in found)
    assert {p.task for p in found} == {"sst2"}
    assert published("sst2", "matthews") == published("bbc-news", "accuracy") == ()


def test_the_setting_says_what_is_known() -> None:
    found = {(p.method, p.density): p for p in published("qnli", "accuracy")}
    assert found["CoFi", 0.4].setting == (
        "BERT-base; retraining: 40 epochs with layerwise distillation; 2.1 x as fast as dense, by its source"
    )
    assert found["DynaBERT", 0.5].setting.endswith("read off a plot, to about 0.3 points")
    assert found["PGB", 0.5].score == pytest.approx(0.903)

"""Scores do not depend on the order in which a checkpoint has its labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pgb_core import judging
from pgb_core.judging import Evaluation
from pgb_core.tasks import TASKS


@pytest.mark.parametrize("name", ["mrpc", "qqp", "cola"])
def test_the_order_of_the_labels_changes_no_score(name: str) -> None:
    generator = np.random.default_rng(0)
    labels = (generator.random(200) < 0.7).astype(np.int64)
    predictions = generator.normal(size=(200, 2)).astype(np.float32)
    predictions[np.arange(200), labels] += 0.5
    found = Evaluation(TASKS[name], np.arange(200), [], labels)
    turned = replace(found, task=replace(TASKS[name], positive=0), labels=1 - labels)
    scores, same = judging.judge(found, predictions).scores, judging.judge(turned, predictions[:, ::-1]).scores
    assert list(scores) == list(same)
    for metric, (score, error) in scores.items():
        assert same[metric][0] == pytest.approx(score)
        assert same[metric][1] == pytest.approx(error, rel=0.3)
    assert judging.majority(found) == pytest.approx(judging.majority(turned))


def test_a_model_worse_than_guessing_raises_the_alarm() -> None:
    labels = np.repeat([0, 1], [40, 60])
    found = Evaluation(TASKS["sst2"], np.arange(100), [], labels)
    right = np.eye(2, dtype=np.float32)[labels]
    assert judging.alarm(found, judging.judge(found, right)) is None
    assert judging.alarm(found, judging.judge(found, np.tile(right[-1], (100, 1)))) is None  # as good as guessing
    alarm = judging.alarm(found, judging.judge(found, right[:, ::-1]))
    assert alarm is not None
    assert "is 0.0000, worse than always giving the same answer (0.6000)" in alarm

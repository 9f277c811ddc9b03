from typing import Any

import pytest

from pgb_core.figures import recovery


def history(*, set_aside: int = 100) -> dict[str, Any]:
    looks = [(0.0, None, 0.5, 0.90), (0.5, 0.4, 0.3, 0.94), (1.0, 0.2, 0.35, 0.93)]
    names = ("epoch", "loss", "dev_loss", "dev_score")
    found = [dict(zip(names, look if set_aside else (*look[:2], None, None), strict=True)) for look in looks]
    figures = {"learning_rate": 1e-4, "batch_size": 32, "trained": 1900, "set_aside": set_aside, "kept": 1}
    return {"metric": "accuracy", **figures, "history": found}


def test_the_kept_state_is_ringed_and_marked() -> None:
    figure = recovery.recovery_chart(history())
    traces = {trace.name: trace for trace in figure.data}
    assert (traces["kept"].x, traces["kept"].y) == ((0.5,), (94.0,))
    assert traces["accuracy, set aside"].y == pytest.approx((90.0, 94.0, 93.0))
    assert traces["loss, training"].y == (None, 0.4, 0.2)
    assert [row["kept"] for row in recovery.recovery_table(history())] == [False, True, False]


def test_with_nothing_set_aside_there_is_the_training_loss_alone() -> None:
    bare = history(set_aside=0)
    assert [trace.name for trace in recovery.recovery_chart(bare).data] == ["loss, training"]
    assert "the last state was kept" in recovery.explain_recovery(bare, 1)


def test_the_sentence_says_which_state_was_kept_and_that_it_stopped_early() -> None:
    text = recovery.explain_recovery(history(), 1)
    assert "1,900 examples, learning rate 0.0001" in text
    assert "kept was the one after 0.5 epochs, accuracy 94.0% on them" in text
    assert "Stopped" not in text
    assert "Stopped after 1 epoch of 3" in recovery.explain_recovery(history(), 3)

from typing import Any

import pytest

from pgb_core.figures import scores


def score(recovered: float | None) -> dict[str, Any]:
    return {
        "metric": "accuracy",
        "dense": 0.97,
        "masked": 0.6,
        "compensated": 0.95,
        "recovered": recovered,
        "samples": 400,
        "standard_error": {"dense": 0.01, "masked": 0.03, "compensated": 0.02, "recovered": 0.015},
    }


@pytest.mark.parametrize(
    ("recovered", "step", "values"),
    [(None, "compensated", [97.0, 60.0, 95.0]), (0.96, "recovered", [97.0, 60.0, 95.0, 96.0])],
)
def test_chart_and_table_show_the_steps_that_ran(recovered: float | None, step: str, values: list[float]) -> None:
    assert scores.final_step(score(recovered)) == step
    figure = scores.score_chart(score(recovered))
    assert list(figure.data[0].x) == pytest.approx(values)
    table = scores.score_table(score(recovered))
    assert [100 * row["score"] for row in table] == pytest.approx(values)
    assert table[0]["difference"] == 0
    assert len(figure.to_json()) <= 1_000_000


def test_whiskers_are_inside_the_axis() -> None:
    figure = scores.score_chart(score(None))
    low, high = figure.layout.xaxis.range
    assert low < 57.0
    assert high > 98.0

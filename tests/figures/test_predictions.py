from typing import Any

import pytest

from pgb_core.figures import predictions


def prediction(loss: float) -> dict[str, Any]:
    return {"loss": loss, "sparsity": 0.5, "grouped": 3, "dropped": 1}


def result(method: str, **losses: float | None) -> dict[str, Any]:
    found = {name.replace("_", "-"): None if x is None else prediction(x) for name, x in losses.items()}
    return {"method": method, "predictions": found}


SHARED = result("pgb", pgb=0.2, pgb_mixed=0.1, structured=None)


def test_the_table_sets_every_method_against_the_run_s_own() -> None:
    rows = {row["method"]: row for row in predictions.prediction_table(SHARED)}
    assert {name: (row["loss"], row["ratio"]) for name, row in rows.items()} == {
        "pgb": (0.2, 1.0),
        "pgb-mixed": (0.1, 0.5),
        "structured": (None, None),
    }
    assert [name for name, row in rows.items() if row["chosen"]] == ["pgb"]
    assert (rows["pgb"]["grouped"], rows["pgb"]["dropped"]) == (3, 1)


def test_the_chart_has_a_bar_for_every_method_within_reach() -> None:
    bars = predictions.prediction_chart(SHARED).data[0]
    assert dict(zip(bars.y, bars.x, strict=True)) == pytest.approx({"pgb": 100.0, "pgb-mixed": 50.0})
    assert len(set(bars.marker.color)) == 2


@pytest.mark.parametrize(
    ("shown", "sentence"),
    [
        (
            SHARED,
            "predicted best; against it, pgb loses 2.0 times as much. Out of reach at this target: structured.",
        ),
        (
            result("structured", pgb=0.101, pgb_mixed=0.1, structured=0.13),
            "pgb-mixed is predicted best; against it, pgb is even and structured loses 30% more.",
        ),
        (result("pgb", pgb=0.1, pgb_mixed=0.1), "pgb is predicted best; against it, pgb-mixed is even."),
        (result("pgb", pgb=0.1, pgb_mixed=None), "pgb is predicted best. Out of reach at this target: pgb-mixed."),
        (result("pgb", pgb=0.0, structured=0.0), "Nothing is predicted to be lost"),
        (result("pgb-paper", pgb_paper=0.1), "which no other method shares"),
        (result("kwon"), "kwon chooses by rules of its own"),
    ],
)
def test_the_sentence_says_who_is_best_and_how_close_the_others_are(shown: dict[str, Any], sentence: str) -> None:
    assert sentence in predictions.explain_predictions(shown)

from itertools import product
from typing import Any

import pytest

from pgb_core.budget import frontier
from pgb_core.figures import options
from pgb_core.what_if import rate


def explain(table: dict[str, Any]) -> str:
    return options.explain_choice(table, rated(table))


def rated(table: dict[str, Any]) -> Any:
    return rate([{"layer": 0, "kind": "attention", **table}], "pgb")[0]


def option(label: str, cost: int, loss: float, groups: int = 2) -> dict[str, Any]:
    return {"label": label, "groups": groups, "units": 4, "cost": cost, "density": cost / 100, "loss": loss}


TABLE = [option("dropped", 0, 1.0, 0), option("4 groups", 25, 0.4), option("untouched", 100, 0.0, 1)]


def test_the_option_chart_rings_the_chosen_option_and_shows_all() -> None:
    table = {"chosen": 1, "options": TABLE}
    figure = options.option_chart(table, rated(table))
    ring = figure.data[-1]
    assert (ring.x, ring.y) == ((25.0,), (0.4,))
    assert sum(len(trace.x) for trace in figure.data[:-1]) == 3


def test_why_something_was_dropped_names_the_best_alternative_and_its_price() -> None:
    text = explain({"chosen": 0, "options": TABLE})
    assert "4 groups" in text
    assert "0.6" in text
    assert "25 more weights" in text


def test_why_everything_was_kept_names_the_cheapest_saving() -> None:
    text = explain({"chosen": 2, "options": TABLE})
    assert "4 groups" in text
    assert "raise the loss by 0.4 and save 75 weights" in text


def test_keeping_less_at_a_lower_measured_loss_is_not_called_a_rise() -> None:
    """Losses are measured: a smaller option can come out ahead, and the target still not need its saving."""
    text = explain({"chosen": 1, "options": [option("smaller", 20, 0.3), option("larger", 25, 0.4)]})
    assert "lower the loss by 0.1" in text


@pytest.mark.parametrize("sparsity", [0.0, 0.2, 0.5, 0.95])
def test_what_is_said_of_a_choice_is_true_of_the_budget(sparsity: float) -> None:
    """No sentence about other sublayers' prices: with room below the target, or with no target, there is none."""
    tables = [[option(o["label"], o["cost"], scale * o["loss"]) for o in TABLE] for scale in (1.0, 5.0, 1.0)]
    costs, losses = [[o["cost"] for o in t] for t in tables], [[o["loss"] for o in t] for t in tables]
    budget = round(300 * (1 - sparsity))
    picks = frontier(costs, losses, [budget], slack=budget)[0].options
    total = sum(t[p]["loss"] for t, p in zip(tables, picks, strict=True))
    for choice in product(*tables):
        if sum(o["cost"] for o in choice) <= budget:
            assert sum(o["loss"] for o in choice) >= total - 1e-9
    for table, pick in zip(tables, picks, strict=True):
        text = explain({"chosen": pick, "options": table})
        assert "no combination that meets the target has a lower total loss" in text
        assert "other sublayers" not in text


def test_an_only_option_is_explained() -> None:
    assert "no other option" in explain({"chosen": 0, "options": TABLE[:1]})


SHARED = {
    "chosen": 1,
    "options": [
        option("dropped", 0, 1.2, 0),
        option("2 groups", 10, 0.2),
        option("3 groups", 10, 0.201),
        option("untouched", 20, 0.0, 1),
        {**option("half", 10, 0.05, 1), "methods": ["pgb-mixed"], "admitted": True},
        {**option("6 groups", 10, 0.5), "methods": ["pgb"], "admitted": False},
    ],
}


def test_what_the_run_may_not_choose_is_faint_and_says_why() -> None:
    faint, *others = options.option_chart(SHARED, rated(SHARED)).data
    assert (faint.name, len(faint.x)) == ("not open to this run", 2)
    assert faint.opacity < 1
    assert "open to pgb-mixed" in faint.text[0]
    assert "not under this run's constraints" in faint.text[1]
    assert sum(len(trace.x) for trace in others if trace.name not in ("chosen", "close")) == 4


def test_dropping_that_loses_far_more_does_not_flatten_the_picture() -> None:
    far = {**SHARED, "options": [option("dropped", 0, 60.0, 0), *SHARED["options"][1:]]}
    layout = options.option_chart(far, rated(far)).layout
    assert layout.yaxis.range[1] == pytest.approx(0.6)
    assert "dropped: loss 60" in layout.annotations[0].text
    for table in (SHARED, {**far, "chosen": 0}):
        layout = options.option_chart(table, rated(table)).layout
        assert layout.yaxis.range is None
        assert not layout.annotations


def test_close_options_are_ringed_and_counted() -> None:
    rings = {trace.name: trace for trace in options.option_chart(SHARED, rated(SHARED)).data}
    assert rings["close"].y == (0.201,)
    text = options.explain_closeness(SHARED, rated(SHARED))
    assert "Closest: 3 groups, with a regret of +0.5% of the total predicted loss; 1 option came within 1%." in text
    assert "Not open to this run: half, which would do better (-75.0%)" in text
    assert options.closest(SHARED, rated(SHARED)) == "3 groups (+0.5%)"


def test_without_an_alternative_nothing_is_called_close() -> None:
    alone = {"chosen": 0, "options": TABLE[:1]}
    assert options.explain_closeness(alone, rated(alone)) == ""
    assert options.closest(alone, rated(alone)) == "–"


def test_a_choice_is_explained_by_what_was_open_to_it() -> None:
    text = options.explain_choice(SHARED, rated(SHARED))
    assert "untouched" in text
    assert "half" not in text


def test_only_a_restored_sublayer_says_what_it_was_restored_for() -> None:
    entry = {"pin": {"layer": 0, "kind": "attention", "keep": 1}, "alone": 0.0087, "together": 1.3687, "without": 0.02}
    text = options.explain_restored({"layer": 0, "kind": "attention", **SHARED}, [entry])
    assert all(number in text for number in ("0.0087", "1.37", "0.02"))
    assert options.explain_restored({"layer": 0, "kind": "feed_forward", **SHARED}, [entry]) == ""


def test_option_table_has_the_chosen_one_first_then_the_closest() -> None:
    rows = options.option_table(SHARED, rated(SHARED))
    assert [row["label"] for row in rows][:2] == ["2 groups", "half"]
    assert [row["chosen"] for row in rows] == [True, *[False] * 5]
    regrets = [row["regret"] for row in rows[1:]]
    assert regrets == sorted(regrets)
    assert {row["label"] for row in rows if row["close"]} == {"2 groups", "3 groups"}
    assert {row["label"] for row in rows if not row["allowed"]} == {"half", "6 groups"}

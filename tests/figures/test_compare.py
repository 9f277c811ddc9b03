from pathlib import Path

import numpy as np
import pytest

from pgb_core import answers, store
from pgb_core.answers import Answers, Said
from pgb_core.figures import compare, network
from pgb_core.significance import Difference, MeanDifference, paired
from tests.sample_run import MINILM, make_sample_run


def made(predicted: list[int], probability: list[float]) -> Answers:
    count = len(predicted)
    said = Said(np.array(predicted), np.array(probability, np.float32), np.zeros(count, np.float32))
    return Answers(np.arange(count) + 10, np.zeros(count, np.int64), ("no", "yes"), {"compensated": said})


STAGES = ("compensated", "compensated")


def test_examples_that_one_gets_wrong_come_with_the_most_wrong_first() -> None:
    first, second = made([0, 0, 0, 1], [0.9, 0.8, 0.7, 0.6]), made([0, 1, 1, 0], [0.9, 0.6, 0.95, 0.7])
    assert compare.discordant(first, second, STAGES, 0).tolist() == [2, 1]
    assert compare.discordant(first, second, STAGES, 1).tolist() == [3]
    (row,) = compare.example_table(first, second, STAGES, [2])
    assert row["row"] == 13  # counted from 1
    assert (row["label"], row["says_0"], row["says_1"]) == ("no", "no", "yes")
    assert row["sure_1"] == pytest.approx(0.95)


@pytest.mark.parametrize(
    ("difference", "verdict"),
    [
        (Difference(0.0, 0.0, 0, 0, 1.0), "**No difference**: A and B are right on the very same"),
        (Difference(0.01, 0.02, 3, 2, 1.0), "**No difference that chance would not explain**: +1.00 points"),
        (Difference(0.1, 0.02, 12, 2, 0.01), "**A is better than B**: +10.00 points (standard error 2.00). 12 of 100"),
        (Difference(-0.1, 0.02, 2, 12, 0.01), "**B is better than A**: -10.00 points"),
    ],
)
def test_the_verdict_follows_the_test(difference: Difference, verdict: str) -> None:
    assert verdict in compare.explain_difference(difference, "A", "B", 100)


def test_the_lists_agree_with_the_paired_test(tmp_path: Path) -> None:
    runs = [store.read_run(make_sample_run(tmp_path, sparsity=s, seed=n)) for n, s in enumerate((0.5, 0.9))]
    first, second = (answers.read_answers(run) for run in runs)
    assert first is not None
    assert second is not None
    found = paired(first.right("compensated"), second.right("compensated"))
    assert len(compare.discordant(first, second, STAGES, 0)) == found.gained
    assert len(compare.discordant(first, second, STAGES, 1)) == found.lost


def test_structure_side_by_side_agrees_with_its_table(tmp_path: Path) -> None:
    run = store.read_run(make_sample_run(tmp_path, shape=MINILM, sparsity=0.8))
    assert run.result is not None
    pruned = network.sublayers(run.result)
    dense = compare.whole(pruned)
    assert {s.summary for s in dense} == {"untouched"}
    figure = compare.structure_chart(dense, pruned, ("A", "B"))
    rows = compare.structure_table(dense, pruned)
    assert [100 * row["second_density"] for row in rows] == pytest.approx(list(figure.data[1].x))
    assert [row["change"] for row in rows] == pytest.approx([row["second_density"] - 1 for row in rows])
    assert figure.data[1].text.count("dropped") == sum(s.dropped for s in pruned)
    assert len(figure.to_json()) <= 1_000_000


def test_two_matrices_share_one_scale_and_stay_small() -> None:
    rng = np.random.default_rng(0)
    dense = rng.normal(0, 1, (3072, 768)).astype(np.float32)
    pruned = np.where(rng.random(dense.shape) < 0.2, 2 * dense, np.float32(np.nan))
    limit = compare.common_limit([dense, pruned])
    kept = np.abs(np.concatenate([dense.ravel(), pruned[~np.isnan(pruned)]]))
    assert limit == pytest.approx(np.quantile(kept, 0.995))
    charts = [compare.matrix_chart(values, limit) for values in (dense, pruned)]
    assert {(c.data[0].zmin, c.data[0].zmax) for c in charts} == {(-limit, limit)}
    assert all(len(c.to_json()) <= 1_000_000 for c in charts)
    facts = compare.matrix_table(pruned)
    assert facts["weights"] == (~np.isnan(pruned)).sum()
    assert facts["norm"] == pytest.approx(np.sqrt(np.nansum(pruned.astype(np.float64) ** 2)), rel=1e-5)


def test_a_matrix_of_which_nothing_is_kept_has_a_scale_and_facts() -> None:
    gone = np.full((4, 6), np.nan, np.float32)
    assert compare.common_limit([gone]) == 1.0
    assert compare.matrix_table(gone) == {
        "weights": 0, "density": 0.0, "rows": 0, "columns": 0, "largest": 0.0, "norm": 0.0
    }  # fmt: skip


@pytest.mark.parametrize(
    ("difference", "verdict"),
    [
        (MeanDifference(0.0, 0.0, 0, 0, 1.0), "**No difference**: A and B have the same F1 on every one of the 100"),
        (
            MeanDifference(0.01, 0.02, 3, 2, 0.6),
            "**No difference that chance would not explain**: +0.0100 in the mean of F1",
        ),
        (MeanDifference(0.1, 0.02, 12, 2, 0.01), "**A is better than B**: +0.1000 in the mean of F1 (standard error"),
        (MeanDifference(-0.1, 0.02, 2, 12, 0.01), "**B is better than A**: -0.1000"),
    ],
)
def test_a_difference_of_means_is_told_in_words(difference: MeanDifference, verdict: str) -> None:
    assert compare.explain_means(difference, "A", "B", 100, "F1").startswith(verdict)

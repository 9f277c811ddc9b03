"""The lesson against the pruner's own torch code, against brute force, and by what its presets are there to show."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pgb_core import importance, lesson
from pgb_core.least_squares import ridge
from pgb_core.lesson import CORRELATIONS, DENSITIES, PRESETS, SIZE, Lesson, group_choices, learn, preset

few = settings(max_examples=30)
"""Examples: every one is a lesson of its own."""
WAYS = [(density, groups) for density in DENSITIES for groups in group_choices(density)]


@st.composite
def lessons(draw: st.DrawFn, name: str | None = None) -> Lesson:
    """A lesson on a preset, pruned in one of the ways that the page offers."""
    seed = draw(st.integers(0, 9999))
    density, groups = draw(st.sampled_from(WAYS))
    matrix = preset(name or draw(st.sampled_from(list(PRESETS))), seed)
    correlation = draw(st.sampled_from(CORRELATIONS))
    return learn(matrix, groups=groups, density=density, correlation=correlation, seed=seed)


def inputs_of(gram: np.ndarray) -> np.ndarray:
    """(24, 12) inputs with mean 0 and exactly this Gram matrix."""
    values, vectors = np.linalg.eigh(gram)
    root = (vectors * np.sqrt(values.clip(0))).T * np.sqrt(SIZE)
    return np.vstack([root, -root])


@few
@given(lessons())
def test_all_shapes_keep_the_same_number_of_weights(found: Lesson) -> None:
    for outcome in found.outcomes.values():
        mask = outcome.layout.mask()
        assert mask.sum() == outcome.layout.kept == found.density * SIZE * SIZE
        np.testing.assert_array_equal(outcome.pruned, np.where(mask, found.matrix, 0))
        assert not outcome.refitted[~mask].any()
        assert outcome.kept_importance == pytest.approx(found.importance[mask].sum() / found.importance.sum())


@few
@given(lessons())
def test_shapes_are_what_they_are_called(found: Lesson) -> None:
    rows = found.outcomes["rows"].layout.mask()
    heads = found.outcomes["heads"].layout.mask()
    assert (rows.all(axis=1) | ~rows.any(axis=1)).all()
    assert (heads.all(axis=1) | ~heads.any(axis=1)).all()
    assert all(part.all() or not part.any() for part in heads.reshape(4, -1))
    layout = found.pgb.layout
    assert len(layout.row_groups) == found.groups
    assert {len(columns) for columns in layout.column_groups} == {SIZE // found.groups}
    for members in (layout.row_groups, layout.column_groups):
        together = np.concatenate(members)
        assert len(set(together)) == len(together)


@few
@given(lessons())
def test_no_shape_keeps_more_importance_than_single_weights(found: Lesson) -> None:
    most = found.outcomes["unstructured"].kept_importance
    assert all(outcome.kept_importance <= most + 1e-12 for outcome in found.outcomes.values())


@few
@given(lessons())
def test_errors_are_those_on_real_inputs_and_the_refit_never_raises_them(found: Lesson) -> None:
    x = inputs_of(found.gram)
    dense = np.square(x @ found.matrix.T).sum()
    for outcome in found.outcomes.values():
        for weights, error in ((outcome.pruned, outcome.error_before), (outcome.refitted, outcome.error_after)):
            assert error == pytest.approx(np.square(x @ (found.matrix - weights).T).sum() / dense, abs=1e-9)
        assert outcome.error_after <= outcome.error_before + 1e-12


@few
@given(lessons())
def test_importance_and_refit_are_the_pruners(found: Lesson) -> None:
    gram = torch.eye(SIZE + 1, dtype=torch.float64)
    gram[:-1, :-1] = torch.from_numpy(found.gram)
    weight = torch.from_numpy(found.matrix)
    scores = importance.compensated_importance(weight, torch.ones(SIZE), importance.inverse_diagonal(gram))
    np.testing.assert_allclose(found.importance, scores.numpy(), rtol=1e-6)
    dense = torch.cat([weight, torch.zeros(SIZE, 1)], dim=1)
    cross = dense @ gram
    for outcome in found.outcomes.values():
        for rows, columns in zip(outcome.layout.row_groups, outcome.layout.column_groups, strict=True):
            inputs = torch.from_numpy(np.append(columns, SIZE))
            support = torch.from_numpy(outcome.layout.mask()[np.ix_(rows, columns)])
            block = ridge(cross[rows][:, inputs], gram[inputs][:, inputs], dense[rows][:, inputs], support)
            np.testing.assert_allclose(outcome.refitted[np.ix_(rows, columns)], block[:, :-1].numpy(), atol=2e-5)


@few
@given(lessons("planted"))
def test_planted_blocks_make_pgb_win_among_the_structured_shapes(found: Lesson) -> None:
    assert found.best_structured is found.pgb
    assert found.pgb.error_after < 0.95 * min(found.outcomes[m].error_after for m in ("rows", "heads"))


@few
@given(lessons("rows"))
def test_scaled_rows_make_whole_rows_at_least_as_good_as_pgb(found: Lesson) -> None:
    assert found.outcomes["rows"].error_after <= found.pgb.error_after


@few
@given(lessons())
def test_independent_inputs_leave_nothing_to_refit(found: Lesson) -> None:
    alone = learn(found.matrix, groups=found.groups, density=found.density)
    for outcome in alone.outcomes.values():
        np.testing.assert_allclose(outcome.refitted, outcome.pruned, atol=1e-12)


@pytest.mark.parametrize("correlation", CORRELATIONS)
def test_the_inputs_have_variance_one_and_the_correlation_asked_for(correlation: float) -> None:
    gram = lesson.inputs_gram(correlation, 3)
    np.testing.assert_allclose(gram.diagonal(), 1)
    assert np.linalg.eigvalsh(gram).min() > 0
    assert np.abs(gram - np.eye(SIZE)).max() <= correlation + 1e-12


def test_a_matrix_of_zeros_loses_nothing() -> None:
    found = learn(np.zeros((SIZE, SIZE)), groups=4, density=0.25, correlation=0.6)
    assert {(o.error_before, o.error_after, o.kept_importance) for o in found.outcomes.values()} == {(0.0, 0.0, 1.0)}


@pytest.mark.parametrize(
    ("matrix", "groups", "density"),
    [
        (np.zeros((3, 3)), 2, 0.5),
        (np.full((SIZE, SIZE), np.nan), 2, 0.5),
        (np.zeros((SIZE, SIZE)), 3, 0.5),
        (np.zeros((SIZE, SIZE)), 2, 0.4),
    ],
)
def test_what_cannot_be_is_refused(matrix: np.ndarray, groups: int, density: float) -> None:
    with pytest.raises(ValueError, match=r"needs 12 x 12|cannot keep"):
        learn(matrix, groups=groups, density=density)


@few
@given(st.sampled_from(list(PRESETS)), st.integers(0, 9999))
def test_presets_have_one_decimal_and_depend_on_their_seed_alone(name: str, seed: int) -> None:
    matrix = preset(name, seed)
    np.testing.assert_array_equal(matrix, preset(name, seed))
    np.testing.assert_allclose(10 * matrix, np.round(10 * matrix), atol=1e-9)
    assert np.abs(matrix).max() <= lesson.LARGEST
    assert (matrix != preset(name, seed + 1)).any()

"""The matrices of a run, written and read back."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pgb_core import RunError, matrices, results, store
from pgb_core.figures import matrix as figures
from pgb_core.grouped import cut, install
from pgb_core.layout import Kind, SublayerLayout, SublayerShape, rectangle_layout
from pgb_core.saving import save_pruned
from tests.network import Network, layouts_of_all_kinds
from tests.sample_run import make_sample_run


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return make_sample_run(tmp_path)


def test_matrices_come_back_as_they_were_written(run_dir: Path) -> None:
    run = store.read_run(run_dir)
    tensors = load_file(run.model_dir / "model.safetensors")
    layouts = matrices.read_layouts(run)
    assert len(layouts) == 2 * (4 + 2)
    grouped = 0
    for (layer, kind, name), layout in layouts.items():
        view = matrices.read_matrix(run, layer, kind, name)
        mask = layout.mask()
        assert view.pruned.dtype == view.importance.dtype == np.float32
        assert view.pruned.shape == view.importance.shape == (layout.rows, layout.columns)
        assert not view.pruned[~mask].any()
        np.testing.assert_array_equal(view.layout.mask(), mask)
        for g, (rows, columns) in enumerate(zip(layout.row_groups, layout.column_groups, strict=True)):
            block = tensors[f"layer.{layer}.{kind}.{name}.{g}"]
            np.testing.assert_array_equal(view.pruned[np.ix_(rows, columns)], block)
        assert view.dense is not None
        np.testing.assert_allclose(view.pruned[mask], 1.05 * view.dense[mask], rtol=1e-6)
        assert view.importance.max() == 1.0
        assert len(view.kept_importance) == len(layout.row_groups)
        assert sum(view.kept_importance) <= 1 + 1e-6
        if mask.any() and not mask.all():
            grouped += 1
            kept = float(view.importance[mask].sum() / view.importance.sum())
            assert sum(view.kept_importance) == pytest.approx(kept, abs=0.01)  # stored in half precision
    assert grouped > 0


def test_blocks_may_share_a_tensor(tmp_path: Path) -> None:
    """The rows of one tensor can hold the blocks of several matrices, one after another."""
    shape = SublayerShape("feed_forward", hidden=2, units=3, width=1)
    layout: SublayerLayout = rectangle_layout(shape, np.array([2, 0]))
    kind: Kind = "feed_forward"
    stacked = np.arange(20, dtype=np.float32).reshape(10, 2)
    (tmp_path / "model").mkdir()
    save_file({"all": stacked}, tmp_path / "model" / "model.safetensors")
    names = {(0, kind, "intermediate"): "a", (0, kind, "output"): "b"}
    places = {(0, kind, "intermediate"): [("all", 4, 6)], (0, kind, "output"): [("all", 8, 10)]}
    scores = {(0, kind, "intermediate"): np.zeros((3, 2), np.float32), (0, kind, "output"): np.ones((2, 3), np.float32)}
    matrices.write_layout(tmp_path, [(0, layout)], names, places, scores)
    store.write_json(tmp_path / "spec.json", {})
    run = store.Run("id", tmp_path, {}, store.Status("done"), {})
    view = matrices.read_matrix(run, 0, "feed_forward", "intermediate")
    np.testing.assert_array_equal(view.pruned, [[10, 11], [0, 0], [8, 9]])
    assert view.dense is None
    assert view.kept_importance == (0.0,)  # nothing to share out, and no division by zero
    view = matrices.read_matrix(run, 0, "feed_forward", "output")
    np.testing.assert_array_equal(view.pruned, [[17, 0, 16], [19, 0, 18]])
    assert view.kept_importance == pytest.approx((4 / 6,))


@pytest.mark.parametrize("kind", ["untied", "zeros"])
def test_matrices_that_stand_alone_come_back_as_they_run(network: Network, tmp_path: Path, kind: str) -> None:
    layouts = layouts_of_all_kinds(network)[kind]
    modules = [cut(sub, layout) for sub, layout in zip(network.sublayers, layouts, strict=True)]
    pairs = [(sub.layer, layout) for sub, layout in zip(network.sublayers, layouts, strict=True)]
    save_pruned(install(network.model, network.sublayers, modules), pairs, tmp_path / "model")
    results.save_layout(tmp_path, network.sublayers, layouts, network.importance)
    run = store.Run("id", tmp_path, {}, store.Status("done"), {})
    stored = matrices.read_layouts(run)
    for sub, layout in zip(network.sublayers, layouts, strict=True):
        for matrix, linear in zip(layout.matrices(), (*sub.entries, sub.exit), strict=True):
            view = matrices.read_matrix(run, *sub.key, matrix.name)
            for found in (view.layout, stored[*sub.key, matrix.name]):
                np.testing.assert_array_equal(found.mask(), matrix.mask())
                np.testing.assert_array_equal(found.row_order(), matrix.row_order())
                np.testing.assert_array_equal(found.column_order(), matrix.column_order())
                assert found.density == matrix.density
            weights = linear.weight.detach().numpy()
            np.testing.assert_array_equal(view.pruned, np.where(matrix.mask(), weights, 0))
            scores = network.importance[network.sublayers.index(sub)][matrix.name].double().numpy()
            kept = scores[matrix.mask()].sum() / scores.sum()
            assert sum(view.kept_importance) == pytest.approx(kept, rel=1e-5)
            assert len(view.kept_importance) == len(matrix.row_groups)
            figure = figures.window(view, "pruned", "weight", 0, 0)
            assert figure is not None
            drawn = matrix.mask()[np.ix_(matrix.row_order(), matrix.column_order())]
            np.testing.assert_array_equal(~np.isnan(figure.data[0].z), drawn)


@pytest.mark.parametrize("kind", ["tied", "untied", "zeros"])
def test_a_result_says_of_each_sublayer_what_its_layout_is(network: Network, kind: str) -> None:
    for sub, layout, scores in zip(
        network.sublayers, layouts_of_all_kinds(network)[kind], network.importance, strict=True
    ):
        entry = results.describe_sublayer(sub, layout, scores)
        total = sum(float(score.double().sum()) for score in scores.values())
        kept = sum(float(scores[m.name].double().numpy()[m.mask()].sum()) for m in layout.matrices())
        assert entry["kept_importance"] == pytest.approx(kept / total)
        assert (entry["tied"], entry["label"]) == (kind == "tied", layout.label)
        assert [matrix["density"] for matrix in entry["matrices"]] == [m.density for m in layout.matrices()]


def test_without_its_checkpoint_a_matrix_has_no_dense_weights(run_dir: Path) -> None:
    run = store.read_run(run_dir)
    moved = replace(run, spec={**run.spec, "checkpoint_path": str(run_dir / "moved")})
    assert matrices.read_matrix(moved, 0, "attention", "query").dense is None


def test_weights_that_were_replaced_since_the_run_are_not_shown_as_before(run_dir: Path) -> None:
    run = store.read_run(run_dir)
    assert matrices.read_matrix(run, 0, "attention", "query").dense is not None
    file = run_dir / "dense" / "model.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(file).items()}, file)
    os.utime(file, (1, 1))  # two writes can fall into one tick of the clock
    assert matrices.read_matrix(run, 0, "attention", "query").dense is None


@pytest.mark.parametrize("place", [(9, "attention", "query"), (0, "pooler", "query"), (0, "attention", "intermediate")])
def test_a_matrix_that_a_run_lacks_is_one_line(run_dir: Path, place: tuple[int, str, str]) -> None:
    with pytest.raises(RunError, match=f"has no matrix .* of layer {place[0] + 1}"):
        matrices.read_matrix(store.read_run(run_dir), *place)


@pytest.mark.parametrize(
    "name", ["layout.json", "layout.safetensors", "importance.safetensors", "model/model.safetensors"]
)
def test_a_damaged_run_is_one_line(run_dir: Path, name: str) -> None:
    run = store.read_run(run_dir)
    (run_dir / name).write_bytes(b"damaged")
    with pytest.raises(RunError, match=f"{Path(name).name} of .* is missing or damaged"):
        matrices.read_matrix(run, 0, "attention", "query")

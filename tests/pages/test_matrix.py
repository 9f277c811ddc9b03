import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as torch_file

from pgb_core import matrices, store
from pgb_core.settings import get_settings
from tests.pages.visit import charts, healthy, query, visit, words
from tests.sample_run import MINILM, make_sample_run

MEGABYTE = 1_000_000


@pytest.fixture
def run() -> Path:
    return make_sample_run(get_settings().runs_dir, seed=1)


def test_without_runs_the_page_says_what_to_do() -> None:
    app = visit("matrix")
    assert app.title[0].value == "Matrix"
    assert "No finished run yet" in words(app)
    assert charts(app) == []


def test_a_visit_shows_three_stages_and_a_window_and_names_them_in_the_url(run: Path) -> None:
    app = visit("matrix")
    assert len(charts(app)) == 4
    assert all(chart.alt for chart in charts(app))
    layouts = matrices.read_layouts(store.read_run(run))
    layer, kind, name = next(key for key, layout in layouts.items() if len(layout.row_groups) > 1)
    assert (query(app, "run"), query(app, "layer"), query(app, "matrix")) == (
        run.name,
        str(layer + 1),
        f"{kind}.{name}",
    )


def test_the_whole_page_of_a_real_size_fits_its_budget() -> None:
    run = make_sample_run(get_settings().runs_dir, shape=MINILM)
    app = visit("matrix", run=run.name, matrix="feed_forward.intermediate")
    sizes = [len(chart.spec) for chart in charts(app)]
    assert len(sizes) == 4
    assert max(sizes) <= MEGABYTE
    assert sum(sizes) <= 5 * MEGABYTE


def test_a_deep_link_opens_its_matrix_and_group(run: Path) -> None:
    app = visit("matrix", run=run.name, layer="1", matrix="feed_forward.output", group="1", color="importance")
    assert app.selectbox(key="url_layer").value == "1"
    assert app.selectbox(key="url_matrix").value == "feed_forward.output"
    assert "Exact window on group 1" in words(app)
    assert "colored by importance" in charts(app)[0].alt
    assert not app.warning


def test_another_layer_goes_to_the_url_and_forgets_the_group(run: Path) -> None:
    app = visit("matrix", run=run.name, layer="1", group="1")
    app.selectbox(key="url_layer").set_value("2").run()
    assert (query(healthy(app), "layer"), query(app, "group")) == ("2", None)
    assert query(app, "run") == run.name


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("run", "20200101-000000-000000"),
        ("run", "../../etc"),
        ("layer", "77"),
        ("layer", "0"),
        ("layer", "<script>"),
        ("matrix", "attention.nothing"),
        ("group", "0"),
        ("group", "-1"),
        ("group", "x" * 1000),
        ("color", "blue"),
    ],
)
def test_a_bad_query_gets_a_friendly_line_and_the_page_all_the_same(run: Path, key: str, value: str) -> None:
    app = visit("matrix", **{key: value})
    assert len(app.warning) == 1
    assert value[:20] in app.warning[0].value
    assert len(charts(app)) == 4
    assert query(app, key) != value


def test_damaged_files_get_one_line(run: Path) -> None:
    (run / "layout.safetensors").write_bytes(b"no tensors")
    app = visit("matrix")
    assert "layout.safetensors" in app.error[0].value


def test_a_dropped_sublayer_says_so() -> None:
    run = make_sample_run(get_settings().runs_dir, sparsity=0.97, seed=2)
    result = store.read_run(run).result
    assert result is not None
    layer, kind = next((entry["layer"], entry["kind"]) for entry in result["sublayers"] if entry["dropped"])
    app = visit("matrix", run=run.name, layer=str(layer + 1), matrix=f"{kind}.output")
    assert "dropped" in app.info[0].value
    assert len(charts(app)) == 4


def test_without_the_dense_checkpoint_what_is_left_is_shown(run: Path) -> None:
    (run / "dense" / "model.safetensors").unlink()
    app = visit("matrix")
    assert "no longer where it was" in app.info[0].value
    assert len(charts(app)) == 2  # the pruned stage, pooled and exact
    app = visit("matrix", color="importance")
    assert len(charts(app)) == 4


def test_a_checkpoint_that_was_replaced_is_not_shown_as_before(run: Path) -> None:
    file = run / "dense" / "model.safetensors"
    save_file({name: 2 * tensor for name, tensor in load_file(file).items()}, file)
    app = visit("matrix")
    assert "has changed since" in app.info[0].value
    assert len(charts(app)) == 2


def test_a_checkpoint_in_bfloat16_is_drawn(run: Path) -> None:
    file = run / "dense" / "model.safetensors"
    torch_file({name: torch.from_numpy(tensor).bfloat16() for name, tensor in load_file(file).items()}, file)
    spec = store.read_json(run / "spec.json")
    store.write_json(run / "spec.json", {**spec, "fingerprint": hashlib.sha256(file.read_bytes()).hexdigest()})
    assert len(charts(visit("matrix"))) == 4

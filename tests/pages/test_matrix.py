import hashlib
import json
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as torch_file

from pgb_core import matrices, store
from pgb_core.settings import get_settings
from tests.pages.visit import charts, healthy, query, visit, words
from tests.sample_run import MINILM, make_sample_run
from ui import units

MEGABYTE = 1_000_000
ALL = 6
"""Charts of the page: all matrices, the animation, three stages, the exact window."""


@pytest.fixture
def run() -> Path:
    return make_sample_run(get_settings().runs_dir, seed=1)


def test_without_runs_the_page_says_what_to_do() -> None:
    app = visit("matrix")
    assert app.title[0].value == "Matrix"
    assert "No finished run yet" in words(app)
    assert charts(app) == []


def test_a_visit_shows_all_charts_and_names_them_in_the_url(run: Path) -> None:
    app = visit("matrix")
    assert len(charts(app)) == ALL
    assert all(chart.alt for chart in charts(app))
    layouts = matrices.read_layouts(store.read_run(run))
    layer, kind, name = next(key for key, layout in layouts.items() if len(layout.row_groups) > 1)
    assert (query(app, "run"), query(app, "layer"), query(app, "matrix")) == (
        run.name,
        str(layer + 1),
        f"{kind}.{name}",
    )


def test_the_whole_page_of_a_real_size_fits_its_budget() -> None:
    run = make_sample_run(get_settings().runs_dir, shape=MINILM, seed=1)
    app = visit("matrix", run=run.name, layer="1", matrix="feed_forward.intermediate", row="1", column="1")
    sizes = [len(chart.spec) for chart in charts(app)]
    assert len(sizes) == ALL
    assert max(sizes) <= MEGABYTE
    assert sum(sizes) <= 5 * MEGABYTE


def test_a_deep_link_opens_its_matrix_and_group(run: Path) -> None:
    app = visit("matrix", run=run.name, layer="1", matrix="feed_forward.output", group="1", color="importance")
    assert app.selectbox(key="url_layer").value == "1"
    assert app.selectbox(key="url_matrix").value == "feed_forward.output"
    assert "Exact window on group 1" in words(app)
    assert "colored by importance" in charts(app)[2].alt
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
        ("stage", "last"),
        ("row", "-1"),
        ("row", "9999"),
        ("row", "²"),
        ("column", "x"),
        ("row", "1" * 5000),
    ],
)
def test_a_bad_query_gets_a_friendly_line_and_the_page_all_the_same(run: Path, key: str, value: str) -> None:
    app = visit("matrix", **{key: value})
    assert len(app.warning) == 1
    assert units.plain(value[:20]) in app.warning[0].value
    assert len(charts(app)) == ALL
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
    app = visit("matrix", run=run.name, layer=str(layer + 1), matrix=f"{kind}.output", row="0", column="3")
    assert "dropped" in app.info[0].value
    assert len(charts(app)) == ALL - 1  # nothing is permuted
    assert "Neither its row nor its column is in a group" in words(app)


def test_without_the_dense_checkpoint_what_is_left_is_shown(run: Path) -> None:
    (run / "dense" / "model.safetensors").unlink()
    app = visit("matrix")
    assert "no longer where it was" in app.info[0].value
    assert len(charts(app)) == ALL - 2  # of the stages only what is left
    assert app.dataframe[-1].value["mean_before"].isna().all()
    app = visit("matrix", color="importance", row="0", column="0")
    assert len(charts(app)) == ALL
    assert app.metric[0].value == "not at hand"


def test_a_checkpoint_that_was_replaced_is_not_shown_as_before(run: Path) -> None:
    file = run / "dense" / "model.safetensors"
    save_file({name: 2 * tensor for name, tensor in load_file(file).items()}, file)
    app = visit("matrix")
    assert "has changed since" in app.info[0].value
    assert len(charts(app)) == ALL - 2


def test_a_checkpoint_in_bfloat16_is_drawn(run: Path) -> None:
    file = run / "dense" / "model.safetensors"
    torch_file({name: torch.from_numpy(tensor).bfloat16() for name, tensor in load_file(file).items()}, file)
    spec = store.read_json(run / "spec.json")
    store.write_json(run / "spec.json", {**spec, "fingerprint": hashlib.sha256(file.read_bytes()).hexdigest()})
    assert len(charts(visit("matrix"))) == ALL


def test_a_weight_is_followed_by_its_original_place(run: Path) -> None:
    view = matrices.read_matrix(store.read_run(run), 0, "feed_forward", "output")
    row, column = int(view.layout.row_groups[1][2]), int(view.layout.column_groups[1][0])
    app = visit(
        "matrix",
        run=run.name,
        layer="1",
        matrix="feed_forward.output",
        row=str(row),
        column=str(column),
        stage="permuted",
    )
    assert "Its row and its column are both in group 2, so it was kept." in words(app)
    values = {metric.label: metric.value for metric in app.metric}
    assert view.dense is not None
    assert values["In the checkpoint"] == f"{view.dense[row, column]:.4f}"
    assert values["After the refit"] == f"{view.pruned[row, column]:.4f}"
    assert values["Group"] == "2"
    place = int(values["Permuted row, column"].split(", ")[0])
    assert view.layout.row_order()[place] == row
    ringed = [chart for chart in charts(app) if "the followed weight" in chart.spec]
    assert len(ringed) == 4  # three stages and the window


def test_what_is_typed_and_chosen_goes_to_the_url_and_another_matrix_forgets_it(run: Path) -> None:
    app = visit("matrix", run=run.name, layer="1", matrix="feed_forward.output")
    app.number_input(key="url_row").set_value(3).run()
    app.number_input(key="url_column").set_value(4).run()
    assert (query(healthy(app), "row"), query(app, "column")) == ("3", "4")
    app.number_input(key="url_row").set_value(None).run()
    assert query(healthy(app), "row") is None
    app.segmented_control(key="url_stage").set_value("original").run()
    assert query(healthy(app), "stage") == "original"
    assert "original order" in charts(app)[-1].alt
    app.selectbox(key="url_matrix").set_value("attention.query").run()
    assert (query(healthy(app), "column"), query(app, "stage")) == (None, "original")


def test_the_window_begins_where_the_url_says_else_at_the_group(run: Path) -> None:
    large = make_sample_run(get_settings().runs_dir, shape=MINILM, seed=1)
    place = {"run": large.name, "layer": "1", "matrix": "feed_forward.intermediate"}
    view = matrices.read_matrix(store.read_run(large), 0, "feed_forward", "intermediate")
    app = visit("matrix", **place, group="2")
    assert app.slider(key="url_first_row").value == len(view.layout.row_groups[0])
    app = visit("matrix", **place, group="2", first_row="7")
    assert app.slider(key="url_first_row").value == 7
    app.slider(key="url_first_row").set_value(9).run()
    assert query(healthy(app), "first_row") == "9"


def test_every_matrix_is_among_the_thumbnails_and_a_row_of_their_table_opens_it(run: Path) -> None:
    app = visit("matrix", "wall_twin", run=run.name, layer="2", matrix="attention.value")
    spec = json.loads(charts(app)[0].spec)
    assert sum(len(trace.get("customdata", [])) for trace in spec["data"]) == 12
    assert "layer 2 attention value" in charts(app)[0].alt
    assert len(app.dataframe[0].value) == 12


def test_copy_link_gives_the_address_of_what_is_shown_defaults_included(run: Path) -> None:
    asked_for = {"run": run.name, "layer": "1", "matrix": "feed_forward.output", "group": "2"}
    assert not visit("matrix", **asked_for).code
    app = visit("matrix", "copy_link", **asked_for)
    (link,) = app.code
    asked = parse_qs(urlsplit(link.value).query)
    assert asked == {name: [value] for name, value in {**asked_for, "color": "weight", "stage": "pruned"}.items()}
    assert {name: query(app, name) for name in asked} == {name: value for name, (value,) in asked.items()}

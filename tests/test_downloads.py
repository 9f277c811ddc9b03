"""What can be taken along of a run: whole, openable, and safe in a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from pgb_core import RunError, downloads, store
from pgb_core.store import Run
from tests.sample_run import make_sample_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return store.read_run(make_sample_run(tmp_path, recovered=True, sparsity=0.6, seed=1))


def rows(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"))))


def test_the_result_is_that_of_the_folder(run: Run) -> None:
    assert json.loads(downloads.result_json(run)) == json.loads((run.path / "result.json").read_text())


def test_tables_have_the_numbers_of_the_result(run: Run) -> None:
    assert run.result is not None
    layers = rows(downloads.layers_csv(run))
    assert [float(row["density"]) for row in layers] == [entry["density"] for entry in run.result["sublayers"]]
    assert [row["layer"] for row in layers] == ["1", "1", "2", "2"]
    scores = rows(downloads.scores_csv(run))
    assert [float(row["score"]) for row in scores] == [
        run.result["score"][step] for step in ("dense", "masked", "compensated", "recovered")
    ]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", '=HYPERLINK("http://a.b")'])
def test_text_that_a_spreadsheet_would_compute_is_quoted(text: str) -> None:
    assert rows(downloads.to_csv([{"name": text, "number": -1.5}])) == [{"name": f"'{text}", "number": "-1.5"}]


def test_other_text_stays_as_it_is_and_no_rows_are_no_table() -> None:
    text = 'a "quoted", text; über\nlines'
    assert rows(downloads.to_csv([{"name": text}])) == [{"name": text}]
    assert rows(downloads.to_csv([])) == []


def test_the_model_s_zip_holds_its_files_and_is_not_held_twice(run: Run) -> None:
    (run.model_dir / "large.bin").write_bytes(bytes(8_000_000))
    size = downloads.model_bytes(run)
    tracemalloc.start()
    archive = downloads.model_zip(run)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * size
    with zipfile.ZipFile(archive) as file:
        assert file.testzip() is None
        assert {name: file.read(name) for name in file.namelist()} == {
            f"{run.id}/{path.name}": path.read_bytes() for path in run.model_dir.iterdir()
        }
    assert size <= archive.getbuffer().nbytes < 1.01 * size


def test_a_run_without_a_model_has_none(run: Run) -> None:
    for path in run.model_dir.iterdir():
        path.unlink()
    run.model_dir.rmdir()
    assert downloads.model_bytes(run) == 0
    with pytest.raises(RunError, match="has no model"):
        downloads.model_zip(run)


def test_figures_open_without_a_network(run: Run) -> None:
    with zipfile.ZipFile(downloads.figures_zip(run, "<b>A title</b>")) as archive:
        files = {Path(name).name: archive.read(name).decode() for name in archive.namelist()}
    assert {"index.html", "plotly.min.js", "scores.html", "recovery.html", "network.html"} <= files.keys()
    assert len([name for name in files if name.startswith("options-")]) == 4
    assert len([name for name in files if name.startswith("matrix-")]) in (3, 6)
    assert "&lt;b&gt;A title" in files["index.html"]
    assert "<b>A title" not in files["index.html"]
    for name, content in files.items():
        if name.endswith(".html"):
            assert "cdn." not in content
            assert str(run.path.parent) not in content
        if name not in ("index.html", "plotly.min.js"):
            assert f'href="{name}"' in files["index.html"]
            assert 'src="plotly.min.js"' in content
            assert len(content) < 1_000_000


def test_a_method_without_options_has_the_other_figures(tmp_path: Path) -> None:
    run = store.read_run(make_sample_run(tmp_path, method="magnitude"))
    names = downloads.figures_of(run)
    assert {"scores", "network"} <= names.keys()
    assert not [name for name in names if name.startswith(("options", "predictions"))]

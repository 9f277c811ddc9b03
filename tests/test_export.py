"""A model that is taken along: what is written, that it runs without this package, and that ours runs nothing of it."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pgb_core import CheckpointError, RunError, SpecError, checkpoints, evaluation, latency, modeling_pgb_bert, store
from pgb_core import __main__ as cli
from pgb_core import export as export_module
from pgb_core.architectures import input_names
from pgb_core.export import export
from pgb_core.families import Head, portable_files
from pgb_core.latency import Shape
from pgb_core.layout import Layout, dropped_layout
from pgb_core.saving import load_pruned
from tests.network import Network, layouts_of_all_kinds, save_network, some_layouts
from tests.sample_run import make_sample_run
from tests.test_architectures import prune
from tests.tiny import tiny_model, tiny_tokenizer

HERE = Path(__file__).resolve().parent
PORTABLE = ("README.md", "config.json", "model.safetensors", *portable_files("bert"), "pgb.json")
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
EXPORTED: tuple[tuple[str, Head], ...] = (
    ("bert", "question_answering"),
    ("distilbert", "classification"),
    ("distilbert", "question_answering"),
    ("roberta", "regression"),
    ("roberta", "question_answering"),
)

Save = Callable[[str], Path]


def layouts(network: Network, kind: str) -> list[Layout]:
    if kind == "dropped":
        found: list[Layout] = [*some_layouts(network, 3)]
        found[0], found[3] = (dropped_layout(network.sublayers[n].shape) for n in (0, 3))
        return found
    return layouts_of_all_kinds(network)[kind]


@pytest.fixture
def save(network: Network, tiny_checkpoint: Path, tmp_path: Path) -> Save:
    """Saves a pruned model of a kind with its tokenizer; its folder."""

    def made(kind: str) -> Path:
        folder = tmp_path / kind
        save_network(network, layouts(network, kind), folder)
        checkpoints.load_tokenizer(tiny_checkpoint).save_pretrained(folder)
        return folder

    return made


# --- a folder for transformers -------------------------------------------------------------------------------------


def run_elsewhere(inputs: dict[str, torch.Tensor], folders: Sequence[Path], tmp_path: Path) -> dict[str, torch.Tensor]:
    """What `standalone.py` writes of the models in `folders`."""
    save_file(inputs, tmp_path / "inputs.safetensors")
    done = subprocess.run(
        [
            sys.executable,
            "-I",  # neither the current folder nor PYTHONPATH
            *(HERE / "standalone.py", tmp_path / "inputs.safetensors", tmp_path / "outputs.safetensors", *folders),
        ],
        cwd=tmp_path,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, torch.Tensor] = load_file(tmp_path / "outputs.safetensors")
    return found


def outputs_here(folder: Path, implementation: str, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same of the model as the library loads it."""
    model: Any = load_pruned(folder)
    model.set_attn_implementation(implementation)
    read = {name: inputs[name] for name in input_names(model)}
    with torch.no_grad():
        outputs = model(**read, output_hidden_states=True, output_attentions=implementation == "eager")
    name = f"{folder.name}.{implementation}"
    expected = {f"{name}.{key}": tensor for key, tensor in outputs.items() if key.endswith("logits")}
    expected |= {f"{name}.hidden.{n}": state for n, state in enumerate(outputs.hidden_states)}
    return expected | {f"{name}.attention.{n}": weights for n, weights in enumerate(outputs.attentions or ())}


@pytest.mark.timeout(300)
def test_a_process_without_this_package_gets_the_same_from_the_folder(
    network: Network, save: Save, tmp_path: Path
) -> None:
    folders = [tmp_path / "exported" / kind for kind in ("mixed", "dropped")]
    for family, head in EXPORTED:
        prune(tiny_model(family, head), "dropped", tmp_path / f"{family}-{head}")
        tiny_tokenizer(family).save_pretrained(tmp_path / f"{family}-{head}")
        folders.append(tmp_path / "exported" / f"{family}-{head}")
    for folder in folders:
        source = save(folder.name) if folder.name in ("mixed", "dropped") else tmp_path / folder.name
        export(source, folder, "safetensors")
    inputs = network.batches[0].inputs
    found = run_elsewhere(inputs, folders, tmp_path)
    for folder in folders:
        for implementation in ("sdpa", "eager"):
            expected = outputs_here(folder, implementation, inputs)
            assert len(expected) == 1 + 3 + 2 * (implementation == "eager") + ("answering" in folder.name)
            for key, tensor in expected.items():
                assert found[key].shape == tensor.shape
                assert torch.allclose(found[key], tensor, atol=1e-6), key
        tokenizer = checkpoints.load_tokenizer(folder)
        assert found[f"{folder.name}.ids"].tolist() == tokenizer("a happy day, a lovely team")["input_ids"]
    assert {found[f"dropped.eager.attention.{n}"].shape[1] == 0 for n in (0, 1)} == {True, False}


def test_the_folder_holds_what_the_model_needs_and_nothing_of_this_machine(save: Save, tmp_path: Path) -> None:
    source, out = save("tied"), tmp_path / "new" / "exported"
    written = export(source, out, "safetensors")
    assert sorted(file.name for file in out.iterdir()) == sorted((*PORTABLE, *TOKENIZER))
    sizes = {file.name: file.stat().st_size for file in out.iterdir()}
    assert written == {"format": "safetensors", "folder": str(out), "files": sizes}
    for name in portable_files("bert"):
        assert (out / name).read_bytes() == Path(modeling_pgb_bert.__file__).with_name(name).read_bytes()
    assert (out / "pgb.json").read_bytes() == (source / "pgb.json").read_bytes()
    config = json.loads((out / "config.json").read_text())
    assert config["model_type"] == "pgb_bert"
    assert config["architectures"] == ["PGBBertForSequenceClassification"]
    assert config["sublayers"] == json.loads((out / "pgb.json").read_text())["sublayers"]
    for name, reference in config["auto_map"].items():
        assert name in ("AutoConfig", "AutoModelForSequenceClassification")
        module, _, attribute = reference.partition(".")
        assert module == "modeling_pgb_bert"
        assert hasattr(modeling_pgb_bert, attribute)
    for file in out.iterdir():
        assert str(tmp_path).encode() not in file.read_bytes(), file.name
        assert file.stat().st_mode & 0o777 == (out / "config.json").stat().st_mode & 0o777
    before, after = load_file(source / "model.safetensors"), load_file(out / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in after.items())


@pytest.mark.parametrize("kind", ["tied", "untied", "zeros", "dropped"])
def test_what_is_left_is_told_in_words(network: Network, tmp_path: Path, kind: str) -> None:
    save_network(network, layouts(network, kind), tmp_path)
    told = [words for layer in export_module._kept(load_pruned(tmp_path)) for words in layer]
    for layout, words in zip(layouts(network, kind), told, strict=True):
        if layout.dropped or layout.untouched:
            assert words == ("dropped" if layout.dropped else "whole")
            continue
        share, rest = words.split("%", maxsplit=1)
        assert float(share) == pytest.approx(100 * layout.density, abs=0.06)
        if kind == "untied":
            groups = ", ".join(str(len(matrix.row_groups)) for matrix in layout.matrices())
            assert rest == f": each matrix in groups of its own ({groups})"
        elif kind == "zeros":
            assert rest == ", zeros elsewhere"
        else:
            units = f"{layout.kept_units} of {layout.shape.units} "
            assert rest.startswith(f": {units}{'heads' if layout.shape.kind == 'attention' else 'neurons'}")
            assert rest.endswith(f" in {layout.group_count} groups") == (layout.group_count > 1)


def test_an_exported_folder_is_one_more_pruned_model_to_us(save: Save, tmp_path: Path, tiny_csv: Path) -> None:
    source, out, again = save("mixed"), tmp_path / "exported", tmp_path / "again"
    export(source, out, "safetensors")
    assert checkpoints.describe(out) == checkpoints.describe(source)
    scores = [evaluation.evaluate_checkpoint(str(path), "csv", train_file=str(tiny_csv)) for path in (source, out)]
    assert scores[0]["score"] == scores[1]["score"]
    assert latency.measure_checkpoints(str(out), shapes=[Shape(1, 8)], threads=1)[0]["dense"]["median_ms"] > 0
    export(out, again, "safetensors")
    assert {f.name: f.read_bytes() for f in again.iterdir()} == {f.name: f.read_bytes() for f in out.iterdir()}


# --- nothing in a folder is run ------------------------------------------------------------------------------------


@pytest.fixture
def hostile(save: Save, tmp_path: Path) -> Path:
    """An exported folder whose Python file, and whose tokenizer's, would leave a file called `ran` beside it."""
    folder = tmp_path / "hostile"
    export(save("mixed"), folder, "safetensors")
    code = f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n"
    for name in ("modeling_pgb_bert.py", "tokenization_evil.py", "__init__.py", "configuration_bert.py"):
        (folder / name).write_text(code)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["tokenizer_class"] = "tokenization_evil.Tokenizer"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def test_reading_an_exported_folder_never_runs_a_file_in_it(
    hostile: Path, tmp_path: Path, tiny_csv: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ("--task", "csv", "--train-file", tiny_csv, "--eval-samples", "20", "--json")
    sizes = ("--batch", "1", "--length", "8", "--threads", "1", "--json")
    for command in (
        ("evaluate", "--checkpoint", hostile, *data),
        ("latency", "--checkpoint", hostile, *sizes),
        ("export", "--run", hostile, "--format", "safetensors", "--out", tmp_path / "clean", "--json"),
    ):
        assert cli.main([str(argument) for argument in command]) == 0
        assert json.loads(capsys.readouterr().out)
    load_pruned(hostile)
    assert not (tmp_path / "ran").exists()
    runpy.run_path(str(hostile / "modeling_pgb_bert.py"))
    assert (tmp_path / "ran").exists()


def test_a_tokenizer_that_asks_for_code_is_refused(hostile: Path, tmp_path: Path) -> None:
    file = hostile / "tokenizer_config.json"
    asking = {"auto_map": {"AutoTokenizer": ["tokenization_evil.Tokenizer", None]}}
    file.write_text(json.dumps(json.loads(file.read_text()) | asking))
    with pytest.raises(CheckpointError, match="auto_map asks for code of its own"):
        export(hostile, tmp_path / "clean", "safetensors")
    assert not (tmp_path / "ran").exists()


def test_what_is_exported_from_a_hostile_folder_is_clean(hostile: Path, tmp_path: Path) -> None:
    export(hostile, tmp_path / "clean", "safetensors")
    assert sorted(file.name for file in (tmp_path / "clean").iterdir()) == sorted((*PORTABLE, *TOKENIZER))
    assert "evil" not in (tmp_path / "clean" / "tokenizer_config.json").read_text()
    ours = Path(modeling_pgb_bert.__file__).read_bytes()
    assert (tmp_path / "clean" / "modeling_pgb_bert.py").read_bytes() == ours


# --- ONNX ----------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["tied", "dense"])
def test_an_onnx_folder_gives_the_logits_of_the_model_from_text(
    save: Save, tiny_checkpoint: Path, tmp_path: Path, kind: str
) -> None:
    import onnxruntime
    from transformers import AutoConfig, AutoTokenizer

    source, out = tiny_checkpoint if kind == "dense" else save(kind), tmp_path / "graph"
    written = export(source, out, "onnx")
    assert written["files"].keys() == {"README.md", "config.json", "model.onnx", *TOKENIZER}
    tokenizer = AutoTokenizer.from_pretrained(out)
    texts = ["a happy day", "the team was lovely at the house on the road", "sad"]
    tokens = {"padding": True, "truncation": True, "return_token_type_ids": True}
    session = onnxruntime.InferenceSession(out / "model.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(["logits"], dict(tokenizer(texts, **tokens, return_tensors="np")))
    with torch.no_grad():
        expected = evaluation.load_any(source)(**tokenizer(texts, **tokens, return_tensors="pt")).logits
    assert np.abs(found - expected.numpy()).max() < 1e-4
    assert AutoConfig.from_pretrained(out).id2label == {0: "negative", 1: "positive"}


def test_a_graph_that_disagrees_is_not_written(save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pgb_core import onnx_graph

    monkeypatch.setattr(onnx_graph, "write_graph", lambda model, file: file.touch())
    for difference in (0.01, float("nan")):
        monkeypatch.setattr(onnx_graph, "largest_difference", lambda model, file, d=difference: d)
        with pytest.raises(CheckpointError, match="from torch's, more than 1e-04; nothing was written"):
            export(save("tied"), tmp_path / "graph", "onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["tied"]


def test_onnx_without_its_packages_is_one_line(save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_module, "find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(SpecError, match=r"format onnx needs onnxscript; install what requirements\.txt lists"):
        export(save("tied"), tmp_path / "graph", "onnx")


# --- where it is written, and from what ----------------------------------------------------------------------------


def test_a_run_is_exported_with_its_results(save: Save, tmp_path: Path) -> None:
    run = make_sample_run(tmp_path / "runs", sparsity=0.5, recovered=True)
    shutil.rmtree(run / "model")
    shutil.copytree(save("tied"), run / "model")
    for n, source in enumerate((run, run / "model")):
        export(source, tmp_path / f"exported{n}", "safetensors")
        card = (tmp_path / f"exported{n}" / "README.md").read_text()
        assert f"{store.read_json(run / 'result.json')['score']['recovered']:.4f}" in card
    export(save("tied"), tmp_path / "unknown", "safetensors")
    assert "What was measured" not in (tmp_path / "unknown" / "README.md").read_text()


def test_only_a_finished_run_is_exported(tmp_path: Path) -> None:
    run = make_sample_run(tmp_path / "runs")
    store.write_status(run, store.Status("failed", message="The disk is full."))
    with pytest.raises(RunError, match=rf"run {run.name} is failed; only a run that is done can be exported"):
        export(run, tmp_path / "exported", "safetensors")
    assert not (tmp_path / "exported").exists()


def test_a_dense_checkpoint_needs_no_folder_of_ours(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is a dense BERT, which transformers loads as it is"):
        export(tiny_checkpoint, tmp_path / "exported", "safetensors")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="format 'pickle' is none of safetensors, onnx"):
        export(tmp_path, tmp_path / "exported", "pickle")


def test_nothing_is_overwritten(save: Save, tmp_path: Path) -> None:
    source = save("tied")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "full", tmp_path / "file", source):
        with pytest.raises(RunError, match="is there already; choose a new or empty folder"):
            export(source, out, "safetensors")
    assert (tmp_path / "full" / "mine.txt").read_text() == (tmp_path / "file").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    export(source, tmp_path / "empty", "safetensors")
    assert (tmp_path / "empty" / "config.json").exists()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_fails_half_way_leaves_nothing(
    save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(facts: object) -> str:
        raise error

    monkeypatch.setattr(export_module, "model_card", fail)
    with pytest.raises(type(error)):
        export(save("tied"), tmp_path / "exported", "safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["tied"]


def test_a_model_that_is_damaged_or_has_no_tokenizer_is_not_exported(save: Save, tmp_path: Path) -> None:
    source = save("tied")
    tensors = load_file(source / "model.safetensors")
    tensors["classifier.bias"][0] = float("nan")
    save_file(tensors, source / "model.safetensors")
    with pytest.raises(CheckpointError, match="NaN or infinite"):
        export(source, tmp_path / "exported", "safetensors")
    (source / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"neither tokenizer\.json nor vocab\.txt"):
        export(source, tmp_path / "exported", "safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["tied"]


# --- the command ---------------------------------------------------------------------------------------------------


def test_the_command_says_what_it_wrote(save: Save, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["export", "--run", str(save("tied")), "--format", "safetensors", "--out"]
    assert cli.main([*arguments, str(tmp_path / "one"), "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["files"].keys() == {*PORTABLE, *TOKENIZER}
    assert "[  0%] export: loading the model" in err
    assert cli.main([*arguments, str(tmp_path / "two")]) == 0
    *files, folder = capsys.readouterr().out.splitlines()
    assert folder == str(tmp_path / "two")
    size = (tmp_path / "two" / "model.safetensors").stat().st_size
    assert any(line.split() == ["model.safetensors", f"{size:,}", "bytes"] for line in files)


@pytest.mark.parametrize(
    ("run", "out", "line"),
    [
        ("nowhere", "exported", "nowhere is not a folder; a checkpoint is a folder with"),
        ("empty", "exported", "empty has no config.json"),
        ("tied", "tied", "is there already; choose a new or empty folder for --out."),
    ],
)
def test_a_wrong_folder_is_one_line(
    save: Save, tmp_path: Path, capsys: pytest.CaptureFixture[str], run: str, out: str, line: str
) -> None:
    save("tied")
    (tmp_path / "empty").mkdir()
    arguments = ["--run", str(tmp_path / run), "--format", "safetensors", "--out", str(tmp_path / out)]
    assert cli.main(["export", *arguments, "--json"]) == 2
    answer, err = capsys.readouterr()
    assert answer == ""
    assert [text.startswith("pgb: ") and line in text for text in err.splitlines()] == [True]

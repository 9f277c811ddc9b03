"""What is printed to make a run again really makes it again."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from pgb_core import SpecError, prune, reproduce, store
from pgb_core.__main__ import main, make_parser, spec_from
from pgb_core.settings import get_settings
from pgb_core.spec import PruneSpec
from tests.sample_run import make_sample_run

UNUSUAL: dict[str, Any] = {
    "method": "pgb-mixed",
    "importance": "fisher",
    "recover_epochs": 2,
    "seed": 3,
    "device": "cpu",
    "calibration_samples": 64,
    "eval_samples": 100,
    "max_length": 32,
    "latency": False,
    "latency_grid": True,
    "budget": "flops",
    "min_groups": 2,
    "max_groups": 4,
    "pins": ("0.attention", "1.feed_forward:8"),
}


def parsed(command: str) -> PruneSpec:
    """The spec that a printed command line describes."""
    words = shlex.split(command)
    assert words[1:5] == ["python", "-m", "pgb_core", "prune"]
    return spec_from(make_parser().parse_args(words[4:]))


@pytest.mark.timeout(300)
def test_the_command_line_and_the_snippet_make_the_run_again(
    tmp_path: Path, tiny_checkpoint: Path, tiny_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_checkpoint, get_settings().models_dir / "tiny")
    (tmp_path / "upload").mkdir()
    upload = shutil.copy(tiny_csv, tmp_path / "upload" / "0f3a.csv")
    settings: dict[str, Any] = {"method": "structured", "calibration_samples": 48, "latency": False, "eval_samples": 60}
    spec = PruneSpec("tiny", "csv", 0.6, seed=5, train_file=str(upload), pins=("1.attention:2",), **settings)
    result = prune(spec, tmp_path / "first")
    first = store.read_run(tmp_path / "first")

    for number, text in enumerate((reproduce.command(first.spec), reproduce.snippet(first.spec))):
        assert str(tmp_path) not in text
        folder = tmp_path / str(number)
        folder.mkdir()
        shutil.copy(tiny_csv, folder / "train.csv")  # as `conditions` asks
        monkeypatch.chdir(folder)
        monkeypatch.setenv("PGB_THREADS", "")
        if number:
            exec(text, {})  # noqa: S102  # what a user would paste
        else:
            threads, *words = shlex.split(text)
            monkeypatch.setenv(*threads.split("="))
            assert words[:3] == ["python", "-m", "pgb_core"]
            assert main(words[3:]) == 0
        assert os.environ["PGB_THREADS"] == str(first.spec["threads"])
        again = store.read_run(folder / reproduce.OUT)
        assert again.result is not None
        assert again.result["score"] == result["score"]
        assert again.spec["fingerprint"] == first.spec["fingerprint"]
        for name in ("layout.safetensors", "model/model.safetensors"):
            assert (again.path / name).read_bytes() == (first.path / name).read_bytes()


def test_every_field_that_is_not_its_default_is_named_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGB_THREADS", "1")  # the snippet sets it
    spec = PruneSpec("owner/name", "sst2", 0.25, **UNUSUAL)
    assert {item.name for item in fields(PruneSpec)} - UNUSUAL.keys() == {
        "checkpoint", "task", "sparsity", "train_file", "eval_file",
        "text_column", "pair_column", "label_column", "label_map",
    }  # fmt: skip
    recorded = {**spec.to_dict(), "threads": 2, "fingerprint": "ab" * 32}
    assert parsed(reproduce.command(recorded)) == spec
    code = reproduce.snippet(recorded).split("result =")[0]
    namespace: dict[str, Any] = {}
    exec(code, namespace)  # noqa: S102  # what a user would paste
    assert namespace["spec"] == spec

    plain = PruneSpec("demo", "bbc-news", 0.5)
    command = reproduce.command(plain.to_dict())
    assert command == f"python -m pgb_core prune --checkpoint=demo --task=bbc-news --sparsity=0.5 --out={reproduce.OUT}"
    assert reproduce.snippet(plain.to_dict()).count("=") < 10


@pytest.mark.parametrize("name", ["; rm -rf /", "$(touch x)", "it's", '"""', "\\", "a b/../c"])
def test_a_hostile_name_stays_one_word(name: str) -> None:
    recorded = PruneSpec(name, "sst2", 0.5).to_dict()
    words = shlex.split(reproduce.command(recorded))
    assert f"--checkpoint={name}" in words
    assert len(words) == 8
    namespace: dict[str, Any] = {}
    exec(reproduce.snippet(recorded).split("result =")[0], namespace)  # noqa: S102
    assert namespace["spec"].checkpoint == name


def test_where_files_lay_is_not_told_and_what_the_result_depends_on_is() -> None:
    recorded = {
        **PruneSpec("/srv/secret/bert", "csv", 0.5, train_file="/srv/secret/a.parquet").to_dict(),
        "fingerprint": "ab" * 32, "revision": "c0ffee", "threads": 2, "device_name": "cpu",
        "versions": {"torch": "2.13"},
    }  # fmt: skip
    conditions = dict(reproduce.conditions(recorded))
    text = reproduce.command(recorded) + reproduce.snippet(recorded) + str(conditions)
    assert "secret" not in text
    assert "--train-file=train.parquet" in text
    assert "--checkpoint=bert" in text
    assert "ab" * 32 in conditions["weights, SHA-256 of model.safetensors"]
    assert conditions["revision on the Hub"] == "c0ffee"
    assert "2 threads" in conditions["computed on"]
    assert "train.parquet" in conditions["your files"]


def test_settings_that_the_server_no_longer_takes_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = store.read_run(make_sample_run(tmp_path, recovered=True))
    monkeypatch.setenv("PGB_MAX_RECOVER_EPOCHS", "1")
    with pytest.raises(SpecError, match="recover epochs"):
        reproduce.command(run.spec)


def test_what_the_columns_of_a_file_hold_is_part_of_the_command() -> None:
    values = {
        "text_column": "my review",
        "pair_column": "",
        "label_column": "stars",
        "label_map": ("1=so bad", "5=good"),
    }
    spec = PruneSpec("demo", "csv", 0.5, train_file="/uploads/1234.jsonl", **values)
    words = shlex.split(reproduce.command(json.loads(json.dumps(spec.to_dict()))))
    args = make_parser().parse_args(words[words.index("prune") :])
    again = spec_from(args)
    assert {name: getattr(again, name) for name in values} == {**values}
    assert again.columns == spec.columns
    assert again.train_file == "train.jsonl"

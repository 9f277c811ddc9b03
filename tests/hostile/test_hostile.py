"""Every kind of hostile folder is refused in one line, at once, with little memory, and nothing in it is run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pgb_core import __main__ as command_line
from pgb_core.checkpoints import list_checkpoints, load_model, load_tokenizer, resolve
from pgb_core.errors import CheckpointError
from pgb_core.settings import get_settings
from tests.hostile.kinds import KINDS, Place

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 1.0
MEGABYTES = 200


@pytest.fixture(scope="module")
def spoilt(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Place]:
    """A folder of each kind."""
    places = {}
    for number, (name, (spoil, _)) in enumerate(KINDS.items()):
        base = tmp_path_factory.mktemp("hostile")
        place = Place(base / f"kind-{number}", base / "outside", base / "canary")
        place.outside.mkdir()
        shutil.copytree(tiny_checkpoint, place.folder)
        spoil(place)
        places[name] = place
    return places


@pytest.fixture(scope="module")
def worker(tiny_checkpoint: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.hostile.worker", str(tiny_checkpoint)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(timeout=20) == 0


def asked(worker: subprocess.Popen[str], folder: Path) -> dict[str, Any]:
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(f"{folder}\n")
    worker.stdin.flush()
    answer: dict[str, Any] = json.loads(worker.stdout.readline())
    return answer


@pytest.mark.parametrize("name", KINDS)
def test_it_is_refused(name: str, spoilt: dict[str, Place], worker: subprocess.Popen[str]) -> None:
    place, words = spoilt[name], KINDS[name][1]
    answer = asked(worker, place.folder)
    assert answer["outcome"].startswith("refused: ")
    assert words in answer["outcome"]
    assert "\n" not in answer["outcome"]
    assert len(answer["outcome"]) < 400
    assert answer["seconds"] < SECONDS
    assert answer["memory"] < MEGABYTES * 10**6
    assert not answer["done"], "something was run or imported"
    assert not place.canary.exists()


def test_a_good_one_is_not(worker: subprocess.Popen[str], tiny_checkpoint: Path) -> None:
    assert asked(worker, tiny_checkpoint)["outcome"] == resolve(str(tiny_checkpoint), "csv").fingerprint


def test_there_are_many_kinds() -> None:
    assert len(KINDS) >= 25


@pytest.mark.parametrize("name", KINDS)
def test_no_loader_takes_it_either(name: str, spoilt: dict[str, Place]) -> None:
    place = spoilt[name]
    with pytest.raises(CheckpointError):
        load_model(place.folder)
        load_tokenizer(place.folder)
    assert not place.canary.exists()


def test_the_list_offers_none_whose_files_do_not_fit(spoilt: dict[str, Place], tiny_checkpoint: Path) -> None:
    models = get_settings().models_dir
    for place in spoilt.values():
        shutil.copytree(place.folder, models / place.folder.name, symlinks=True, ignore=_pipes)
    shutil.copytree(tiny_checkpoint, models / "good")
    offered = list_checkpoints(get_settings())
    assert offered[0] == "demo"
    assert "good" in offered
    for name in offered[1:]:
        if name != "good":  # its numbers or its tokenizer are wrong, which takes longer to see
            with pytest.raises(CheckpointError, match=r"NaN or infinite|tokenizer"):
                resolve(name, "csv")


def _pipes(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if (Path(folder) / name).is_fifo()]


@pytest.mark.parametrize("name", ["pickle renamed to safetensors", "index that climbs out", "one NaN", "no tokenizer"])
def test_the_command_line_says_so_in_one_line(
    name: str, spoilt: dict[str, Place], tiny_csv: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--checkpoint", str(spoilt[name].folder), "--task", "csv", "--train-file", str(tiny_csv)]
    assert command_line.main(["evaluate", *arguments]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert KINDS[name][1] in output.err
    assert output.err.count("\n") == 1

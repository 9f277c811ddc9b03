"""Whatever the bytes of a header, a config or a tokenizer are: a checkpoint is described or refused, never a crash."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pgb_core import tokenizer_file
from pgb_core.checkpoints import load_tokenizer
from pgb_core.errors import CheckpointError, PGBError
from pgb_core.inspection import admit
from tests.hostile.kinds import INDEX, read_weights, write_weights

EXAMPLES = settings(max_examples=150)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["F32", "BF16"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def folder(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(tiny_checkpoint, tmp_path_factory.mktemp("fuzz") / "copy"))


@pytest.fixture(autouse=True)
def _repaired(folder: Path, tiny_checkpoint: Path) -> None:
    """Every test begins with a good folder; its examples each spoil one file of it."""
    shutil.rmtree(folder)
    shutil.copytree(tiny_checkpoint, folder)


def tried(folder: Path) -> bool:
    """Whether the folder is admitted; anything else than that and a refusal is an error of the test."""
    refusal = ""
    try:
        admit(folder)
    except PGBError as error:
        refusal = str(error)
    assert "\n" not in refusal
    assert len(refusal) < 500
    return not refusal


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where in a JSON document values are, the document itself left out."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, part in inner for found in ((*path, key), *places(part, (*path, key)))]


def changed(document: Any, path: tuple[Any, ...], change: Callable[[Any, Any], None]) -> Any:
    copy = json.loads(json.dumps(document))
    part = copy
    for key in path[:-1]:
        part = part[key]
    change(part, path[-1])
    return copy


def edits(document: Any) -> st.SearchStrategy[Any]:
    """The document with one of its values removed or replaced."""

    def edit(choice: tuple[tuple[Any, ...], bool, Any]) -> Any:
        path, remove, value = choice
        return changed(document, path, lambda p, k: p.pop(k) if remove else p.__setitem__(k, value))

    return st.tuples(st.sampled_from(places(document)), st.booleans(), VALUES).map(edit)


def small(document: dict[str, Any]) -> dict[str, Any]:
    """The document with few of its tensors, so that the draws do not all go to the same kind of entry."""
    return dict(list(document.items())[:4])


@EXAMPLES
@given(st.data())
def test_an_edited_header(folder: Path, tiny_checkpoint: Path, data: st.DataObject) -> None:
    header, content = read_weights(tiny_checkpoint / "model.safetensors")
    edited = header | data.draw(edits(small(header)))
    write_weights(folder / "model.safetensors", edited, content)
    tried(folder)


@EXAMPLES
@given(st.binary(max_size=200), st.binary(max_size=50))
def test_any_header(folder: Path, header: bytes, content: bytes) -> None:
    write_weights(folder / "model.safetensors", header, content)
    assert not tried(folder)


@EXAMPLES
@given(st.data())
def test_weights_with_other_bytes(folder: Path, tiny_checkpoint: Path, data: st.DataObject) -> None:
    raw = bytearray((tiny_checkpoint / "model.safetensors").read_bytes())
    length = 8 + int.from_bytes(raw[:8], "little")
    for place, value in data.draw(st.lists(st.tuples(st.integers(0, length), st.integers(0, 255)), max_size=4)):
        raw[place] = value
    (folder / "model.safetensors").write_bytes(raw[: data.draw(st.sampled_from([len(raw), length, length - 1, 9, 3]))])
    tried(folder)


@EXAMPLES
@given(st.data())
def test_an_edited_config(folder: Path, tiny_checkpoint: Path, data: st.DataObject) -> None:
    config = json.loads((tiny_checkpoint / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(data.draw(edits(config))))
    tried(folder)


@EXAMPLES
@given(st.binary(max_size=300) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_any_config(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    assert not tried(folder)


@EXAMPLES
@given(st.data())
def test_an_edited_tokenizer(folder: Path, tiny_checkpoint: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["tokenizer.json", "tokenizer_config.json"]))
    values = json.loads((tiny_checkpoint / name).read_text())
    (folder / name).write_text(json.dumps(data.draw(edits(values))))
    tried(folder)
    shutil.copy(tiny_checkpoint / name, folder / name)


@settings(max_examples=25)
@example([])
@example({})
@given(VALUES)
def test_a_tokenizer_with_a_value_anywhere(folder: Path, tiny_checkpoint: Path, value: Any) -> None:
    """At every place outside of the vocabulary in turn, and that place left out."""
    document = json.loads((tiny_checkpoint / "tokenizer.json").read_text())
    for path in parts_of_tokenizer(document):
        for edited in (
            changed(document, path, lambda p, k: p.__setitem__(k, value)),
            changed(document, path, _without),
        ):
            (folder / "tokenizer.json").write_text(json.dumps(edited))
            with contextlib.suppress(CheckpointError):
                assert tokenizer_file.check(folder, 40) in ("WordPiece", "BPE")


@settings(max_examples=60)
@given(st.data())
def test_an_edited_tokenizer_is_loaded_or_refused(folder: Path, tiny_checkpoint: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["tokenizer.json", "tokenizer_config.json"]))
    document = json.loads((tiny_checkpoint / name).read_text())
    path = data.draw(st.sampled_from(parts_of_tokenizer(document)))
    value = data.draw(VALUES)
    (folder / name).write_text(json.dumps(changed(document, path, lambda p, k: p.__setitem__(k, value))))
    with contextlib.suppress(CheckpointError):
        assert max(load_tokenizer(folder)("the happy unheard-of win")["input_ids"]) < 40
    shutil.copy(tiny_checkpoint / name, folder / name)


def parts_of_tokenizer(document: Any) -> list[tuple[Any, ...]]:
    """All places of a tokenizer's file but the tokens, which are many of one kind."""
    return [path for path in places(document) if path[:2] != ("model", "vocab") or len(path) == 2]


def _without(part: Any, key: Any) -> None:
    part.pop(key)


@EXAMPLES
@given(st.dictionaries(st.text(max_size=8), VALUES, max_size=3) | VALUES)
def test_any_index(folder: Path, index: Any) -> None:
    (folder / "model.safetensors").unlink(missing_ok=True)
    (folder / INDEX).write_text(json.dumps({"weight_map": index}))
    assert not tried(folder)

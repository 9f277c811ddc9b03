"""What a tokenizer's files name is neither opened nor written: only what is listed of them reaches transformers."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pgb_core import tokenizer_file
from pgb_core.checkpoints import describe, load_tokenizer, resolve
from tests.tiny import SPECIAL_TOKENS

SECRET = "not-for-you"  # noqa: S105
WORDS = (*SPECIAL_TOKENS, "the", "win")


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))


def secrets(base: Path) -> Path:
    """A folder with a secret in each form that a tokenizer can be read from."""
    place = base / "secrets"
    place.mkdir()
    (place / "vocab.txt").write_text("\n".join((*WORDS, SECRET)))
    vocabulary = {word: number for number, word in enumerate((*WORDS, SECRET))}
    model = {"type": "WordPiece", "vocab": vocabulary, "unk_token": "[UNK]", "continuing_subword_prefix": "##"}
    content = {"version": "1.0", "added_tokens": [], "model": {**model, "max_input_chars_per_word": 100}}
    for name in ("tokenizer.json", "tokenizer.0.1.json"):
        (place / name).write_text(json.dumps(content))
    return place


def config(folder: Path, **values: Any) -> None:
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def map_(folder: Path, **values: Any) -> None:
    (folder / "special_tokens_map.json").write_text(json.dumps(values))


ATTACKS: dict[str, Callable[[Path, Path], object]] = {
    "vocab": lambda f, s: config(f, vocab=str(s / "vocab.txt")),
    "vocab in the map": lambda f, s: map_(f, vocab=str(s / "vocab.txt")),
    "vocab_file": lambda f, s: config(f, vocab_file=str(s / "vocab.txt")),
    "vocab_file in the map": lambda f, s: map_(f, vocab_file=str(s / "vocab.txt")),
    "tokenizer_file": lambda f, s: config(f, tokenizer_file=str(s / "tokenizer.json")),
    "tokenizer_file in the map": lambda f, s: map_(f, tokenizer_file=str(s / "tokenizer.json")),
    "fast_tokenizer_files": lambda f, s: config(f, fast_tokenizer_files=[f"../{s.name}/tokenizer.0.1.json"]),
    "gguf_file": lambda f, s: config(f, gguf_file=str(s / "vocab.txt")),
    "init_inputs": lambda f, s: config(f, init_inputs=[str(s / "vocab.txt")]),
    "tokenizer_object": lambda f, s: config(f, tokenizer_object={"a": SECRET}),
    "template that is a link": lambda f, s: (f / "chat_template.jinja").symlink_to(s / "vocab.txt"),
    "templates that are links": lambda f, s: (f / "additional_chat_templates").symlink_to(s),
    "template by name": lambda f, s: config(f, chat_template=[{"name": "../../evil", "template": SECRET}] * 2),
    "template": lambda f, s: config(f, chat_template=SECRET),
    "other key": lambda f, s: config(f, evil_token=SECRET, response_template={"a": SECRET}),
}


@pytest.mark.parametrize("alone", [False, True], ids=["tokenizer.json", "vocab.txt"])
@pytest.mark.parametrize("name", ATTACKS)
def test_only_checked_files_are_read(name: str, alone: bool, folder: Path, tmp_path: Path) -> None:
    if alone:
        (folder / "tokenizer.json").unlink()
        (folder / "vocab.txt").write_text("\n".join(WORDS))
    expected = load_tokenizer(folder)
    ATTACKS[name](folder, secrets(tmp_path))
    resolve(str(folder), "csv")  # real folders carry such keys from where they were made
    tokenizer = load_tokenizer(folder)
    assert tokenizer.get_vocab() == expected.get_vocab()
    assert tokenizer.chat_template is None
    before = set(tmp_path.rglob("*"))
    tokenizer.save_pretrained(tmp_path / "runs" / "out")
    written = set(tmp_path.rglob("*")) - before
    assert all(file.is_relative_to(tmp_path / "runs") for file in written)
    assert {file.name for file in (tmp_path / "runs" / "out").iterdir()} == {"tokenizer.json", "tokenizer_config.json"}
    assert not any(SECRET in file.read_text() for file in written if file.is_file())
    assert str(tmp_path) not in (tmp_path / "runs" / "out" / "tokenizer_config.json").read_text()


def test_the_attacks_worked_on_the_library(folder: Path, tmp_path: Path) -> None:
    """Else the test above would show nothing."""
    from transformers import BertTokenizer

    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    ATTACKS["vocab in the map"](folder, secrets(tmp_path))
    assert SECRET in BertTokenizer.from_pretrained(folder).get_vocab()


def test_a_template_of_any_size_costs_nothing(folder: Path) -> None:
    (folder / "chat_template.jinja").touch()
    os.truncate(folder / "chat_template.jinja", 2**40)  # a hole, which takes no space; reading it would end the test
    assert load_tokenizer(folder).chat_template is None


def test_a_pipe_for_a_template_is_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "chat_template.jinja")
    assert load_tokenizer(folder).chat_template is None


def test_nothing_stays_in_the_folder_for_temporary_files(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    load_tokenizer(folder)
    assert list(place.iterdir()) == []


def test_what_tokenizer_json_makes_needless_is_not_read(folder: Path) -> None:
    for name in ("vocab.txt", "vocab.json", "merges.txt", "added_tokens.json"):
        (folder / name).write_bytes(b"\xff" * 2**23)
    resolve(str(folder), "csv")
    assert len(load_tokenizer(folder)) == 40


def test_padding_of_a_file_is_not_kept(folder: Path) -> None:
    file = folder / "tokenizer.json"
    padding = {"strategy": {"Fixed": 10**9}, "direction": "Left", "pad_to_multiple_of": 10**8}
    padding |= {"pad_id": 1, "pad_type_id": 3, "pad_token": "[UNK]"}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"padding": padding}))
    tokenizer = load_tokenizer(folder)
    assert tokenizer.backend_tokenizer.padding is None
    assert (tokenizer.padding_side, tokenizer.pad_token_type_id) == ("right", 0)


def test_a_large_vocabulary_is_none_too_large(tmp_path: Path) -> None:
    many = 250_000
    model = {"type": "BPE", "vocab": {f"t{n}": n for n in range(many)}, "merges": [["a", "b"]] * many}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model}, separators=(",", ":")))
    assert tokenizer_file.check(tmp_path, many) == "BPE"


@pytest.mark.parametrize("end", ["\x85", "\u2028", "\x0c", "\x1c"])
def test_a_line_of_a_vocabulary_ends_where_libraries_say(folder: Path, end: str) -> None:
    (folder / "tokenizer.json").unlink()
    words = [*WORDS, *(f"a{end}{n}" for n in range(describe(folder).vocabulary - len(WORDS)))]
    for last in ("", "\n"):
        (folder / "vocab.txt").write_text("\n".join(words) + last, newline="")
        assert load_tokenizer(folder).vocab_size == len(words)

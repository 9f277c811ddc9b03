"""Which checkpoint a name means, and what loading guarantees."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoTokenizer, BertTokenizer

from pgb_core import checkpoints
from pgb_core.checkpoints import describe, list_checkpoints, load_model, load_tokenizer, resolve
from pgb_core.errors import CheckpointError, JobCancelled
from pgb_core.settings import get_settings
from tests.test_inspection import edit_config
from tests.tiny import SPECIAL_TOKENS, make_tiny_checkpoint


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))


def edit_tensors(folder: Path, **changes: Any) -> None:
    """Save the tensors with `changes` (dots written as two underscores); None removes one."""
    tensors = load_file(folder / "model.safetensors")
    tensors.update({name.replace("__", "."): tensor for name, tensor in changes.items()})
    save_file({name: t for name, t in tensors.items() if t is not None}, folder / "model.safetensors")


def test_the_model_is_the_file_in_float32(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({name: tensor.half() for name, tensor in tensors.items()}, folder / "model.safetensors")
    edit_config(folder, dtype="float16")
    model = load_model(folder)
    assert not model.training
    assert model.config._attn_implementation == "sdpa"
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, tensors[name].half().float()), name


def test_a_config_cannot_choose_the_attention_kernel(folder: Path) -> None:
    edit_config(folder, attn_implementation="eager", _attn_implementation="flash_attention_2")
    assert load_model(folder).config._attn_implementation == "sdpa"
    edit_config(folder, _attn_implementation="evil/kernel")
    with pytest.raises(CheckpointError, match="_attn_implementation asks for a kernel"):
        load_model(folder)


def test_a_python_file_in_the_folder_is_never_run(folder: Path, tmp_path: Path) -> None:
    mark = tmp_path / "was-run"
    for name in ("modeling_bert.py", "tokenization_bert.py", "conftest.py", "__init__.py"):
        (folder / name).write_text(f"open({str(mark)!r}, 'w').close()")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["tokenizer_class"] = "Evil"
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    load_model(folder)
    assert load_tokenizer(folder)("the win")["input_ids"]
    config["auto_map"] = {"AutoTokenizer": ["tokenization_bert.Evil", "tokenization_bert.Evil"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="auto_map asks for code"):
        load_tokenizer(folder)
    assert not mark.exists()


def test_the_old_names_of_layer_norm_are_read(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    old = {n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): t
           for n, t in tensors.items()}  # fmt: skip
    assert set(old) != set(tensors)
    old["bert.embeddings.position_ids"] = torch.arange(128)[None]
    save_file(old, folder / "model.safetensors")
    state = load_model(folder).state_dict()
    for name, tensor in tensors.items():
        assert torch.equal(state[name], tensor), name


def test_bfloat16_is_read_as_float32(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({name: tensor.bfloat16() for name, tensor in tensors.items()}, folder / "model.safetensors")
    state = load_model(folder).state_dict()
    for name, tensor in tensors.items():
        assert torch.equal(state[name], tensor.bfloat16().float()), name


def split(folder: Path, parts: int = 3) -> None:
    """Save the weights of `folder` in several files, as transformers does with large ones."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names, index = sorted(tensors), {}
    for part in range(parts):
        file = f"model-{part + 1:05}-of-{parts:05}.safetensors"
        save_file({name: tensors[name] for name in names[part::parts]}, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(names[part::parts], file)
    text = json.dumps({"metadata": {"total_size": 1}, "weight_map": index})
    (folder / "model.safetensors.index.json").write_text(text)


def test_weights_in_several_files_are_read(tiny_checkpoint: Path, folder: Path) -> None:
    split(folder)
    assert describe(folder).bytes > describe(tiny_checkpoint).bytes > 0
    assert describe(folder).parameters == describe(tiny_checkpoint).parameters
    first = resolve(str(folder), "csv").fingerprint
    state = load_model(folder).state_dict()
    for name, tensor in load_model(tiny_checkpoint).state_dict().items():
        assert torch.equal(state[name], tensor), name
    part = folder / "model-00002-of-00003.safetensors"
    tensors = load_file(part)
    save_file({name: 2 * tensor for name, tensor in tensors.items()}, part)
    assert resolve(str(folder), "csv").fingerprint != first


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"classifier__weight": None, "classifier__bias": None}, "is not trained"),
        ({"bert__pooler__dense__weight": None}, "bert.pooler.dense.weight is missing"),
        ({"bert__pooler__dense__bias": None}, "bert.pooler.dense.bias is missing"),
        ({"bert__surplus": torch.zeros(2)}, "unexpected tensors, such as bert.surplus"),
        ({"bert__pooler__dense__bias": torch.full((32,), float("nan"))}, "NaN or infinite"),
        ({"classifier__bias": torch.tensor([0.0, float("inf")])}, "NaN or infinite"),
    ],
)
def test_weights_that_do_not_fit_are_refused(folder: Path, changes: dict[str, Any], words: str) -> None:
    edit_tensors(folder, **changes)
    with pytest.raises(CheckpointError, match=words) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


def test_a_pruned_folder_points_to_its_own_loader(folder: Path) -> None:
    (folder / "pgb.json").write_text("{}")
    with pytest.raises(CheckpointError, match="load_pruned"):
        load_model(folder)


def test_too_little_memory_is_told_before_loading(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = type("Memory", (), {"available": 1000})()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    with pytest.raises(CheckpointError, match="of memory"):
        load_model(folder)


def test_the_tokenizer_knows_the_models_positions(tiny_checkpoint: Path) -> None:
    tokenizer = load_tokenizer(tiny_checkpoint)
    assert tokenizer.is_fast
    assert tokenizer.model_max_length == 128
    assert tokenizer.convert_ids_to_tokens(tokenizer("happy win!")["input_ids"]) == [
        "[CLS]", "happy", "win", "[UNK]", "[SEP]",
    ]  # fmt: skip


def test_a_vocabulary_alone_is_enough(folder: Path) -> None:
    words = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    (folder / "vocab.txt").write_text("\n".join(sorted(words, key=lambda word: words[word])))
    expected = load_tokenizer(folder)("the happy game")["input_ids"]
    (folder / "tokenizer.json").unlink()
    assert load_tokenizer(folder)("the happy game")["input_ids"] == expected


TEXTS = ("the Happy win", "  the happé game! win-win", " happy day", "zz 漢字 the", "")
GENERAL = {"tokenizer_class": "PreTrainedTokenizerFast"}
SEQUENCE = {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "StripAccents"}]}
BERT_ENDS = {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}
SWAPPED_ENDS = {"type": "BertProcessing", "sep": ["[CLS]", 2], "cls": ["[SEP]", 3]}


def edit_tokenizer(folder: Path, config: dict[str, Any] | None, **changes: Any) -> None:
    """Write `changes` over the parts of tokenizer.json, a table into a table; `config` is what the other file says."""
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    for name, value in changes.items():
        inner = isinstance(value, dict) and "type" not in value
        content[name] = {**(content[name] or {}), **value} if inner else value
    file.write_text(json.dumps(content))
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("family", "config", "changes"),
    [
        ("bert", None, {}),
        ("roberta", None, {}),
        ("bert", {}, {"normalizer": {"lowercase": False}}),
        ("bert", GENERAL, {"normalizer": {"lowercase": False}}),
        ("bert", {**GENERAL, "do_lower_case": True}, {"normalizer": {"lowercase": False}}),
        ("bert", {}, {"normalizer": {"lowercase": False, "strip_accents": True}}),
        ("bert", {}, {"normalizer": {"handle_chinese_chars": False, "clean_text": False}}),
        ("bert", None, {"normalizer": SEQUENCE}),
        ("bert", {}, {"normalizer": None}),
        ("bert", None, {"pre_tokenizer": {"type": "WhitespaceSplit"}}),
        ("bert", None, {"post_processor": BERT_ENDS}),
        ("bert", None, {"post_processor": SWAPPED_ENDS}),
        ("bert", None, {"model": {"max_input_chars_per_word": 4}}),
        ("bert", None, {"model": {"unk_token": "[MASK]"}}),
        ("bert", {}, {"model": {"unk_token": "[MASK]"}}),
        ("bert", {"unk_token": None}, {}),
        ("bert", None, {"padding": {"strategy": {"Fixed": 64}, "direction": "Left", "pad_to_multiple_of": None,
                        "pad_id": 1, "pad_type_id": 0, "pad_token": "[UNK]"}}),
        ("roberta", {}, {"pre_tokenizer": {"add_prefix_space": True}, "post_processor": {"add_prefix_space": True}}),
        ("roberta", {}, {"pre_tokenizer": {"add_prefix_space": True}}),
        ("roberta", {}, {"post_processor": {"trim_offsets": False}}),
        ("roberta", {"tokenizer_file": "/nowhere.json"}, {"normalizer": {"type": "Lowercase"}}),
    ],
)  # fmt: skip
def test_texts_are_split_as_tokenizer_json_says(
    family: str, config: dict[str, Any] | None, changes: dict[str, Any], tmp_path: Path
) -> None:
    """Also once it was saved with a pruned model, and by transformers, which knows nothing of this package."""
    folder = make_tiny_checkpoint(tmp_path / "first", family=family, train=False)
    edit_tokenizer(folder, config, **changes)
    reference = Tokenizer.from_file(str(folder / "tokenizer.json"))
    reference.no_padding()
    first = load_tokenizer(folder)
    second = make_tiny_checkpoint(tmp_path / "second", family=family, train=False)
    (second / "tokenizer_config.json").unlink()
    first.save_pretrained(second)
    for tokenizer in (first, load_tokenizer(second), AutoTokenizer.from_pretrained(second)):
        for text in TEXTS:
            assert tokenizer(text)["input_ids"] == reference.encode(text).ids
            pair = tokenizer(text, "a win", return_token_type_ids=True, return_offsets_mapping=True)
            expected = reference.encode(text, "a win")
            assert (pair["input_ids"], pair["token_type_ids"]) == (expected.ids, expected.type_ids)
            assert pair["offset_mapping"] == expected.offsets


def test_a_tokenizer_without_a_longest_text_is_read(folder: Path) -> None:
    BertTokenizer.from_pretrained(folder, model_max_length=None).save_pretrained(folder)
    assert json.loads((folder / "tokenizer_config.json").read_text())["model_max_length"] > 10**29
    assert resolve(str(folder), "csv").path == folder.resolve()
    assert load_tokenizer(folder).model_max_length == 128


def test_what_the_settings_say_goes_before_tokenizer_json(folder: Path) -> None:
    edit_tokenizer(folder, {"do_lower_case": False, "tokenizer_class": "BertTokenizerFast"})
    assert load_tokenizer(folder).tokenize("the Happy win") == ["the", "[UNK]", "win"]
    edit_tokenizer(folder, {"tokenizer_class": "BertTokenizerFast"})
    assert load_tokenizer(folder).tokenize("the Happy win") == ["the", "happy", "win"]


def test_a_prefix_space_of_the_settings_is_kept(tmp_path: Path) -> None:
    folder = make_tiny_checkpoint(tmp_path / "first", family="roberta", train=False)
    plain = load_tokenizer(folder)
    edit_tokenizer(folder, {"add_prefix_space": True})
    assert load_tokenizer(folder)("win")["input_ids"] == plain(" win")["input_ids"] != plain("win")["input_ids"]


@pytest.mark.parametrize(
    ("word", "config", "tokens"),
    [
        ("Happy", {}, ["the", "Happy", "[UNK]"]),
        ("happy", {}, ["the", "happy", "happy"]),
        ("[UNUSED1]", {}, ["the", "[UNK]", "[UNK]"]),
        ("<MASK>", {"mask_token": "<MASK>"}, ["the", "[UNK]", "[UNK]"]),
        ("Happy", {"do_lower_case": True}, ["the", "[UNK]", "[UNK]"]),
        ("happy", {"do_lower_case": False}, ["the", "[UNK]", "happy"]),
    ],
)
def test_a_vocabulary_with_capital_letters_is_cased(
    word: str, config: dict[str, Any], tokens: list[str], folder: Path
) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join((*SPECIAL_TOKENS, "the", word)))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert load_tokenizer(folder).tokenize("the Happy happy") == tokens


def test_a_tokenizer_that_cannot_encode_a_text_is_refused(folder: Path) -> None:
    edit_tokenizer(folder, GENERAL, post_processor=None)
    with pytest.raises(CheckpointError, match=r"does not put \[CLS\] and \[SEP\] around a text"):
        load_tokenizer(folder)
    edit_tokenizer(folder, {}, post_processor=None)  # for BERT's own class that means its usual template
    assert load_tokenizer(folder)("the win")["input_ids"][0] == 2
    edit_tokenizer(folder, {}, model={"unk_token": None})
    with pytest.raises(CheckpointError, match="cannot be read") as caught:
        load_tokenizer(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("config", [{"cls_token": "[NEW]"}, {**GENERAL, "pad_token": "[NEW]"}])
def test_a_token_that_the_model_has_never_seen_is_none_to_begin_with(config: dict[str, Any], folder: Path) -> None:
    edit_tokenizer(folder, config)
    words = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    edit_tokenizer(folder, None, model={"vocab": {word: number for word, number in words.items() if number < 39}})
    with pytest.raises(CheckpointError, match="_token is none of its tokens"):
        load_tokenizer(folder)


def test_special_tokens_of_the_map_are_taken(folder: Path) -> None:
    token = {"content": "happy", "lstrip": True, "rstrip": False, "normalized": False, "single_word": False}
    (folder / "special_tokens_map.json").write_text(json.dumps({"mask_token": token, "unk_token": "[UNK]"}))
    tokenizer = load_tokenizer(folder)
    assert tokenizer.mask_token == "happy"  # noqa: S105
    assert tokenizer("the happy win", add_special_tokens=False)["input_ids"][1] == tokenizer.mask_token_id
    tokenizer.save_pretrained(folder)
    (folder / "special_tokens_map.json").unlink()
    assert load_tokenizer(folder).mask_token == "happy"  # noqa: S105


def test_a_tokenizer_that_is_missing_damaged_or_foreign_is_refused(folder: Path) -> None:
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    content["model"]["vocab"]["extra"] = 40
    file.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="do not belong together"):
        load_tokenizer(folder)
    file.write_text("{broken")
    with pytest.raises(CheckpointError, match="cannot be read") as caught:
        load_tokenizer(folder)
    assert "\n" not in str(caught.value)
    file.unlink()
    with pytest.raises(CheckpointError, match="neither"):
        load_tokenizer(folder)


def test_a_cancel_while_the_tokenizer_is_read_is_a_cancel(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cancelled(*arguments: Any, **options: Any) -> None:
        raise JobCancelled("The run was cancelled.")

    monkeypatch.setattr(BertTokenizer, "from_pretrained", cancelled)
    with pytest.raises(JobCancelled):
        load_tokenizer(tiny_checkpoint)


def test_a_path_resolves_to_its_folder_and_fingerprint(folder: Path) -> None:
    found = resolve(str(folder), "csv")
    assert (found.path, found.source, found.revision) == (folder.resolve(), "folder", None)
    assert found.fingerprint == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    (folder / "pgb.json").write_text("{}")
    assert resolve(str(folder), "csv").source == "pruned"


def test_a_plain_name_means_the_models_folder_first(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = shutil.copytree(folder, get_settings().models_dir / "mine")
    shutil.copytree(folder, tmp_path / "here" / "mine")
    monkeypatch.chdir(tmp_path / "here")
    assert resolve("mine", "csv").path == ours.resolve()
    assert resolve("./mine", "csv").path == (tmp_path / "here" / "mine").resolve()


@pytest.mark.parametrize("name", ["nothing-here", "../..secret", "a/b/c", "", "hub:", "https://example.com/x"])
def test_an_unknown_name_gets_one_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        resolve(name, "csv")
    assert "\n" not in str(caught.value)


def test_demo_means_the_demo_of_the_task(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("pgb_core.demo.prepare", lambda task, step: asked.append(task) or folder)
    assert resolve("demo", "bbc-news").source == "demo"
    assert resolve("demo", "csv").path == folder
    assert asked == ["bbc-news", "bbc-news"]
    with pytest.raises(CheckpointError, match="no demo checkpoint for task 'sst2'"):
        resolve("demo", "sst2")


def test_the_list_offers_what_can_be_pruned(folder: Path, tmp_path: Path) -> None:
    models = get_settings().models_dir
    assert list_checkpoints(get_settings()) == ["demo"]
    for name in ("b-model", "a-model", "pruned", "demo", ".hidden", "broken"):
        shutil.copytree(folder, models / name)
    (models / "pruned" / "pgb.json").write_text("{}")
    (models / "broken" / "config.json").write_text("{}")
    (models / "outside").symlink_to(folder)
    (models / "a-file").write_text("")
    assert list_checkpoints(get_settings()) == ["demo", "a-model", "b-model"]
    refused = checkpoints.list_refused(get_settings())
    assert list(refused) == ["broken", "demo", "outside", "pruned"]
    assert "pruned already" in refused["pruned"]
    assert "of type 'unknown'" in refused["broken"]
    with pytest.raises(CheckpointError):
        resolve("outside", "csv")


def test_the_list_survives_a_missing_models_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PGB_MODELS_DIR", str(tmp_path / "none"))
    assert list_checkpoints(get_settings()) == ["demo"]


def test_what_is_exported_exists() -> None:
    assert all(hasattr(checkpoints, name) for name in checkpoints.__all__)
    assert np.unique(checkpoints.__all__).tolist() == sorted(checkpoints.__all__)

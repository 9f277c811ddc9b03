"""What `describe` tells of a folder, and what it refuses before a single tensor is read."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from pgb_core.checkpoints import describe
from pgb_core.errors import CheckpointError
from pgb_core.families import auto_map


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint that a test may spoil."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))


def edit_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    config.update(changes)
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))


def edit_tensors(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def refused(folder: Path, words: str) -> None:
    """`describe` raises a CheckpointError of one line that holds `words`."""
    with pytest.raises(CheckpointError) as caught:
        describe(folder)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_it_tells_what_the_checkpoint_is(tiny_checkpoint: Path) -> None:
    info = describe(tiny_checkpoint)
    tensors = load_file(tiny_checkpoint / "model.safetensors")
    assert (info.family, info.layers, info.hidden, info.heads, info.intermediate) == ("bert", 2, 32, 4, 64)
    assert info.labels == ("negative", "positive")
    assert info.parameters == sum(tensor.size for tensor in tensors.values())
    assert info.encoder_weights == 2 * (4 * 32 * 32 + 2 * 32 * 64)
    assert info.max_positions == 128
    assert info.dtype == "float32"
    assert info.bytes == (tiny_checkpoint / "model.safetensors").stat().st_size
    assert info.head_trained
    assert not info.pruned


def test_describing_needs_no_torch(tiny_checkpoint: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from pgb_core.checkpoints import describe; "
        "assert describe(Path(sys.argv[1])).layers == 2; "
        "sys.exit(sum(name in sys.modules for name in ('torch', 'transformers', 'datasets', 'pandas')))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tiny_checkpoint)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "electra"}, "type 'electra'; only 'bert'"),
        ({"model_type": ...}, "type 'unknown'"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"num_hidden_layers": True}, "num_hidden_layers"),
        ({"hidden_size": -32}, "hidden_size"),
        ({"hidden_size": 32.0}, "hidden_size"),
        ({"vocab_size": "40"}, "vocab_size"),
        ({"num_attention_heads": 5}, "multiple of the number of heads"),
        ({"layer_norm_eps": float("nan")}, "layer_norm_eps"),
        ({"hidden_dropout_prob": 1.5}, "hidden_dropout_prob"),
        ({"hidden_act": "os.system"}, "activation 'os.system'"),
        ({"hidden_act": ["gelu"]}, "activation"),
        ({"auto_map": {"AutoModel": "evil.Model"}}, "code of its own"),
        ({"quantization_config": {"bits": 4}}, "quantized"),
        ({"is_decoder": True}, "decoder"),
        ({"pruned_heads": {"0": [1]}}, "heads removed already"),
        ({"position_embedding_type": "relative_key"}, "absolute position"),
        ({"problem_type": "multi_label_classification"}, "single-label"),
        ({"problem_type": ["x" * 1000]}, "single-label"),
        ({"id2label": {"0": "a", "2": "b"}}, "id2label are not 0 to 1"),
        ({"id2label": ["a", "b"]}, "id2label is not a table"),
        ({"id2label": {"0": "a\nb", "1": "b"}}, "id2label has a label that is no printable name"),
        ({"id2label": {"0": "a", "1": "\x1b[31mb"}}, "id2label has a label that is no printable name"),
        ({"id2label": {"0": "a", "1": "b\u202e"}}, "id2label has a label that is no printable name"),
        ({"architectures": ["Bert\n\x1b[2Jfine"]}, "it is a Bert ?[2Jfine; only"),
        ({"id2label": {"0": "similarity"}}, "classifier.weight is (2, 32), but config.json says (1, 32)"),
        ({"problem_type": "regression"}, "regression of one number"),
        ({"id2label": {"0": "x"}, "problem_type": "single_label_classification"}, "of one label"),
        ({"id2label": {"0": "a", "1": "b", "2": "c"}}, "classifier.weight is (2, 32), but config.json says (3, 32)"),
        ({"num_hidden_layers": 3}, "encoder.layer.2.attention.self.query.weight is missing"),
        ({"num_hidden_layers": 1}, "it has 2 layers, but config.json says 1"),
        ({"intermediate_size": 65}, "intermediate.dense.weight is (64, 32), but config.json says (65, 32)"),
    ],
)
def test_a_config_out_of_bounds_is_refused(folder: Path, changes: dict[str, Any], words: str) -> None:
    edit_config(folder, **changes)
    refused(folder, words)


AUTO_MAP = auto_map("bert", "classification")
EXPORTED = {"model_type": "pgb_bert", "auto_map": AUTO_MAP}


def test_the_auto_map_of_our_own_export_is_known(folder: Path) -> None:
    (folder / "pgb.json").write_text("{}")
    (folder / "modeling_pgb_bert.py").write_text("raise RuntimeError('this file was run')")
    edit_config(folder, **EXPORTED)
    assert describe(folder).pruned


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "bert"},
        {"auto_map": {**AUTO_MAP, "AutoModel": "modeling_pgb_bert.PGBBertForSequenceClassification"}},
        {"auto_map": {**AUTO_MAP, "AutoConfig": "evil.PGBBertConfig"}},
        {"auto_map": {**AUTO_MAP, "AutoConfig": "owner/name--modeling_pgb_bert.PGBBertConfig"}},
        {"auto_map": {**AUTO_MAP, "AutoConfig": ["modeling_pgb_bert.PGBBertConfig"]}},
        {"auto_map": {"AutoConfig": AUTO_MAP["AutoConfig"]}},
        {"auto_map": [AUTO_MAP]},
        {"auto_map": True},
    ],
)
def test_every_other_auto_map_is_refused(folder: Path, changes: dict[str, Any]) -> None:
    (folder / "pgb.json").write_text("{}")
    edit_config(folder, **{**EXPORTED, **changes})
    refused(folder, "code of its own")


def test_the_type_of_a_pruned_model_needs_its_manifest(folder: Path) -> None:
    edit_config(folder, **EXPORTED)
    refused(folder, "type 'pgb_bert'; only 'bert'")


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000, b" " * (2**20 + 1)])
def test_a_config_that_is_no_small_json_object_is_refused(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    refused(folder, "not a JSON object")


@given(st.dictionaries(st.sampled_from(["num_hidden_layers", "hidden_size", "id2label", "vocab_size"]), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)))  # fmt: skip
def test_any_config_is_read_or_refused_never_a_crash(
    tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path, changes: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    shutil.copytree(tiny_checkpoint, folder, dirs_exist_ok=True)
    edit_config(folder, **changes)
    try:
        info = describe(folder)
    except CheckpointError:
        return
    assert info.hidden == 32


@pytest.mark.parametrize("suffix", ["bin", "pt", "pkl", "h5", "ckpt"])
def test_weights_that_can_run_code_are_refused_by_name(folder: Path, suffix: str) -> None:
    (folder / "model.safetensors").rename(folder / f"pytorch_model.{suffix}")
    refused(folder, f"pytorch_model.{suffix} is refused")


def test_what_is_not_a_checkpoint_is_refused(folder: Path, tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "is not a folder")
    (folder / "model.safetensors").unlink()
    refused(folder, "no model.safetensors")
    (folder / "config.json").unlink()
    refused(folder, "no config.json")


def test_an_adapter_is_refused(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "evil/model"}')
    refused(folder, "adapter")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    shutil.move(folder / name, tmp_path / name)
    (folder / name).symlink_to(tmp_path / name)
    refused(folder, f"{name} in copy is a link")


def test_a_folder_in_the_place_of_a_file_is_refused(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()
    refused(folder, "not a regular file")


def test_a_damaged_weight_file_is_refused(folder: Path) -> None:
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-100])
    refused(folder, "damaged")
    weights.write_bytes(b"\xff" * 8 + content[8:])  # a header of 2^64 bytes
    refused(folder, "damaged")
    weights.write_bytes(b"")
    refused(folder, "damaged")


def test_a_tensor_of_another_type_or_name_is_refused(folder: Path) -> None:
    name = "bert.encoder.layer.0.output.dense.weight"
    edit_tensors(folder, lambda tensors: tensors.update({name: tensors[name].astype(np.int8)}))
    refused(folder, f"{name} is missing or not of a float type")


def test_more_parameters_than_the_limit_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGB_MAX_PARAMETERS", "1000")
    refused(folder, "more than the limit of 1,000")


def test_a_bare_encoder_is_told_apart(folder: Path) -> None:
    def strip(tensors: dict[str, Any]) -> None:
        for name in list(tensors):
            tensor = tensors.pop(name)
            if name.startswith("bert."):
                tensors[name.removeprefix("bert.")] = tensor

    full = describe(folder)
    edit_tensors(folder, strip)
    info = describe(folder)
    assert not info.head_trained
    assert info.encoder_weights == full.encoder_weights


def test_half_precision_and_unnamed_labels_are_told(folder: Path) -> None:
    edit_tensors(folder, lambda t: t.update({name: tensor.astype(np.float16) for name, tensor in t.items()}))
    edit_config(folder, id2label=...)
    info = describe(folder)
    assert info.dtype == "float16"
    assert info.labels == ("LABEL_0", "LABEL_1")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vocab_size": 10**6}, "word_embeddings.weight is (40, 32), but config.json says (1000000, 32)"),
        ({"max_position_embeddings": 129}, "position_embeddings.weight is (128, 32)"),
        ({"type_vocab_size": 3}, "token_type_embeddings.weight is (2, 32)"),
        ({"hidden_size": 64}, "word_embeddings.weight is (40, 32), but config.json says (40, 64)"),
        ({"id2label": {"0": "a", "1": "b", "2": "c"}}, "classifier.weight is (2, 32)"),
        ({"num_hidden_layers": 3}, "encoder.layer.2.attention.output.LayerNorm.weight is missing"),
        ({"num_hidden_layers": 1}, "it has 2 layers"),
    ],
)
def test_a_pruned_folder_is_as_large_as_its_config_says(folder: Path, changes: dict[str, Any], words: str) -> None:
    (folder / "pgb.json").write_text("{}")
    edit_config(folder, **changes)
    refused(folder, words)


@pytest.mark.parametrize("name", ["bert.pooler.dense.weight", "classifier.bias"])
def test_a_pruned_folder_has_its_head(folder: Path, name: str) -> None:
    (folder / "pgb.json").write_text("{}")
    edit_tensors(folder, lambda tensors: tensors.pop(name))
    refused(folder, f"{name} is missing")


def test_a_pooler_of_another_size_is_refused(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: tensors.update({"bert.pooler.dense.bias": np.zeros(8, np.float32)}))
    refused(folder, "pooler.dense.bias is (8,), but config.json says (32,)")


def test_inspecting_needs_no_network_module() -> None:
    code = "import sys, pgb_core.inspection; sys.exit('pgb_core.hub' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_pruned_folder_is_told_and_its_shapes_are_its_own(folder: Path) -> None:
    (folder / "pgb.json").write_text("{}")
    name = "bert.encoder.layer.0.output.dense.weight"
    edit_tensors(folder, lambda tensors: tensors.update({name: np.ascontiguousarray(tensors[name][:, :10])}))
    info = describe(folder)
    assert info.pruned
    assert info.encoder_weights == 2 * (4 * 32 * 32 + 2 * 32 * 64) - 32 * 54

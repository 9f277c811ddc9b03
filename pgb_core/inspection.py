"""What a checkpoint folder holds, told from config.json and the header of model.safetensors without loading it.

Both are plain JSON. Only an allow-list of configuration keys is read, every number has its bounds, and every tensor of
the encoder must have the shape that the configuration gives it. Nothing here imports torch or transformers.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from safetensors import SafetensorError, safe_open

from pgb_core.errors import CheckpointError
from pgb_core.families import FAMILIES, PRUNED_PREFIX, Family, Head, Shape, auto_map
from pgb_core.settings import get_settings

NEEDED = ("config.json", "model.safetensors")
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
)
UNSAFE_WEIGHTS = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".h5", ".msgpack", ".onnx", ".npz")
PRUNED_MANIFEST = "pgb.json"
_CONFIG_LIMIT = 2**20
"""Largest config.json that is read, in bytes."""
_BOUNDS: dict[str, tuple[int, int]] = {
    "num_hidden_layers": (1, 96),
    "hidden_size": (2, 8192),
    "num_attention_heads": (1, 128),
    "intermediate_size": (1, 32768),
    "vocab_size": (2, 1_000_000),
    "max_position_embeddings": (8, 16384),
    "type_vocab_size": (1, 16),
}
"""Least and most, by BERT's names."""
_ACTIVATIONS = ("gelu", "gelu_new", "relu", "silu")
_FLOAT_TYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class CheckpointInfo:
    """What a folder holds, told without loading it. `bytes` is the size of model.safetensors."""

    family: str
    """A name of `families.FAMILIES`."""
    head: Head
    """What it answers; of an encoder without a head, what one with its labels would."""
    layers: int
    hidden: int
    heads: int
    intermediate: int
    vocabulary: int
    max_positions: int
    token_types: int
    labels: tuple[str, ...]
    parameters: int
    encoder_weights: int
    """Weights in the matrices of the encoder's linear layers; of a pruned checkpoint, those that it holds."""
    dtype: str
    bytes: int
    pruned: bool
    head_trained: bool


def describe(path: Path) -> CheckpointInfo:
    """What the checkpoint in folder `path` is, from config.json and the header of model.safetensors.

    Raises:
        CheckpointError: it is not an encoder as we load it, not safe to load, damaged, or over the limits.
    """
    _check_files(path)
    family, config = _read_family(path / "config.json"), read_config(path / "config.json")
    pruned = (path / PRUNED_MANIFEST).exists()
    shapes, types = _read_header(path / "model.safetensors")
    floats = {name: shape for name, shape in shapes.items() if types[name] in _FLOAT_TYPES}
    parameters = sum(math.prod(shape) for shape in floats.values())
    limit = get_settings().max_parameters
    if parameters > limit:
        raise CheckpointError(
            f"{path.name} has {parameters:,} parameters, more than the limit of {limit:,}; "
            "choose a smaller one or raise PGB_MAX_PARAMETERS."
        )
    head = _head(config, floats)
    head_trained = _check_shapes(path.name, family, head, config, floats, pruned)
    matrices = [name for name in floats if name.removeprefix(f"{family.name}.").startswith(f"{family.layers}.")]
    encoder = sum(math.prod(floats[name]) for name in matrices if len(floats[name]) > 1)
    sizes = {name: config[family.key(name)] for name in family.sizes}
    return CheckpointInfo(
        family=family.name,
        head=head,
        layers=sizes["num_hidden_layers"],
        hidden=sizes["hidden_size"],
        heads=sizes["num_attention_heads"],
        intermediate=sizes["intermediate_size"],
        vocabulary=sizes["vocab_size"],
        max_positions=family.positions(config),
        token_types=sizes.get("type_vocab_size", 1),
        labels=tuple(config["id2label"].values()),
        parameters=parameters,
        encoder_weights=encoder,
        dtype=_FLOAT_TYPES[types[matrices[0]]] if matrices else "float32",
        bytes=(path / "model.safetensors").stat().st_size,
        pruned=pruned,
        head_trained=head_trained,
    )


def _check_files(path: Path) -> None:
    """The files are there, are files, lie inside the folder, and are of a kind that holds data only."""
    if not path.is_dir():
        raise CheckpointError(
            f"{path} is not a folder; a checkpoint is a folder with config.json and model.safetensors."
        )
    refuse_missing(path.name, {file.name for file in path.iterdir()})
    if (path / "adapter_config.json").exists():
        raise CheckpointError(
            f"{path.name} is an adapter, not a whole model; merge it into its base model and save that."
        )
    for name in (*NEEDED, *TOKENIZER_FILES, PRUNED_MANIFEST):
        file = path / name
        if file.is_symlink() and not file.resolve().is_relative_to(path.resolve()):
            raise CheckpointError(
                f"{name} in {path.name} is a link to outside of the folder; put the file itself there."
            )
        if (file.exists() or name in NEEDED) and not file.is_file():
            raise CheckpointError(f"{name} in {path.name} is not a regular file; put the file itself there.")


def refuse_missing(name: str, files: set[str]) -> None:
    """Raise a CheckpointError that says why the files of `name` are not a checkpoint that can be loaded safely."""
    if "config.json" not in files:
        raise CheckpointError(
            f"{name} has no config.json; a checkpoint is config.json, model.safetensors and tokenizer."
        )
    if "model.safetensors" in files:
        return
    unsafe = sorted(file for file in files if PurePosixPath(file).suffix in UNSAFE_WEIGHTS)
    if "model.safetensors.index.json" in files:
        reason = "its weights are split into several files; save them as one model.safetensors."
    elif unsafe:
        reason = f"{unsafe[0]} is refused, as loading it may run code; save the model as model.safetensors."
    else:
        reason = "save the model with save_pretrained(), which writes one."
    raise CheckpointError(f"{name} has no model.safetensors: {reason}")


def _read_json(file: Path) -> Any:
    """The content of a small JSON file, or None where it is not one."""
    try:
        if file.stat().st_size > _CONFIG_LIMIT:
            return None
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def read_config(file: Path) -> dict[str, Any]:
    """The allow-listed, checked values of config.json, as arguments of the family's configuration, and no others."""
    raw, where = _read_object(file)
    family = _read_family(file)
    _refuse_features(where, raw, family)
    config: dict[str, Any] = {}
    for name, default in family.sizes.items():
        key, (low, high) = family.key(name), _BOUNDS[name]
        value = raw.get(key, default)
        if type(value) is not int or not low <= value <= high:
            raise CheckpointError(f"{where}: {key} is {str(value)[:40]}, not a whole number in {low}..{high}.")
        config[key] = value
    if config[family.key("hidden_size")] % config[family.key("num_attention_heads")]:
        raise CheckpointError(f"{where}: the hidden size is not a multiple of the number of heads.")
    for key, value in family.numbers.items():
        config[key] = raw.get(key, value)
        if type(config[key]) not in (int, float) or not 0 <= config[key] < 1:
            raise CheckpointError(f"{where}: {key} is {str(config[key])[:40]}, not a number in [0, 1).")
    activation = config[family.key("hidden_act")] = raw.get(family.key("hidden_act"), "gelu")
    if activation not in _ACTIVATIONS:
        raise CheckpointError(f"{where}: activation {str(activation)[:40]!r} is none of {', '.join(_ACTIVATIONS)}.")
    pad = raw.get("pad_token_id", family.pad)
    if type(pad) is not int or not 0 <= pad < config["vocab_size"]:
        pad = family.pad
    config["pad_token_id"] = pad
    if family.positions(config) < 1:
        raise CheckpointError(f"{where}: pad_token_id is {pad}, which leaves no position for a text.")
    config["id2label"] = _labels(where, raw)
    config["label2id"] = {label: index for index, label in config["id2label"].items()}
    if len(config["id2label"]) == 1:
        config["problem_type"] = "regression"
    return config


def _read_object(file: Path) -> tuple[dict[str, Any], str]:
    """The raw content of config.json, and what to call it."""
    raw, where = _read_json(file), f"config.json of {file.parent.name}"
    if not isinstance(raw, dict):
        raise CheckpointError(f"{where} is not a JSON object of at most 1 MB; save the model again.")
    return raw, where


def _read_family(file: Path) -> Family:
    """The family that config.json names; that of a pruned model has a prefix of ours."""
    raw, where = _read_object(file)
    kind = raw.get("model_type", "unknown")
    name = kind if isinstance(kind, str) else ""
    if (file.parent / PRUNED_MANIFEST).exists():
        name = name.removeprefix(PRUNED_PREFIX)
    if name not in FAMILIES:
        known = ", ".join(repr(family) for family in FAMILIES)
        raise CheckpointError(f"{where} says the model is of type {str(kind)[:40]!r}; only {known} can be pruned.")
    return FAMILIES[name]


def _refuse_features(where: str, raw: Mapping[str, Any], family: Family) -> None:
    """What a config can ask for that would run foreign code, or make the model another one than we take it for."""
    ours = [auto_map(family.name, "classification"), auto_map(family.name, "question_answering")]
    if raw.get("model_type") == PRUNED_PREFIX + family.name and raw.get("auto_map") in ours:
        raw = {**raw, "auto_map": None}  # as our export writes it; whatever is in that file, it stays unread
    refused = {
        "auto_map": "asks for code of its own",
        "quantization_config": "describes quantized weights",
        "is_decoder": "makes it a decoder",
        "add_cross_attention": "adds cross-attention",
        "pruned_heads": "has heads removed already",
    }
    for key, reason in refused.items():
        if raw.get(key):
            raise CheckpointError(f"{where}: {key} {reason}, which is not supported; use a plain encoder.")
    if raw.get("position_embedding_type", "absolute") != "absolute":
        raise CheckpointError(f"{where}: only absolute position embeddings are supported.")
    problem, labels = raw.get("problem_type"), raw.get("id2label")
    one = isinstance(labels, dict) and len(labels) == 1
    if problem not in (None, "regression" if one else "single_label_classification"):
        raise CheckpointError(
            f"{where}: only single-label classification and regression of one number are supported, "
            f"not {problem!r:.60}{' of one label' if one else ''}."
        )


def _labels(where: str, raw: Mapping[str, Any]) -> dict[int, str]:
    """Label names by index, in the order of the indices; LABEL_0, LABEL_1 where the config names none."""
    names = raw.get("id2label")
    if names is None:
        return {0: "LABEL_0", 1: "LABEL_1"}
    if not isinstance(names, dict) or not 1 <= len(names) <= 1000:
        raise CheckpointError(f"{where}: id2label is not a table of 1 to 1000 label names.")
    labels = {int(key): str(value) for key, value in names.items() if re.fullmatch(r"[0-9]{1,4}", key)}
    if sorted(labels) != list(range(len(names))):
        raise CheckpointError(f"{where}: the keys of id2label are not 0 to {len(names) - 1}.")
    return dict(sorted(labels.items()))


def _read_header(file: Path) -> tuple[dict[str, Shape], dict[str, str]]:
    """Shape and type of every tensor. The library checks that the header fits the file; no tensor is read."""
    try:
        with safe_open(file, framework="numpy") as tensors:
            slices = {_modern(name): tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118
            shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
            types = {name: str(part.get_dtype()) for name, part in slices.items()}
    except (SafetensorError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{file.name} of {file.parent.name} is damaged ({reason}); copy it again.") from error
    return shapes, types


def _modern(name: str) -> str:
    """The first BERTs call LayerNorm's weight and bias gamma and beta; transformers renames them as it loads."""
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def _head(config: Mapping[str, Any], found: Collection[str]) -> Head:
    """What the model answers, or would answer if it had a head: told from its tensors and the number of its labels."""
    if "qa_outputs.weight" in found:
        return "question_answering"
    return "regression" if len(config["id2label"]) == 1 else "classification"


def _check_shapes(
    folder: str, family: Family, head: Head, config: Mapping[str, Any], found: Mapping[str, Shape], pruned: bool
) -> bool:
    """Every tensor of the encoder is there with the shape that the config gives it, and the head fits the labels.

    A dense one may come without a head, which is for loading to judge; a pruned one has always had one.

    Returns:
        Whether there are the weights of a head.
    """
    prefix = f"{family.name}." if f"{family.name}.embeddings.word_embeddings.weight" in found else ""
    expected = {prefix + name: shape for name, shape in family.encoder_shapes(config, pruned).items()}
    hidden, labels = config[family.key("hidden_size")], len(config["id2label"])
    if head == "question_answering" and labels != 2:
        raise CheckpointError(f"{folder}: a head for question answering has 2 outputs, but id2label has {labels}.")
    of_head = family.head_shapes(head, hidden, labels, prefix)
    expected |= {name: shape for name, shape in of_head.items() if pruned or name in found}
    for name, shape in expected.items():
        if name not in found:
            raise CheckpointError(f"{folder}: tensor {name} is missing or not of a float type; save the model again.")
        if found[name] != shape:
            raise CheckpointError(f"{folder}: tensor {name} is {found[name]}, but config.json says {shape}.")
    numbered = re.compile(rf"(?:{family.name}\.)?{re.escape(family.layers)}\.(\d+)\.")
    layers, said = {match[1] for name in found if (match := numbered.match(name))}, family.key("num_hidden_layers")
    if len(layers) > config[said]:
        raise CheckpointError(f"{folder}: it has {len(layers)} layers, but config.json says {config[said]}.")
    return all(name in found for name in of_head if name.endswith(".weight"))

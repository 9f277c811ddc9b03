"""What a checkpoint folder holds, told from config.json and the header of model.safetensors without loading it.

Both are plain JSON. Only an allow-list of configuration keys is read, every number has its bounds, and every tensor of
the encoder must have the shape that the configuration gives it. Nothing here imports torch or transformers.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from safetensors import SafetensorError, safe_open

from pgb_core.errors import CheckpointError
from pgb_core.settings import get_settings

Shape = tuple[int, ...]

NEEDED = ("config.json", "model.safetensors")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json")
UNSAFE_WEIGHTS = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".h5", ".msgpack", ".onnx", ".npz")
PRUNED_MANIFEST = "pgb.json"
PRUNED_TYPE = "pgb_bert"
"""`model_type` in a pruned config.json: transformers then refuses the folder instead of re-initializing its tensors."""
PORTABLE_FILE = "modeling_pgb_bert.py"
"""What runs of a pruned model; an exported folder holds a copy, which is there for others and never run by us."""
AUTO_MAP = {
    "AutoConfig": "modeling_pgb_bert.PGBBertConfig",
    "AutoModelForSequenceClassification": "modeling_pgb_bert.PGBBertForSequenceClassification",
}
"""The only `auto_map` that a config.json may have, and of a pruned model alone."""
_CONFIG_LIMIT = 2**20
"""Largest config.json that is read, in bytes."""
_BOUNDS: dict[str, tuple[int, int, int]] = {  # key: default of transformers, least, most
    "num_hidden_layers": (12, 1, 96),
    "hidden_size": (768, 2, 8192),
    "num_attention_heads": (12, 1, 128),
    "intermediate_size": (3072, 1, 32768),
    "vocab_size": (30522, 2, 1_000_000),
    "max_position_embeddings": (512, 8, 16384),
    "type_vocab_size": (2, 1, 16),
}
_ACTIVATIONS = ("gelu", "gelu_new", "relu", "silu")
_FLOAT_TYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class CheckpointInfo:
    """What a folder holds, told without loading it. `bytes` is the size of model.safetensors."""

    family: str
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
        CheckpointError: it is not a BERT encoder as we load it, not safe to load, damaged, or over the limits.
    """
    _check_files(path)
    config = read_config(path / "config.json")
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
    _check_shapes(path.name, config, floats, pruned)
    encoder = sum(math.prod(s) for name, s in floats.items() if _in_encoder(name) and len(s) > 1)
    weights = [types[name] for name in floats if _in_encoder(name)] or ["F32"]
    return CheckpointInfo(
        family="bert",
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        heads=config["num_attention_heads"],
        intermediate=config["intermediate_size"],
        vocabulary=config["vocab_size"],
        max_positions=config["max_position_embeddings"],
        token_types=config["type_vocab_size"],
        labels=tuple(config["id2label"].values()),
        parameters=parameters,
        encoder_weights=encoder,
        dtype=_FLOAT_TYPES[weights[0]],
        bytes=(path / "model.safetensors").stat().st_size,
        pruned=pruned,
        head_trained="classifier.weight" in floats and any(name.endswith("pooler.dense.weight") for name in floats),
    )


def _in_encoder(name: str) -> bool:
    return name.removeprefix("bert.").startswith("encoder.")


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
    """The allow-listed, checked values of config.json, as arguments of `BertConfig`; every other key is left out."""
    raw, where = _read_json(file), f"config.json of {file.parent.name}"
    if not isinstance(raw, dict):
        raise CheckpointError(f"{where} is not a JSON object of at most 1 MB; save the model again.")
    pruned = (file.parent / PRUNED_MANIFEST).exists()
    if raw.get("model_type") not in (("bert", PRUNED_TYPE) if pruned else ("bert",)):
        kind = str(raw.get("model_type", "unknown"))[:40]
        raise CheckpointError(f"{where} says the model is of type {kind!r}; only 'bert' can be pruned.")
    _refuse_features(where, raw)
    config: dict[str, Any] = {}
    for key, (default, low, high) in _BOUNDS.items():
        value = raw.get(key, default)
        if type(value) is not int or not low <= value <= high:
            raise CheckpointError(f"{where}: {key} is {str(value)[:40]}, not a whole number in {low}..{high}.")
        config[key] = value
    if config["hidden_size"] % config["num_attention_heads"]:
        raise CheckpointError(f"{where}: the hidden size is not a multiple of the number of heads.")
    for key, value in (("hidden_dropout_prob", 0.1), ("attention_probs_dropout_prob", 0.1), ("layer_norm_eps", 1e-12)):
        config[key] = raw.get(key, value)
        if type(config[key]) not in (int, float) or not 0 <= config[key] < 1:
            raise CheckpointError(f"{where}: {key} is {str(config[key])[:40]}, not a number in [0, 1).")
    config["hidden_act"] = raw.get("hidden_act", "gelu")
    if config["hidden_act"] not in _ACTIVATIONS:
        raise CheckpointError(
            f"{where}: activation {str(config['hidden_act'])[:40]!r} is none of {', '.join(_ACTIVATIONS)}."
        )
    pad = raw.get("pad_token_id", 0)
    config["pad_token_id"] = pad if type(pad) is int and 0 <= pad < config["vocab_size"] else 0
    config["id2label"] = _labels(where, raw)
    config["label2id"] = {label: index for index, label in config["id2label"].items()}
    return config


def _refuse_features(where: str, raw: Mapping[str, Any]) -> None:
    """What a config can ask for that would run foreign code, or make the model another one than we take it for."""
    if raw.get("model_type") == PRUNED_TYPE and raw.get("auto_map") == AUTO_MAP:
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
            raise CheckpointError(f"{where}: {key} {reason}, which is not supported; use a plain BERT encoder.")
    if raw.get("position_embedding_type", "absolute") != "absolute":
        raise CheckpointError(f"{where}: only absolute position embeddings are supported.")
    if raw.get("problem_type") not in (None, "single_label_classification"):
        raise CheckpointError(
            f"{where}: only single-label classification is supported, not {raw['problem_type']!r:.60}."
        )


def _labels(where: str, raw: Mapping[str, Any]) -> dict[int, str]:
    """Label names by index, in the order of the indices; LABEL_0, LABEL_1 where the config names none."""
    names = raw.get("id2label")
    if names is None:
        return {0: "LABEL_0", 1: "LABEL_1"}
    if not isinstance(names, dict) or not 1 <= len(names) <= 1000:
        raise CheckpointError(f"{where}: id2label is not a table of 2 to 1000 label names.")
    if len(names) == 1:
        raise CheckpointError(
            f"{where}: id2label has one label; regression heads are not supported yet, only classifiers."
        )
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


def _encoder_shapes(config: Mapping[str, Any], pruned: bool) -> dict[str, Shape]:
    """Name and shape of every tensor of the bare encoder (no pooler, no head), without the `bert.` prefix.

    The linear layers of a pruned one are left out: they have the names and sizes that its manifest gives them.
    """
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    shapes: dict[str, Shape] = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], hidden),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], hidden),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], hidden),
        "embeddings.LayerNorm.weight": (hidden,),
        "embeddings.LayerNorm.bias": (hidden,),
    }
    linears = {f"attention.self.{name}": (hidden, hidden) for name in ("query", "key", "value")} | {
        "attention.output.dense": (hidden, hidden),
        "intermediate.dense": (inner, hidden),
        "output.dense": (hidden, inner),
    }
    for layer in range(config["num_hidden_layers"]):
        prefix = f"encoder.layer.{layer}"
        for name, shape in ({} if pruned else linears).items():
            shapes[f"{prefix}.{name}.weight"] = shape
            shapes[f"{prefix}.{name}.bias"] = shape[:1]
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes[f"{prefix}.{name}.weight"] = shapes[f"{prefix}.{name}.bias"] = (hidden,)
    return shapes


def _check_shapes(folder: str, config: Mapping[str, Any], found: Mapping[str, Shape], pruned: bool) -> None:
    """Every tensor of the encoder is there with the shape that the config gives it, and the head fits the labels.

    A dense one may come without a head, which is for loading to judge; a pruned one has always been a classifier.
    """
    prefix = "bert." if "bert.embeddings.word_embeddings.weight" in found else ""
    expected = {prefix + name: shape for name, shape in _encoder_shapes(config, pruned).items()}
    hidden, labels = config["hidden_size"], len(config["id2label"])
    head: dict[str, Shape] = {
        prefix + "pooler.dense.weight": (hidden, hidden),
        prefix + "pooler.dense.bias": (hidden,),
        "classifier.weight": (labels, hidden),
        "classifier.bias": (labels,),
    }
    expected |= {name: shape for name, shape in head.items() if pruned or name in found}
    for name, shape in expected.items():
        if name not in found:
            raise CheckpointError(f"{folder}: tensor {name} is missing or not of a float type; save the model again.")
        if found[name] != shape:
            raise CheckpointError(f"{folder}: tensor {name} is {found[name]}, but config.json says {shape}.")
    layers = {match[1] for name in found if (match := re.match(r"(?:bert\.)?encoder\.layer\.(\d+)\.", name))}
    if len(layers) > config["num_hidden_layers"]:
        raise CheckpointError(
            f"{folder}: it has {len(layers)} layers, but config.json says {config['num_hidden_layers']}."
        )

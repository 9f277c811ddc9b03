"""What a checkpoint folder holds, told from config.json and the headers of its weights without loading it.

Every tensor that the family's encoder and head have must be there with the shape that the configuration gives it, and
no other. `describe` looks at what is small; `admit`, which everything passes that is going to be loaded, also at the
tokenizer's files and at every weight. Nothing here imports torch or transformers, and nothing in a folder is run.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pgb_core import config_file, tokenizer_file
from pgb_core.config_file import PRUNED_MANIFEST, read_config
from pgb_core.errors import CheckpointError
from pgb_core.families import Family, Head, Shape
from pgb_core.headers import FLOAT_TYPES, INDEX, SHARD, WEIGHTS, Stored, read_headers, weight_files
from pgb_core.settings import get_settings
from pgb_core.soundness import refuse_non_finite
from pgb_core.tokenizer_file import TOKENIZER_FILES

__all__ = [
    "INDEX",
    "NEEDED",
    "PRUNED_MANIFEST",
    "SHARD",
    "TOKENIZER_FILES",
    "UNREAD",
    "WEIGHTS",
    "CheckpointInfo",
    "admit",
    "describe",
    "read_config",
    "refuse_missing",
]

NEEDED = ("config.json", WEIGHTS)
UNSAFE_WEIGHTS = (
    *(".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill", ".mar", ".h5", ".hdf5", ".keras"),
    *(".msgpack", ".onnx", ".pb", ".npz", ".npy", ".gguf", ".tflite", ".zip", ".tar", ".gz"),
)
UNREAD = re.compile(r"(^|\.)(embeddings\.position_ids|pooler\.dense\.(weight|bias))$")
"""Tensors that transformers once saved with models that do not read them."""


@dataclass(frozen=True)
class CheckpointInfo:
    """What a folder holds, told without loading it. `bytes` is the size of its weights on disk."""

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
    """Most tokens of a text."""
    token_types: int
    """1 where the family has none."""
    labels: tuple[str, ...]
    """By their ids; of no account where the head is no classifier."""
    parameters: int
    encoder_weights: int
    """Weights in the matrices of the encoder's linear layers; of a pruned checkpoint, those that it holds."""
    dtype: str
    bytes: int
    pruned: bool
    head_trained: bool


def describe(path: Path) -> CheckpointInfo:
    """What the checkpoint in folder `path` is, from config.json and the headers of its weights.

    Raises:
        CheckpointError: it is not an encoder as we load it, not safe to load, damaged, or over the limits.
    """
    return _inspect(path)[0]


def admit(path: Path) -> CheckpointInfo:
    """As `describe`; moreover the tokenizer's files are there and fit, and all weights are finite.

    Reads all files once: 0.2 s for BERT-base.

    Raises:
        CheckpointError: what `describe` refuses, an unfit tokenizer, NaN or infinite weights.
    """
    info, tensors = _inspect(path)
    tokenizer_file.check(path, info.vocabulary)
    _refuse_non_finite(path, tensors)
    return info


def refuse_unsound(path: Path) -> None:
    """Raise a CheckpointError where a weight in folder `path` is NaN or infinite."""
    _refuse_non_finite(path, read_headers(path))


def _refuse_non_finite(path: Path, tensors: Mapping[str, Stored]) -> None:
    try:
        refuse_non_finite(path.name, tensors.items())
    except OSError as error:
        raise CheckpointError(f"the weights of {path.name} cannot be read ({error}); copy it again.") from error


def _inspect(path: Path) -> tuple[CheckpointInfo, dict[str, Stored]]:
    _check_files(path)
    family, config = config_file.read_family(path / "config.json")
    pruned = (path / PRUNED_MANIFEST).exists()
    stored = read_headers(path)
    tensors = {_modern(name): tensor for name, tensor in stored.items()}
    floats = {name: tensor for name, tensor in tensors.items() if tensor.dtype in FLOAT_TYPES}
    parameters = sum(tensor.numbers for tensor in floats.values())
    limit = get_settings().max_parameters
    if parameters > limit:
        raise CheckpointError(
            f"{path.name} has {parameters:,} parameters, more than the limit of {limit:,}; "
            "choose a smaller one or raise PGB_MAX_PARAMETERS."
        )
    head = _head(family, config, tensors)
    _check_tensors(path.name, family, config, tensors, head, pruned)
    encoder = [tensor for name, tensor in floats.items() if _layer(family, name) is not None]
    sizes = {name: config[family.key(name)] for name in family.sizes}
    info = CheckpointInfo(
        family=family.name,
        head=head or _untrained(config),
        layers=sizes["num_hidden_layers"],
        hidden=sizes["hidden_size"],
        heads=sizes["num_attention_heads"],
        intermediate=sizes["intermediate_size"],
        vocabulary=sizes["vocab_size"],
        max_positions=family.positions(config),
        token_types=sizes.get("type_vocab_size", 1),
        labels=tuple(config["id2label"].values()),
        parameters=parameters,
        encoder_weights=sum(tensor.numbers for tensor in encoder if len(tensor.shape) > 1),
        dtype=FLOAT_TYPES[encoder[0].dtype] if encoder else "float32",
        bytes=sum(file.stat().st_size for file in weight_files(path)),
        pruned=pruned,
        head_trained=head is not None,
    )
    return info, stored


# --- files ---------------------------------------------------------------------------------------------------------


def _check_files(path: Path) -> None:
    """The files are there, are files, lie inside the folder, and are of a kind that holds data only."""
    try:
        if not path.is_dir():
            raise CheckpointError(
                f"{path} is not a folder; a checkpoint is a folder with config.json and model.safetensors."
            )
        names = {file.name for file in path.iterdir()}
        refuse_missing(path.name, names)
        for name in (*NEEDED, INDEX, *TOKENIZER_FILES, PRUNED_MANIFEST):
            _refuse_link(path, name)
        for file in weight_files(path):
            _refuse_link(path, file.name)
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read ({error.strerror or error}); copy it again.") from error


def _refuse_link(path: Path, name: str) -> None:
    file = path / name
    if file.is_symlink():
        with contextlib.suppress(RuntimeError):  # a link to itself, before Python 3.13
            if file.resolve().is_relative_to(path.resolve()) and file.exists():
                return
        raise CheckpointError(f"{name} in {path.name} is a link to outside of the folder; put the file itself there.")
    if file.exists() and not file.is_file():
        raise CheckpointError(f"{name} in {path.name} is not a regular file; put the file itself there.")


def refuse_missing(name: str, files: Collection[str]) -> None:
    """Raise a CheckpointError that says why the files of `name` are not a checkpoint that can be loaded safely."""
    if "adapter_config.json" in files:
        raise CheckpointError(f"{name} is an adapter, not a whole model; merge it into its base model and save that.")
    if "config.json" not in files:
        raise CheckpointError(
            f"{name} has no config.json; a checkpoint is config.json, model.safetensors and tokenizer."
        )
    if WEIGHTS in files or INDEX in files:
        return
    unsafe = sorted(file for file in files if PurePosixPath(file).suffix.lower() in UNSAFE_WEIGHTS)
    if unsafe:
        reason = f"{unsafe[0]} is refused, as loading it may run code; save the model as model.safetensors."
    else:
        reason = "save the model with save_pretrained(), which writes one."
    raise CheckpointError(f"{name} has no model.safetensors: {reason}")


# --- tensors -------------------------------------------------------------------------------------------------------


def _modern(name: str) -> str:
    """The first BERTs call LayerNorm's weight and bias gamma and beta; transformers renames them as it loads."""
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def _layer(family: Family, name: str) -> int | None:
    """Number of the encoder's layer that a tensor belongs to."""
    found = re.match(rf"{re.escape(family.layers)}\.(\d{{1,6}})\.", name.removeprefix(f"{family.name}."))
    return int(found[1]) if found else None


def _untrained(config: Mapping[str, Any]) -> Head:
    return "regression" if len(config["id2label"]) == 1 else "classification"


def _head(family: Family, config: Mapping[str, Any], found: Collection[str]) -> Head | None:
    """What the model answers: told from tensors of a head that are no part of the base model; None without one."""
    if "qa_outputs.weight" in found:
        return "question_answering"
    outside = [name for name in family.classifier if not name.startswith("pooler")]
    return _untrained(config) if any(f"{name}.weight" in found for name in outside) else None


def _check_tensors(
    folder: str,
    family: Family,
    config: Mapping[str, Any],
    found: Mapping[str, Stored],
    head: Head | None,
    pruned: bool,
) -> None:
    """Every tensor of encoder and head is there, has the shape that the config gives it, and is of a float type.

    A dense checkpoint has no others, and may come without a head; a pruned one has the head that it was pruned with,
    and linear layers that its manifest lists.
    """
    prefix = f"{family.name}." if f"{family.name}.embeddings.word_embeddings.weight" in found else ""
    expected = {prefix + name: shape for name, shape in family.encoder_shapes(config, pruned).items()}
    labels, hidden = len(config["id2label"]), config[family.key("hidden_size")]
    if head == "question_answering" and labels != 2:
        raise CheckpointError(f"{folder}: a head for question answering has 2 outputs, but id2label has {labels}.")
    if head is not None or pruned:
        expected |= family.head_shapes(head or _untrained(config), hidden, labels, prefix)
    _refuse_misfits(folder, expected, found)
    layers = {number for name in found if (number := _layer(family, name)) is not None}
    said = config[family.key("num_hidden_layers")]
    if len(layers) > said:
        raise CheckpointError(f"{folder}: it has {len(layers)} layers, but config.json says {said}.")
    spare = () if head else family.pretrained
    surplus = sorted(n for n in found if n not in expected and not UNREAD.search(n) and not n.startswith(spare))
    if surplus and not pruned:
        raise CheckpointError(
            f"{folder}: {len(surplus)} unexpected tensors, such as {surplus[0]:.80}; it is another model than its "
            "config.json says."
        )


def _refuse_misfits(folder: str, expected: Mapping[str, Shape], found: Mapping[str, Stored]) -> None:
    for name, shape in expected.items():
        if name not in found or found[name].dtype not in FLOAT_TYPES:
            raise CheckpointError(f"{folder}: tensor {name} is missing or not of a float type; save the model again.")
        if found[name].shape != shape:
            raise CheckpointError(f"{folder}: tensor {name} is {found[name].shape}, but config.json says {shape}.")

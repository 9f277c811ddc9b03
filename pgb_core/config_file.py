"""config.json of somebody else's: allow-listed keys within bounds, or one line that says why not.

It may ask for code, kernels or quantization, none of which is ever wanted: such a file is refused by name, though the
keys would not be passed on. What is returned has the names that the family's configuration class takes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pgb_core import bounded_json
from pgb_core.errors import CheckpointError
from pgb_core.families import FAMILIES, PRUNED_PREFIX, Family, auto_map

PRUNED_MANIFEST = "pgb.json"
_LIMIT = 2**20
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
_ATTENTION = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
_KINDS = ("Model", "ForPreTraining", "ForMaskedLM", "ForSequenceClassification", "ForQuestionAnswering")
"""How the class of a model may end that has a head for us, or one that is replaced."""
_LABEL_LENGTH = 200


def read_config(file: Path) -> dict[str, Any]:
    """The checked values of config.json, as arguments of the family's configuration class; other keys are left out.

    Raises:
        CheckpointError: it is no such file, or asks for what is not supported.
    """
    return read_family(file)[1]


def read_family(file: Path) -> tuple[Family, dict[str, Any]]:
    """The family that config.json names, and what `read_config` returns.

    Raises:
        CheckpointError: as for `read_config`.
    """
    raw, where = _read(file), f"config.json of {file.parent.name}"
    family = _family(where, raw, pruned=(file.parent / PRUNED_MANIFEST).exists())
    _refuse_features(where, raw, family)
    config: dict[str, Any] = {}
    for name, default in family.sizes.items():
        key = family.key(name)
        config[key] = _whole(where, key, raw.get(key, default), *_BOUNDS[name])
    if config[family.key("hidden_size")] % config[family.key("num_attention_heads")]:
        raise CheckpointError(f"{where}: the hidden size is not a multiple of the number of heads.")
    for key, value in family.numbers.items():
        config[key] = _fraction(where, key, raw.get(key, value))
    activation = config[family.key("hidden_act")] = raw.get(family.key("hidden_act"), "gelu")
    if activation not in _ACTIVATIONS:
        raise CheckpointError(f"{where}: activation {str(activation)[:40]!r} is none of {', '.join(_ACTIVATIONS)}.")
    pad = raw.get("pad_token_id")
    pad = _whole(where, "pad_token_id", family.pad if pad is None else pad, 0, config["vocab_size"] - 1)
    config["pad_token_id"] = pad
    if family.positions(config) < 1:
        raise CheckpointError(f"{where}: pad_token_id is {pad}, which leaves no position for a text.")
    config["id2label"] = _labels(where, raw)
    config["label2id"] = {label: index for index, label in config["id2label"].items()}
    if len(config["id2label"]) == 1:
        config["problem_type"] = "regression"
    return family, config


def _read(file: Path) -> dict[str, Any]:
    try:
        return bounded_json.read_object(file, _LIMIT)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"config.json of {file.parent.name} is not a JSON object of at most 1 MB in UTF-8 ({reason:.100}); "
            "save the model again."
        ) from error


def _family(where: str, raw: Mapping[str, Any], *, pruned: bool) -> Family:
    """The family that is named; the name of a pruned one may have a prefix of ours."""
    kind = raw.get("model_type", "unknown")
    name = kind if isinstance(kind, str) else ""
    name = name.removeprefix(PRUNED_PREFIX) if pruned else name
    if name not in FAMILIES:
        known = ", ".join(repr(family) for family in FAMILIES)
        raise CheckpointError(f"{where} says the model is of type {str(kind)[:40]!r}; only {known} can be pruned.")
    return FAMILIES[name]


def _refuse_features(where: str, raw: Mapping[str, Any], family: Family) -> None:
    """What a config can ask for that would run foreign code, or make the model another one than we take it for."""
    ours = [auto_map(family.name, "classification"), auto_map(family.name, "question_answering")]
    if raw["model_type"] == PRUNED_PREFIX + family.name and raw.get("auto_map") in ours:
        raw = {**raw, "auto_map": None}  # as our export writes it; whatever is in that file, it stays unread
    refused = {
        "auto_map": "asks for code of its own",
        "quantization_config": "describes quantized weights",
        "is_decoder": "makes it a decoder",
        "add_cross_attention": "adds cross-attention",
        "pruned_heads": "has heads removed already",
        "transformers_weights": "names another file of weights",
    }
    for key, reason in refused.items():
        if raw.get(key):
            raise CheckpointError(
                f"{where}: {key} {reason}, which is not supported; use a plain {family.title} encoder."
            )
    for key in raw:
        if "attn_implementation" in key and raw[key] is not None and raw[key] not in _ATTENTION:
            raise CheckpointError(
                f"{where}: {key[:60]} asks for a kernel ({str(raw[key])[:60]!r}), which would be code from elsewhere; "
                "remove it."
            )
    if raw.get("position_embedding_type", "absolute") != "absolute":
        raise CheckpointError(f"{where}: only absolute position embeddings are supported.")
    problem, labels = raw.get("problem_type"), raw.get("id2label")
    one = isinstance(labels, dict) and len(labels) == 1
    if problem not in (None, "regression" if one else "single_label_classification"):
        raise CheckpointError(
            f"{where}: only single-label classification and regression of one number are supported, "
            f"not {problem!r:.60}{' of one label' if one else ''}."
        )
    _refuse_kind(where, raw.get("architectures"), family)


def _refuse_kind(where: str, names: Any, family: Family) -> None:
    """The classes that a config names are of its family, and end in a way that we know."""
    if names is None:
        return
    known = {f"{pruned}{family.prefix}{kind}" for pruned in ("", "PGB") for kind in _KINDS}
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CheckpointError(f"{where}: architectures is not a list of names.")
    for name in names:
        if name not in known:
            raise CheckpointError(
                f"{where}: it is a {name[:60]}; only sequence classifiers, regressions, question answering models "
                f"and raw encoders of {family.title} are supported."
            )


def _whole(where: str, key: str, value: Any, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise CheckpointError(f"{where}: {key} is {str(value)[:40]}, not a whole number in {low}..{high}.")
    return value


def _fraction(where: str, key: str, value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value < 1:
        raise CheckpointError(f"{where}: {key} is {str(value)[:40]}, not a number in [0, 1).")
    return float(value)


def _labels(where: str, raw: Mapping[str, Any]) -> dict[int, str]:
    """Label names by index, in the order of the indices; LABEL_0, LABEL_1 where the config names none."""
    names = raw.get("id2label")
    if names is None:
        count = _whole(where, "num_labels", raw.get("num_labels", 2), 1, 1000)
        return {index: f"LABEL_{index}" for index in range(count)}
    if not isinstance(names, dict) or not 1 <= len(names) <= 1000:
        raise CheckpointError(f"{where}: id2label is not a table of 1 to 1000 label names.")
    for value in names.values():
        if isinstance(value, dict | list) or len(str(value)) > _LABEL_LENGTH or not str(value).isprintable():
            raise CheckpointError(
                f"{where}: id2label has a label that is no printable name of up to {_LABEL_LENGTH} characters."
            )
    labels = {int(key): str(value) for key, value in names.items() if re.fullmatch(r"[0-9]{1,4}", key)}
    if sorted(labels) != list(range(len(names))):
        raise CheckpointError(f"{where}: the keys of id2label are not 0 to {len(names) - 1}.")
    return dict(sorted(labels.items()))

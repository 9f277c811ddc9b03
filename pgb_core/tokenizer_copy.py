"""The tokenizer of a checkpoint as transformers gets it: a folder that holds what was checked, and nothing else.

transformers reads further files that lie in a folder, and opens paths that its settings name. Moreover its classes of
BERT and RoBERTa make their normalizer, pre-tokenizer and template from their arguments, whatever tokenizer.json says:
so the arguments are taken from there, and a tokenizer.json that no arguments make is loaded by the general class.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pgb_core import bounded_json, tokenizer_file, tokenizer_settings
from pgb_core.tokenizer_settings import text_of

_GENERAL = "PreTrainedTokenizerFast"
_CLASSES = {"WordPiece": "BertTokenizer", "BPE": "RobertaTokenizer"}
_NAMES: Mapping[str, Mapping[str, str]] = {
    "WordPiece": {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]"},
    "BPE": {"sep_token": "</s>", "pad_token": "<pad>", "cls_token": "<s>"},
}
"""What tokens are called where no file says so."""
_ARGUMENTS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "do_lower_case": (("BertNormalizer",), "lowercase"),
    "strip_accents": (("BertNormalizer",), "strip_accents"),
    "tokenize_chinese_chars": (("BertNormalizer",), "handle_chinese_chars"),
    "add_prefix_space": (("ByteLevel", "RobertaProcessing"), "add_prefix_space"),
    "trim_offsets": (("RobertaProcessing",), "trim_offsets"),
}
"""Of the classes: the types of the parts that they set, and what they are called there."""
_MODELS: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "WordPiece": {"continuing_subword_prefix": ("##",), "max_input_chars_per_word": (100,)},
    "BPE": {
        "unk_token": (None,),
        "continuing_subword_prefix": (None, ""),
        "end_of_word_suffix": (None, ""),
        "fuse_unk": (False,),
        "byte_fallback": (False,),
        "ignore_merges": (False,),
    },
}
"""What the classes make of a model, which no argument changes; a value that is not there is the first."""


def write(source: Path, vocabulary: int, target: Path) -> str:
    """Copy the tokenizer in folder `source` into the empty folder `target`, as far as it is checked and used.

    Args:
        source: the checkpoint's folder.
        vocabulary: how many tokens its model knows.
        target: of the same name, for what refusals say.

    Returns:
        The class of transformers that loads it.

    Raises:
        CheckpointError: what `tokenizer_file.check` refuses.
        ValueError: it lacks a token that every text needs.
        OSError: a file cannot be read or written.
    """
    for name in tokenizer_file.used(source):
        with (source / name).open("rb") as opened:  # a byte more than is accepted, for the check to see
            (target / name).write_bytes(opened.read(tokenizer_file.LIMIT + 1))
    kind = tokenizer_file.check(target, vocabulary)  # the copy: nobody can change that any more
    settings, is_general = _settings(target)
    file = target / "tokenizer.json"
    name = _CLASSES[kind]
    if file.exists():
        parts = _with_settings(bounded_json.read_object(file, tokenizer_file.LIMIT), {} if is_general else settings)
        file.write_text(json.dumps(parts), encoding="utf-8")
        settings = _named(settings, kind, parts)
        arguments = arguments_of(kind, parts, settings)
        if arguments is None or (is_general and not parts.get("post_processor")):
            name, arguments = _GENERAL, {}
        settings = {key: value for key, value in settings.items() if key not in _ARGUMENTS} | arguments
    elif kind == "WordPiece" and "do_lower_case" not in settings:
        words = (target / "vocab.txt").read_text(encoding="utf-8").split("\n")
        settings["do_lower_case"] = not is_cased(words, settings)
    (target / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return name


def is_cased(words: Iterable[str], settings: Mapping[str, Any]) -> bool:
    """Whether a vocabulary has capital letters, other than in its special tokens and those in square brackets."""
    special = {text_of(settings[key]) for key in tokenizer_settings.NAMED if settings.get(key)}
    special |= {text_of(token) for token in settings.get("additional_special_tokens", ())}
    plain = (word.strip() for word in words)
    return any(
        word != word.lower() for word in plain if word not in special and not (word[:1] == "[" and word[-1:] == "]")
    )


def _settings(folder: Path) -> tuple[dict[str, Any], bool]:
    """The settings in `folder`, and whether they are for the general class, to which tokenizer.json says all.

    special_tokens_map.json goes first, unless the other has a table of tokens, as in transformers. It is removed.
    """
    found: dict[str, Any] = {}
    config: dict[str, Any] = {}
    if (file := folder / "tokenizer_config.json").exists():
        config = tokenizer_file.read_config(file)
        found = tokenizer_settings.allowed(config)
    if (file := folder / "special_tokens_map.json").exists():
        if "added_tokens_decoder" not in found:
            found |= tokenizer_settings.allowed(tokenizer_file.read_config(file))
        file.unlink()
    if (folder / "tokenizer.json").exists():
        found.pop("added_tokens_decoder", None)  # they are there as well
    return found, config.get("tokenizer_class") in (_GENERAL, "TokenizersBackend")


def _named(settings: Mapping[str, Any], kind: str, parts: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, with the usual names of tokens that have none; the general class gives them none of its own.

    Raises:
        ValueError: a token that every text needs is none of the tokenizer's; transformers would add it, and the model
            has never seen it.
    """
    tokens = {*parts["model"]["vocab"], *(token.get("content") for token in parts["added_tokens"])}
    names: dict[str, Any] = {key: name for key, name in _NAMES[kind].items() if name in tokens}
    if parts["model"].get("unk_token") is not None:
        names["unk_token"] = parts["model"]["unk_token"]
    names |= settings
    for key in tokenizer_settings.NEEDED:
        if key not in names or text_of(names[key]) not in tokens:
            raise ValueError(f"its {key} is none of its tokens")
    return names


def _with_settings(parts: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """tokenizer.json as the class of its settings takes it: what they say goes before what it says itself.

    Without what is for training (leaving out merges at random) and what every call sets (padding and truncation).
    """
    found = {"added_tokens": [], **parts, "model": dict(parts["model"]), "padding": None, "truncation": None}
    if "merges" in found["model"]:
        found["model"]["dropout"] = None
    for argument, (kinds, key) in _ARGUMENTS.items():
        for place in ("normalizer", "pre_tokenizer", "post_processor"):
            if argument in settings and (part := found.get(place)) and part["type"] in kinds:
                found[place] = {**part, key: settings[argument]}
    return found


def arguments_of(kind: str, parts: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """The arguments with which transformers' class for `kind` does what a checked tokenizer.json says.

    Args:
        kind: `WordPiece` or `BPE`.
        parts: of the tokenizer.json.
        settings: what the tokens are called.

    Returns:
        None where there are none: it says something that the class cannot do.
    """
    model, usual = parts["model"], _MODELS[kind]
    if any(model.get(key, values[0]) not in values for key, values in usual.items()):
        return None
    if kind == "WordPiece" and model.get("unk_token", "[UNK]") != text_of(settings.get("unk_token", "[UNK]")):
        return None
    return (_bert if kind == "WordPiece" else _roberta)(parts, settings)


def _bert(parts: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any] | None:
    normalizer = parts.get("normalizer") or {}
    if normalizer.get("type") != "BertNormalizer" or normalizer.get("clean_text") is not True:
        return None
    if (parts.get("pre_tokenizer") or {}).get("type") != "BertPreTokenizer":
        return None
    cls, sep = _ends(parts, settings)
    template = parts.get("post_processor")
    if template and template not in ({"type": "BertProcessing", "sep": sep, "cls": cls}, _template(cls, sep)):
        return None
    found = {
        argument: normalizer.get(key) for argument, (kinds, key) in _ARGUMENTS.items() if "BertNormalizer" in kinds
    }
    return None if found["do_lower_case"] is None or found["tokenize_chinese_chars"] is None else found


def _roberta(parts: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any] | None:
    split, template = parts.get("pre_tokenizer") or {}, parts.get("post_processor")
    if parts.get("normalizer") or split.get("type") != "ByteLevel" or split.get("use_regex", True) is not True:
        return None
    found = {"add_prefix_space": split.get("add_prefix_space"), "trim_offsets": True}
    cls, sep = _ends(parts, settings)
    if template:
        found["trim_offsets"] = template.get("trim_offsets")
        ends = {"type": "RobertaProcessing", "sep": sep, "cls": cls}
        if template != {**ends, **found}:
            return None
    return found if all(isinstance(value, bool) for value in found.values()) else None


def _ends(parts: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
    """The tokens before and after a text, each with its id."""
    known = {token.get("content"): token.get("id") for token in parts["added_tokens"]} | parts["model"]["vocab"]
    names = (text_of(settings.get(key, "")) for key in ("cls_token", "sep_token"))
    first, last = ([name, known.get(name)] for name in names)
    return first, last


def _template(cls: list[Any], sep: list[Any]) -> dict[str, Any]:
    """`[CLS] A [SEP]` and `[CLS] A [SEP] B [SEP]`, as BERT's class writes them."""

    def piece(kind: str, name: str, number: int) -> dict[str, Any]:
        return {kind: {"id": name, "type_id": number}}

    single = [piece("SpecialToken", cls[0], 0), piece("Sequence", "A", 0), piece("SpecialToken", sep[0], 0)]
    second = [piece("Sequence", "B", 1), piece("SpecialToken", sep[0], 1)]
    tokens = {name: {"id": name, "ids": [number], "tokens": [name]} for name, number in (cls, sep)}
    return {"type": "TemplateProcessing", "single": single, "pair": [*single, *second], "special_tokens": tokens}

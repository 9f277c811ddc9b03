"""The files of a tokenizer, looked at before a library reads them: sizes, ids within the vocabulary, known parts only.

A tokenizer.json may hold regular expressions and templates that take any time, and ids that the model has no
embedding for. So its parts must be of the kinds that tokenizers of BERT, DistilBERT and RoBERTa are made of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pgb_core import bounded_json, tokenizer_settings
from pgb_core.errors import CheckpointError

TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "merges.txt"),
    *("special_tokens_map.json", "added_tokens.json"),
)
"""All that is read of a tokenizer. One of tokenizer.json, vocab.txt, and vocab.json with merges.txt is needed."""
LIMIT = 2**23
"""Largest file of a tokenizer that is read, in bytes: RoBERTa's tokenizer.json, written with indents, has 3.5 MB."""
_SMALL_LIMIT = 2**20
_KINDS = {
    "normalizer": {"BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "StripAccents", "Strip", "Sequence"},
    "pre_tokenizer": {"BertPreTokenizer", "ByteLevel", "Whitespace", "WhitespaceSplit", "Punctuation", "Sequence"},
    "post_processor": {"BertProcessing", "RobertaProcessing", "TemplateProcessing", "ByteLevel", "Sequence"},
    "decoder": {"WordPiece", "ByteLevel", "BPEDecoder", "Sequence"},
}
_MODELS = ("WordPiece", "BPE")
_LONGEST_WORD = 1000
"""Characters of a word that WordPiece may look up; the time that it takes grows with their square."""
_MOST_PIECES = 16
"""Of a template: `[CLS] A [SEP] B [SEP]` has five."""
_DEEPEST = 4
"""Sequences within one another; usual are none or one."""


def used(folder: Path) -> set[str]:
    """The files of `folder` that its tokenizer is made of: a tokenizer.json says all that others say of the tokens."""
    names = {name for name in TOKENIZER_FILES if (folder / name).exists()}
    if "tokenizer.json" in names:
        names -= {"vocab.txt", "vocab.json", "merges.txt", "added_tokens.json"}
    return names


def check(folder: Path, vocabulary: int) -> str:
    """Make sure that the tokenizer in `folder` is one for a model of `vocabulary` tokens.

    Returns:
        `WordPiece`, as BERT's, or `BPE`, the byte-level one of RoBERTa; the class of the model does not decide that.

    Raises:
        CheckpointError: its files are missing, damaged, too large, of another kind, or know more tokens than the model.
    """
    names = used(folder)
    if not ({"tokenizer.json", "vocab.txt"} & names or {"vocab.json", "merges.txt"} <= names):
        raise CheckpointError(
            f"{folder.name} has neither tokenizer.json nor vocab.txt (or vocab.json and merges.txt); save the "
            "tokenizer there as well."
        )
    kind = None
    for name in sorted(names):
        try:
            kind = _CHECKS[name](folder / name, vocabulary) or kind
        except (OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise CheckpointError(
                f"the tokenizer of {folder.name} cannot be read ({name}: {reason:.150}); save it there again."
            ) from error
        except _TooManyTokens as error:
            raise CheckpointError(
                f"the tokenizer of {folder.name} has {error} tokens, its model {vocabulary}; "
                "they do not belong together."
            ) from error
    return kind or ("WordPiece" if "vocab.txt" in names else "BPE")


def _kind(model: Mapping[str, Any]) -> str:
    """The kind of a tokenizer.json's model; old files do not say."""
    return str(model.get("type") or ("BPE" if "merges" in model else "WordPiece"))


class _TooManyTokens(Exception):
    """A token's id is beyond the model's embeddings; says how many tokens there would have to be."""


def _check_tokenizer(file: Path, vocabulary: int) -> str:
    """tokenizer.json, which says all; returns the kind of its model."""
    parts = bounded_json.read_object(file, LIMIT)
    model = parts.get("model")
    if not isinstance(model, dict) or _kind(model) not in _MODELS:
        raise ValueError(f"its model is none of {' and '.join(_MODELS)}")
    tokens = _vocabulary(model.get("vocab"), vocabulary)
    longest = model.get("max_input_chars_per_word", 0)
    if type(longest) is not int or not 0 <= longest <= _LONGEST_WORD:
        raise ValueError(f"max_input_chars_per_word is not a whole number up to {_LONGEST_WORD}")
    added = parts.get("added_tokens") or []
    most = tokenizer_settings.MOST_ADDED
    if not isinstance(added, list) or len(added) > most or not all(isinstance(token, dict) for token in added):
        raise ValueError(f"added_tokens is no list of up to {most} tokens")
    _refuse_ids((token.get("id") for token in added), vocabulary)
    unknown = model.get("unk_token")
    if unknown is not None and not isinstance(unknown, str):
        raise ValueError("its token for unknown words is no text")
    if unknown is not None and unknown not in tokens and unknown not in [token.get("content") for token in added]:
        raise ValueError("its token for unknown words is none of its tokens")
    for name, kinds in _KINDS.items():
        for part in _nested(parts.get(name)):
            if not isinstance(part.get("type"), str) or part["type"] not in kinds:
                raise ValueError(f"its {name} has a part of type {part.get('type')!s:.40}, which is not supported")
            _refuse_ids(_ids_of(part), vocabulary)
    return _kind(model)


def _vocabulary(tokens: Any, vocabulary: int) -> Mapping[str, int]:
    if not isinstance(tokens, dict) or not tokens:
        raise ValueError("it has no vocabulary")
    _refuse_ids(tokens.values(), vocabulary)
    return tokens


def _refuse_ids(ids: Any, vocabulary: int) -> None:
    for number in ids:
        if type(number) is not int or number < 0:
            raise ValueError("an id of a token is not a whole number")
        if number >= vocabulary:
            raise _TooManyTokens(number + 1)


def _nested(part: Any, within: int = 0) -> Iterator[dict[str, Any]]:
    """A part and those that it is a sequence of; `within` counts the sequences around it."""
    if part is None:
        return
    if within > _DEEPEST:
        raise ValueError(f"it has parts within more than {_DEEPEST} others")
    if not isinstance(part, dict):
        raise ValueError("a part of it is not described as one")
    yield part
    for key in ("normalizers", "pretokenizers", "processors", "decoders"):
        inner = part.get(key, [])
        if not isinstance(inner, list) or len(inner) > _MOST_PIECES:
            raise ValueError(f"{key} is no list of up to {_MOST_PIECES} parts")
        for each in inner:
            yield from _nested(each, within + 1)


def _ids_of(part: Mapping[str, Any]) -> list[Any]:
    """Ids of tokens that a post-processor puts around a text."""
    found = []
    for key in ("cls", "sep"):
        if key in part:
            pair = part[key]
            if not isinstance(pair, list) or len(pair) != 2:
                raise ValueError(f"{key} is no token with its id")
            found.append(pair[1])
    for key in ("single", "pair"):
        if not isinstance(part.get(key, []), list) or len(part.get(key, [])) > _MOST_PIECES:
            raise ValueError(f"its template has more than {_MOST_PIECES} pieces")
    tokens = part.get("special_tokens", {})
    if not isinstance(tokens, dict) or len(tokens) > _MOST_PIECES:
        raise ValueError("its template has no table of tokens")
    for token in tokens.values():
        ids = token.get("ids") if isinstance(token, dict) else None
        if not isinstance(ids, list) or len(ids) > _MOST_PIECES:
            raise ValueError("its template has tokens without ids")
        found += ids
    return found


def _check_words(file: Path, vocabulary: int) -> None:
    """vocab.txt: a token in each line."""
    text = _read_text(file)
    tokens = text.count("\n") + (not text.endswith("\n"))  # only what libraries take for the end of a line
    if not text:
        raise ValueError("it is empty")
    if tokens > vocabulary:
        raise _TooManyTokens(tokens)


def _check_merges(file: Path, vocabulary: int) -> None:
    _read_text(file)


def _read_text(file: Path) -> str:
    with file.open("rb") as opened:
        content = opened.read(LIMIT + 1)
    if len(content) > LIMIT:
        raise ValueError(f"it is larger than {LIMIT / 1e6:.0f} MB")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError("it is not UTF-8 text") from error


def _check_table(file: Path, vocabulary: int) -> None:
    """vocab.json: ids by token."""
    _refuse_ids(bounded_json.read_object(file, LIMIT).values(), vocabulary)


def _check_added(file: Path, vocabulary: int) -> None:
    """added_tokens.json: ids by token, of a few."""
    tokens = bounded_json.read_object(file, _SMALL_LIMIT)
    if len(tokens) > tokenizer_settings.MOST_ADDED:
        raise ValueError(f"it has more than {tokenizer_settings.MOST_ADDED} tokens")
    _refuse_ids(tokens.values(), vocabulary)


def _check_config(file: Path, vocabulary: int) -> None:
    """tokenizer_config.json and special_tokens_map.json: settings, of which none may ask for code."""
    config = read_config(file)
    if config.get("auto_map"):
        raise ValueError("auto_map asks for code of its own, which is never run; remove it")
    _refuse_ids(
        (int(number) for number in tokenizer_settings.allowed(config).get("added_tokens_decoder", {})), vocabulary
    )


def read_config(file: Path) -> dict[str, Any]:
    """What tokenizer_config.json or special_tokens_map.json says.

    Raises:
        ValueError: it is too large or no JSON object.
        OSError: it cannot be read.
    """
    return bounded_json.read_object(file, _SMALL_LIMIT)


_CHECKS: Mapping[str, Callable[[Path, int], str | None]] = {
    "tokenizer.json": _check_tokenizer,
    "tokenizer_config.json": _check_config,
    "special_tokens_map.json": _check_config,
    "vocab.txt": _check_words,
    "vocab.json": _check_table,
    "merges.txt": _check_merges,
    "added_tokens.json": _check_added,
}

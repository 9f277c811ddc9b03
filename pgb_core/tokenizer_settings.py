"""What is taken of tokenizer_config.json and special_tokens_map.json: a few keys of known types, and nothing else.

transformers passes every key of these files on as an argument, and some arguments are paths that it opens or objects
that it calls. A key that is not listed here is left out, not refused: real files carry stale paths.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MOST_SPECIAL = 100
"""Special tokens beyond the named ones; the time to add them grows with their square."""
MOST_ADDED = 2_000
_FLAGS = ("do_lower_case", "strip_accents", "tokenize_chinese_chars", "add_prefix_space", "trim_offsets")
_SIDES = ("padding_side", "truncation_side")
NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
NEEDED = ("sep_token", "pad_token", "cls_token")
_EXTRA = ("additional_special_tokens", "extra_special_tokens")
_TOKEN_FLAGS = ("single_word", "lstrip", "rstrip", "normalized")
_LONGEST_TOKEN = 200


def allowed(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a tokenizer's configuration that transformers may get, with tokens as it writes them.

    Raises:
        ValueError: the value of such a key is of another type, too long, or null where a token is needed; the message
            says which.
    """
    found = {key: config[key] for key in _FLAGS if config.get(key) is not None}
    for key, value in found.items():
        if not isinstance(value, bool):
            raise ValueError(f"{key} is neither true nor false")
    if "strip_accents" in config:
        found["strip_accents"] = config["strip_accents"]  # null means: where it is lower-cased
    found |= {key: config[key] for key in _SIDES if config.get(key) in ("left", "right")}
    for key in NAMED:
        if config.get(key) is not None:
            found[key] = _token(key, config[key])
        elif key in config and key in NEEDED:
            raise ValueError(f"{key} is null, but every text needs one")
    for key in _EXTRA:
        if config.get(key):
            found["additional_special_tokens"] = _extra(key, config[key])
    if config.get("added_tokens_decoder") is not None:
        found["added_tokens_decoder"] = _added(config["added_tokens_decoder"])
    return found


def text_of(token: str | Mapping[str, Any]) -> str:
    """What a token of `allowed` is written as."""
    return token if isinstance(token, str) else str(token["content"])


def _token(key: str, token: Any) -> str | dict[str, Any]:
    if not isinstance(token, dict):
        return _text(key, token)
    return {"__type": "AddedToken", **_described(key, token), "special": True}


def _described(key: str, token: Mapping[str, Any]) -> dict[str, Any]:
    flags = {flag: token[flag] for flag in _TOKEN_FLAGS if flag in token}
    if not all(isinstance(flag, bool) for flag in flags.values()):
        raise ValueError(f"{key} is not described as a token")
    return {"content": _text(key, token.get("content")), **flags}


def _text(key: str, text: Any) -> str:
    if not isinstance(text, str) or not 0 < len(text) <= _LONGEST_TOKEN:
        raise ValueError(f"{key} is no token of up to {_LONGEST_TOKEN} characters")
    return text


def _extra(key: str, tokens: Any) -> list[str | dict[str, Any]]:
    """Newer files may give them names, which nothing here uses."""
    listed = list(tokens.values()) if isinstance(tokens, dict) else tokens
    if not isinstance(listed, list) or len(listed) > MOST_SPECIAL:
        raise ValueError(f"{key} is no list of up to {MOST_SPECIAL} tokens")
    return [_token(key, token) for token in listed]


def _added(tokens: Any) -> dict[str, Any]:
    if not isinstance(tokens, dict) or len(tokens) > MOST_ADDED:
        raise ValueError(f"added_tokens_decoder is no table of up to {MOST_ADDED} tokens")
    found = {}
    for number, token in tokens.items():
        if not (number.isascii() and number.isdecimal() and len(number) < 10) or not isinstance(token, dict):
            raise ValueError("added_tokens_decoder is no table of tokens by their ids")
        found[number] = {**_described("added_tokens_decoder", token), "special": token.get("special") is True}
    return found

"""Folders that nobody should load: each kind spoils a good tiny checkpoint, and names the words of its refusal.

What could run, would create the file `canary`.
"""

from __future__ import annotations

import json
import os
import pickle  # noqa: TID251 - what is refused has to be made
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
LAYER = "bert.encoder.layer.0.output.dense.weight"
POOLER = "bert.pooler.dense.bias"


@dataclass(frozen=True)
class Place:
    """The folder to spoil, one outside of it, and the file that must never appear."""

    folder: Path
    outside: Path
    canary: Path

    @property
    def weights(self) -> Path:
        return self.folder / WEIGHTS


Spoil = Callable[[Place], object]
KINDS: dict[str, tuple[Spoil, str]] = {}


def kind(name: str, words: str) -> Callable[[Spoil], Spoil]:
    """Enter a kind of folder under `name`; its refusal holds `words`."""

    def enter(spoil: Spoil) -> Spoil:
        assert name not in KINDS
        KINDS[name] = spoil, words
        return spoil

    return enter


# --- what runs code when it is loaded ------------------------------------------------------------------------------


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.canary), "w")


def evil(place: Place) -> bytes:
    return pickle.dumps(Payload(place.canary))


def _in_place_of_weights(file: str) -> Spoil:
    def spoil(place: Place) -> None:
        place.weights.unlink()
        (place.folder / file).write_bytes(evil(place))

    return spoil


for _name in (
    *("pytorch_model.bin", "model.pt", "model.pth", "weights.pkl", "model.pickle", "last.ckpt", "model.joblib"),
    *("tf_model.h5", "flax_model.msgpack", "model.onnx", "weights.npz", "PYTORCH_MODEL.BIN", "model.mar"),
):
    kind(f"pickle as {_name}", f"{_name} is refused")(_in_place_of_weights(_name))


@kind("pickle renamed to safetensors", "a pickle, which is refused")
def _(place: Place) -> None:
    place.weights.write_bytes(evil(place))


@kind("zip of torch.save renamed to safetensors", "a zip archive")
def _(place: Place) -> None:
    place.weights.write_bytes(b"PK\x03\x04" + evil(place))


@kind("HDF5 renamed to safetensors", "an HDF5 file")
def _(place: Place) -> None:
    place.weights.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))


@kind("pointer of Git LFS", "a pointer of Git LFS")
def _(place: Place) -> None:
    place.weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")


@kind("code of its own in config.json", "auto_map asks for code of its own")
def _(place: Place) -> None:
    (place.folder / "modeling_evil.py").write_text(f"open({str(place.canary)!r}, 'w').close()")
    config(place, auto_map={"AutoModelForSequenceClassification": "modeling_evil.Evil"})


@kind("code of its own in tokenizer_config.json", "auto_map asks for code of its own")
def _(place: Place) -> None:
    (place.folder / "tokenization_evil.py").write_text(f"open({str(place.canary)!r}, 'w').close()")
    file = place.folder / "tokenizer_config.json"
    values = json.loads(file.read_text()) | {"auto_map": {"AutoTokenizer": ["tokenization_evil.Evil", None]}}
    file.write_text(json.dumps(values))


@kind("adapter of a model elsewhere", "is an adapter")
def _(place: Place) -> None:
    (place.folder / "adapter_config.json").write_text('{"base_model_name_or_path": "evil/model"}')


# --- config.json ---------------------------------------------------------------------------------------------------


def config(place: Place, **changes: Any) -> None:
    file = place.folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def _config(**changes: Any) -> Spoil:
    return lambda place: config(place, **changes)


for _name, _changes, _words in (
    ("kernel of a repository for attention", {"attn_implementation": "evil/kernel"}, "asks for a kernel"),
    ("kernel in the private key", {"_attn_implementation_internal": "evil/kernel:run"}, "asks for a kernel"),
    ("kernels for each part", {"attn_implementation": {"": "evil/kernel"}}, "asks for a kernel"),
    ("quantized weights", {"quantization_config": {"quant_method": "gptq"}}, "describes quantized weights"),
    ("another file of weights", {"transformers_weights": "../../secret.safetensors"}, "names another file"),
    ("decoder", {"is_decoder": True}, "makes it a decoder"),
    ("unknown type of model", {"model_type": "evil"}, "is of type 'evil'"),
    ("type of model that is a list", {"model_type": ["bert"]}, "is of type"),
    ("token classifier", {"architectures": ["BertForTokenClassification"]}, "it is a BertForTokenClassification"),
    ("function as activation", {"hidden_act": "os.system"}, "activation 'os.system'"),
    ("a million layers", {"num_hidden_layers": 10**6}, "num_hidden_layers is 1000000"),
    ("hidden size of terabytes", {"hidden_size": 10**12}, "hidden_size is"),
    ("negative sizes", {"intermediate_size": -1}, "intermediate_size is -1"),
    ("sizes that are no whole numbers", {"hidden_size": 32.5}, "hidden_size is 32.5"),
    ("sizes that are not numbers", {"vocab_size": {"a": 1}}, "vocab_size is"),
    ("heads that do not divide", {"num_attention_heads": 5}, "multiple of the number of heads"),
    ("padding beyond the vocabulary", {"pad_token_id": 10**6}, "pad_token_id is 1000000"),
    ("dropout that is no number", {"hidden_dropout_prob": float("nan")}, "hidden_dropout_prob is nan"),
    ("labels without order", {"id2label": {"0": "a", "7": "b"}}, "keys of id2label"),
    ("a label of half a character", {"id2label": {"0": "\ud800", "1": "b"}}, "half a character"),
    ("a class of half a character", {"architectures": ["\udfff"]}, "half a character"),
    ("a label of a megabyte", {"id2label": {"0": "a" * 10**6, "1": "b"}}, "id2label has a label"),
    ("more layers than there are", {"num_hidden_layers": 3}, "is missing"),
    ("a vocabulary larger than its table", {"vocab_size": 10**6}, "word_embeddings.weight is (40, 32)"),
):
    kind(_name, _words)(_config(**_changes))


def _raw_config(content: bytes) -> Spoil:
    return lambda place: (place.folder / "config.json").write_bytes(content)


for _name, _content, _words in (
    ("config in UTF-16", '{"model_type": "bert"}'.encode("utf-16"), "not UTF-8 text"),
    ("config in Latin-1", b'{"model_type": "b\xe9rt"}', "not UTF-8 text"),
    ("config with a byte order mark", b'\xef\xbb\xbf{"model_type": "bert"}', "not JSON"),
    ("config nested ten thousand times", b'{"model_type":' + b"[" * 10_000, "config.json of"),
    ("config that says things twice", b'{"model_type": "bert", "model_type": "evil"}', "says something twice"),
    ("config of more than a megabyte", b'{"a": "' + b"x" * 2**21 + b'"}', "larger than 1 MB"),
    ("config with a number of a million digits", b'{"hidden_size": ' + b"9" * 10**6 + b"}", "config.json of"),
    ("config that is a list", b"[]", "not a JSON object"),
    ("empty config", b"", "not JSON"),
):
    kind(_name, _words)(_raw_config(_content))


# --- the header of the weights -------------------------------------------------------------------------------------


def read_weights(file: Path) -> tuple[dict[str, Any], bytes]:
    """Header and content of a safetensors file."""
    raw = file.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + size]), raw[8 + size :]


def write_weights(file: Path, header: bytes | dict[str, Any], content: bytes) -> None:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(raw)) + raw + content)


def _header(change: Callable[[dict[str, Any]], object]) -> Spoil:
    def spoil(place: Place) -> None:
        header, content = read_weights(place.weights)
        change(header)
        write_weights(place.weights, header, content)

    return spoil


def _entry(**changes: Any) -> Spoil:
    return _header(lambda header: header[LAYER].update(changes))


def _shifted(begin: int, end: int) -> Spoil:
    """One tensor is said to lie elsewhere than it does."""

    def change(header: dict[str, Any]) -> None:
        first, last = header[LAYER]["data_offsets"]
        header[LAYER]["data_offsets"] = [first + begin, last + end]

    return _header(change)


for _name, _spoil, _words in (
    ("tensors that overlap", _shifted(-128, -128), "overlap"),
    ("tensors with a gap between", _shifted(128, 128), "leave a gap"),
    ("a tensor beyond the end of the file", _shifted(2**40, 2**40), "leave a gap"),
    ("a tensor that ends before it begins", _entry(data_offsets=[512, 0]), "not as many bytes"),
    ("places that are negative", _entry(data_offsets=[-8192, 0]), "whole numbers"),
    ("places that are fractions", _entry(data_offsets=[0.0, 8192.0]), "whole numbers"),
    ("places that are missing", _header(lambda h: h[LAYER].pop("data_offsets")), "not described as one"),
    ("sizes whose product overflows", _entry(shape=[2**40, 2**40]), "not as many bytes"),
    ("a tensor of a million dimensions", _entry(shape=[1] * 100_000), "whole numbers"),
    ("a shape that is a number", _entry(shape=2048), "whole numbers"),
    ("a type that nobody knows", _entry(dtype="EVIL"), "is of type EVIL"),
    ("sizes that are swapped", _entry(shape=[64, 32]), "is (64, 32), but config.json says (32, 64)"),
    ("another type of the same size", _entry(dtype="I32"), "not of a float type"),
    ("an entry that is a list", _header(lambda h: h.update({LAYER: []})), "not described as one"),
    ("a header without tensors", _header(lambda h: [h.pop(n) for n in list(h)]), "no tensors"),
    ("a tensor less", _header(lambda h: h.pop(LAYER)), "leave a gap"),
):
    kind(_name, _words)(_spoil)


@kind("header of 2^63 bytes", "are read")
def _(place: Place) -> None:
    place.weights.write_bytes(b"\xff" * 7 + b"\x7f" + place.weights.read_bytes()[8:])


@kind("header of 90 MB", "are read")
def _(place: Place) -> None:
    size = 90 * 10**6
    with place.weights.open("wb") as file:
        file.write(struct.pack("<Q", size) + b'{"')
        file.truncate(8 + size)  # the rest is a hole, which takes no space


@kind("header of as many parts as fit", "not described as one")
def _(place: Place) -> None:
    write_weights(place.weights, b'{"a":[' + b"{}," * 19_000 + b"{}]}", b"")


@kind("header of more parts than are counted", "too many parts")
def _(place: Place) -> None:
    write_weights(place.weights, b'{"a":[' + b"{}," * 300_000 + b"{}]}", b"")


@kind("header nested half a million times", "damaged")
def _(place: Place) -> None:
    write_weights(place.weights, b'{"a":' + b"[" * 390_000, b"")


@kind("header of nothing but brackets", "too many parts")
def _(place: Place) -> None:
    write_weights(place.weights, b"[" * 2**20, b"")


@kind("header that names a tensor twice", "says something twice")
def _(place: Place) -> None:
    header, content = read_weights(place.weights)
    entry = json.dumps(header[LAYER])
    write_weights(place.weights, json.dumps(header)[:-1].encode() + f', "{LAYER}": {entry}}}'.encode(), content)


@kind("header that is no UTF-8", "not UTF-8 text")
def _(place: Place) -> None:
    header, content = read_weights(place.weights)
    write_weights(place.weights, json.dumps(header).replace(LAYER, "\xe9").encode("latin-1"), content)


@kind("weights cut off", "damaged")
def _(place: Place) -> None:
    place.weights.write_bytes(place.weights.read_bytes()[:-100])


@kind("weights with something behind them", "damaged")
def _(place: Place) -> None:
    place.weights.write_bytes(place.weights.read_bytes() + evil(place))


@kind("empty weights", "it is empty")
def _(place: Place) -> None:
    place.weights.write_bytes(b"")


# --- tensors -------------------------------------------------------------------------------------------------------


def _tensors(change: Callable[[dict[str, Any]], object]) -> Spoil:
    def spoil(place: Place) -> None:
        tensors = load_file(place.weights)
        change(tensors)
        save_file(tensors, place.weights)

    return spoil


def _spoilt(value: float, dtype: Any = np.float32) -> Spoil:
    """All tensors as `dtype`, and one number of one of them is `value`."""

    def change(tensors: dict[str, Any]) -> None:
        tensors.update({name: tensor.astype(dtype) for name, tensor in tensors.items()})
        tensors[POOLER][-1] = value

    return _tensors(change)


for _name, _spoil, _words in (
    ("one NaN", _spoilt(np.nan), "NaN or infinite"),
    ("one negative infinity in half precision", _spoilt(-np.inf, np.float16), "NaN or infinite"),
    ("one number beyond float32", _spoilt(-1e300, np.float64), "NaN or infinite"),
    ("a tensor that no such model has", _tensors(lambda t: t.update(evil=np.zeros(3, np.float32))), "unexpected"),
    ("a layer without its bias", _tensors(lambda t: t.pop(LAYER.replace("weight", "bias"))), "is missing"),
    ("half a head", _tensors(lambda t: t.pop("classifier.bias")), "classifier.bias is missing"),
    ("weights of one bit of sense", _tensors(lambda t: t.update({LAYER: t[LAYER] > 0})), "not of a float type"),
):
    kind(_name, _words)(_spoil)


@kind("one NaN in bfloat16", "NaN or infinite")
def _(place: Place) -> None:
    header, content = read_weights(place.weights)
    numbers = np.frombuffer(content, "<u4") >> 16
    numbers[-1] = 0x7FC0
    for entry in header.values():
        if "dtype" in entry:
            entry |= {"dtype": "BF16", "data_offsets": [place // 2 for place in entry["data_offsets"]]}
    write_weights(place.weights, header, numbers.astype("<u2").tobytes())


# --- weights in several files --------------------------------------------------------------------------------------


def _split(place: Place) -> dict[str, str]:
    """The weights in two files, without an index; returns what it would say."""
    tensors = load_file(place.weights)
    place.weights.unlink()
    names = sorted(tensors)
    files = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    for number, file in enumerate(files):
        save_file({name: tensors[name] for name in names[number::2]}, place.folder / file)
    return {name: files[position % 2] for position, name in enumerate(names)}


def _index(change: Callable[[dict[str, Any]], object]) -> Spoil:
    def spoil(place: Place) -> None:
        index: dict[str, Any] = _split(place)
        change(index)
        (place.folder / INDEX).write_text(json.dumps({"weight_map": index}))

    return spoil


for _name, _spoil, _words in (
    ("index that climbs out", _index(lambda i: i.update({LAYER: "../../etc/passwd"})), "names '../../etc/passwd'"),
    ("index with an absolute path", _index(lambda i: i.update({LAYER: "/etc/passwd"})), "names '/etc/passwd'"),
    ("index into a subfolder", _index(lambda i: i.update({LAYER: "sub/model.safetensors"})), "names 'sub/"),
    ("index to a pickle", _index(lambda i: i.update({LAYER: "pytorch_model.bin"})), "names 'pytorch_model.bin'"),
    ("index to a number", _index(lambda i: i.update({LAYER: 1})), "names"),
    (
        "index to a file that is missing",
        _index(lambda i: i.update({LAYER: "model-00009-of-00009.safetensors"})),
        "lacks model-00009",
    ),
    ("index that is wrong", _index(lambda i: i.update({LAYER: i[POOLER]})), "do not agree"),
    ("index that leaves a tensor out", _index(lambda i: i.pop(LAYER)), "do not agree"),
    ("index of a tensor that is nowhere", _index(lambda i: i.update(evil=i[LAYER])), "do not agree"),
    ("index of a thousand files", _index(lambda i: i.update(_many())), "more than 64"),
    ("empty index", _index(lambda i: i.clear()), "no weight_map"),
):
    kind(_name, _words)(_spoil)


def _many() -> dict[str, str]:
    return {f"t{number}": f"model-{number:05}-of-01000.safetensors" for number in range(1000)}


@kind("tensor in two files", "is in two files")
def _(place: Place) -> None:
    index = _split(place)
    other = place.folder / next(file for file in index.values() if file != index[LAYER])
    save_file({**load_file(other), LAYER: load_file(place.folder / index[LAYER])[LAYER]}, other)
    (place.folder / INDEX).write_text(json.dumps({"weight_map": index}))


@kind("part of the weights that is a link", "is a link to outside")
def _(place: Place) -> None:
    index = _split(place)
    _move_out(place, index[LAYER])
    (place.folder / INDEX).write_text(json.dumps({"weight_map": index}))


# --- files ---------------------------------------------------------------------------------------------------------


def _move_out(place: Place, name: str) -> None:
    """Leave a link in the place of a file."""
    (place.folder / name).rename(place.outside / name)
    (place.folder / name).symlink_to(place.outside / name)


for _name in ("config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json"):
    kind(f"{_name} that is a link", f"{_name} in")(lambda place, name=_name: _move_out(place, name))  # type: ignore[misc]


def _other(name: str, make: Callable[[Path], object]) -> Spoil:
    def spoil(place: Place) -> None:
        (place.folder / name).unlink()
        make(place.folder / name)

    return spoil


for _name, _spoil, _words in (
    ("link to itself", _other("config.json", lambda p: p.symlink_to(p)), "config.json in"),
    ("link to a device that never ends", _other(WEIGHTS, lambda p: p.symlink_to("/dev/zero")), "a link to outside"),
    ("pipe that nobody writes to", _other("config.json", os.mkfifo), "not a regular file"),
    ("folder in the place of the weights", _other(WEIGHTS, Path.mkdir), "not a regular file"),
    ("folder without a config", lambda place: (place.folder / "config.json").unlink(), "no config.json"),
    ("folder without weights", lambda place: place.weights.unlink(), "no model.safetensors"),
):
    kind(_name, _words)(_spoil)


# --- the tokenizer -------------------------------------------------------------------------------------------------


def _tokenizer(change: Callable[[dict[str, Any]], object]) -> Spoil:
    def spoil(place: Place) -> None:
        file = place.folder / "tokenizer.json"
        values = json.loads(file.read_text())
        change(values)
        file.write_text(json.dumps(values))

    return spoil


def _words_file(words: Iterable[str]) -> Spoil:
    def spoil(place: Place) -> None:
        (place.folder / "tokenizer.json").unlink()
        (place.folder / "vocab.txt").write_text("\n".join(words))

    return spoil


def _settings(file: str = "tokenizer_config.json", **values: Any) -> Spoil:
    return lambda place: (place.folder / file).write_text(json.dumps(values))


def _without_tokenizer(files: dict[str, str]) -> Spoil:
    def spoil(place: Place) -> None:
        (place.folder / "tokenizer.json").unlink()
        for name, content in files.items():
            (place.folder / name).write_text(content)

    return spoil


def _million() -> str:
    """A JSON object of a million names, in 8 MB; one character makes all of its text four bytes wide."""
    return "{" + ",".join(f'"{number:x}":0' for number in range(0x10000, 0x10000 + 800_000)) + ',"\U0001f600":1}'


def _many_small(place: Place) -> None:
    (place.folder / "tokenizer.json").write_text('{"x":[' + '{"a":""},' * 395_000 + '1],"\U0001f600":1}')


def _deep(place: Place) -> None:
    file, depth = place.folder / "tokenizer.json", 300
    values = json.loads(file.read_text()) | {"normalizer": "@"}
    inner = '{"type":"Sequence","normalizers":[' * depth + '{"type":"Lowercase"}' + "]}" * depth
    file.write_text(json.dumps(values).replace('"@"', inner))


_SLOW = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Removed", "invert": False}
_LONG = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}] * 1_000
_BEYOND = {"[CLS]": {"id": "[CLS]", "ids": [10**6], "tokens": ["[CLS]"]}}
for _name, _spoil, _words in (
    ("no tokenizer", lambda place: (place.folder / "tokenizer.json").unlink(), "neither tokenizer.json nor"),
    ("tokenizer that is no JSON", lambda p: (p.folder / "tokenizer.json").write_text("{broken"), "cannot be read"),
    ("tokenizer of 20 MB", _tokenizer(lambda t: t.update(x="x" * 20 * 10**6)), "larger than 8 MB"),
    ("tokenizer of a million parts", _tokenizer(lambda t: t.update(x=[[]] * 10**6)), "too many parts"),
    ("more tokens than embeddings", _tokenizer(lambda t: t["model"]["vocab"].update(evil=40)), "41 tokens"),
    ("tokens that count down", _tokenizer(lambda t: t["model"]["vocab"].update(evil=-1)), "not a whole number"),
    ("added token far away", _tokenizer(lambda t: t["added_tokens"][0].update(id=10**9)), "do not belong together"),
    ("template with an id beyond", _tokenizer(lambda t: t["post_processor"].update(special_tokens=_BEYOND)), "1000001"),
    ("template of a thousand tokens", _tokenizer(lambda t: t["post_processor"].update(single=_LONG)), "pieces"),
    ("regular expression that never ends", _tokenizer(lambda t: t.update(pre_tokenizer=_SLOW)), "of type Split"),
    ("no token for unknown words", _tokenizer(lambda t: t["model"].update(unk_token="[EVIL]")), "unknown words"),  # noqa: S106
    ("tokenizer of another kind", _tokenizer(lambda t: t["model"].update(type="Unigram")), "its model is none of"),
    ("unknown words as a list", _tokenizer(lambda t: t["model"].update(unk_token=[])), "unknown words is no text"),
    ("unknown words as a table", _tokenizer(lambda t: t["model"].update(unk_token={})), "unknown words is no text"),
    ("normalizer of a list of types", _tokenizer(lambda t: t["normalizer"].update(type=[])), "of type []"),
    ("decoder of a table of types", _tokenizer(lambda t: t["decoder"].update(type={})), "of type {}"),
    ("ids that are lists", _tokenizer(lambda t: t["model"]["vocab"].update(the=[])), "not a whole number"),
    ("parts within three hundred parts", _deep, "within more than 4 others"),
    ("ten thousand added tokens", _tokenizer(lambda t: t.update(added_tokens=[{}] * 10_000)), "up to 2000 tokens"),
    ("tokenizer of a million names", lambda p: (p.folder / "tokenizer.json").write_text(_million()), "too many parts"),
    ("tokenizer of small tables", _many_small, "too many parts"),
    ("vocabulary of a million names", _without_tokenizer({"vocab.json": _million(), "merges.txt": ""}), "too many"),
    ("added tokens without end", _without_tokenizer({"vocab.txt": "a", "added_tokens.json": _million()}), "larger"),
    ("vocabulary of short lines", _without_tokenizer({"vocab.txt": "ab\n" * 2_790_000}), "2790000 tokens"),
    (
        "sixty thousand special tokens",
        _settings(additional_special_tokens=[f"t{n}" for n in range(60_000)]),
        "100 tokens",
    ),
    ("no token for padding", _settings(pad_token=None), "pad_token is null"),
    ("no token before a text", _settings("special_tokens_map.json", cls_token=None), "cls_token is null"),
    ("token that is a number", _settings(sep_token=3), "sep_token is no token"),
    ("token without its text", _settings(mask_token={"__type": "AddedToken"}), "mask_token is no token"),
    ("token with other flags", _settings(mask_token={"content": "a", "lstrip": 5}), "not described as a token"),
    ("case that is a text", _settings(do_lower_case="evil"), "neither true nor false"),
    ("table of added texts", _settings(added_tokens_decoder={"0": "a"}), "no table of tokens"),
    ("added token beyond", _settings(added_tokens_decoder={"40": {"content": "a"}}), "41 tokens"),
    ("vocabulary of too many words", _words_file(f"w{n}" for n in range(100_000)), "100000 tokens"),
):
    kind(_name, _words)(_spoil)

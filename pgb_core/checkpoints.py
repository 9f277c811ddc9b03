"""Where checkpoints come from and how they are loaded without running anything that is in them.

Only what `describe` accepts is loaded, into a concrete class, with a configuration made of allow-listed keys.
Importing this module imports neither torch nor transformers.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pgb_core import hub, memory, tokenizer_copy
from pgb_core.errors import CheckpointError, raise_if_cancelled
from pgb_core.families import FAMILIES, Head
from pgb_core.headers import fingerprint
from pgb_core.inspection import UNREAD, CheckpointInfo, admit, describe, read_config, refuse_unsound
from pgb_core.progress import Step, silent
from pgb_core.settings import Settings, get_settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

__all__ = [
    "Checkpoint",
    "CheckpointInfo",
    "ask_ahead",
    "describe",
    "fingerprint",
    "is_name",
    "list_checkpoints",
    "list_refused",
    "load_base",
    "load_model",
    "load_tokenizer",
    "resolve",
]

Source = Literal["demo", "folder", "hub", "pruned"]

_HEADS = ("classifier.", "pre_classifier.", "qa_outputs.")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_UNKNOWN = "qzxj ꙮ ᚠᛇᚻ"
"""Hardly a vocabulary knows these words: letters of which two kinds are rare."""
_MEMORY_FACTOR = 4
"""Work on a model holds about this many times its float32 weights: pruning a copy, gradients and statistics,
fine-tuning gradients and the optimizer's two moments."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on this machine: the name it was asked for by, where it is, and which weights exactly."""

    name: str
    path: Path
    source: Source
    revision: str | None
    """Commit on the Hub; None for what does not come from there."""
    fingerprint: str
    """SHA-256 of model.safetensors, in hexadecimal; see `headers.fingerprint` for weights in several files."""
    note: str | None = None
    """What has to be said of what it is, if anything; see `hub.note`."""


def resolve(name: str, task: str, step: Step = silent) -> Checkpoint:
    """The checkpoint that `name` means, fetched or prepared if need be.

    `name` is `demo` (the one fine-tuned on `task`), a folder of the models folder, a path, or a Hub id. An existing
    folder goes before the Hub; `hub:owner/name` always means the Hub.

    Raises:
        CheckpointError: there is no such checkpoint, or it cannot be loaded safely.
    """
    revision = None
    source: Source
    if name == "demo":
        from pgb_core import demo

        path, source = demo.prepare(demo.task_for(task), step), "demo"
    elif folder := _local_folder(name):
        path, source = folder, "folder"
    elif hub.HUB_ID.fullmatch(name.removeprefix(hub.PREFIX)):
        path, revision = hub.fetch(name.removeprefix(hub.PREFIX), step)
        source = "hub"
    else:
        raise CheckpointError(
            f"no checkpoint {name!r}; give 'demo', a folder with config.json and model.safetensors, "
            "or a Hub id, owner/name or owner/name@ and the 40 hexadecimal digits of a commit."
        )
    info = admit(path)
    note = hub.note(path, info) if source == "hub" else None
    return Checkpoint(name, path, "pruned" if info.pruned else source, revision, fingerprint(path), note)


def ask_ahead(*names: str) -> None:
    """Let the Hub say now what `resolve` will ask it about `names`; for who loads torch in between.

    Raises:
        CheckpointError: one of them cannot be fetched, as `hub.fetch` says it.
    """
    for name in names:
        plain = name.removeprefix(hub.PREFIX)
        if name != "demo" and _local_folder(name) is None and hub.HUB_ID.fullmatch(plain):
            hub.ask_ahead(plain)


def is_name(text: str) -> bool:
    """Whether `text` can be the name of a subfolder of the models folder."""
    return _NAME.fullmatch(text) is not None


def _local_folder(name: str) -> Path | None:
    """A plain name is looked up in the models folder first: that is what the app offers."""
    if is_name(name):
        models = get_settings().models_dir.resolve()
        folder = (models / name).resolve()
        if folder.is_dir() and folder.parent == models:
            return folder
    path = Path(name).expanduser()
    return path.resolve() if path.is_dir() else None


def list_checkpoints(settings: Settings) -> list[str]:
    """`demo` and the subfolders of the models folder that can be pruned, by name; for others see `list_refused`."""
    return ["demo", *(name for name, refused in _looked_at(settings) if refused is None)]


def list_refused(settings: Settings) -> dict[str, str]:
    """Subfolders of the models folder that cannot be pruned, by name, and why not, in one line."""
    return {name: refused for name, refused in _looked_at(settings) if refused is not None}


def _looked_at(settings: Settings) -> Iterator[tuple[str, str | None]]:
    """The subfolders of the models folder by name, each with the reason why it is refused, if it is."""
    models = settings.models_dir.resolve()
    for folder in sorted(models.iterdir()) if models.is_dir() else []:
        if folder.name.startswith(".") or not folder.is_dir():
            continue
        if not is_name(folder.name) or folder.name == "demo":
            yield folder.name, "rename it: letters, digits, dots, dashes and underscores; demo is taken."
            continue
        if folder.resolve().parent != models:
            yield folder.name, "it is a link out of the models folder; copy the folder there."
            continue
        try:
            pruned = describe(folder).pruned
        except CheckpointError as error:
            yield folder.name, str(error)
        else:
            yield folder.name, "it is pruned already; the dense one it came from can be." if pruned else None


def load_model(path: Path) -> PreTrainedModel:
    """The dense model of folder `path`: float32, on the CPU, in eval mode, every tensor from the file.

    Raises:
        CheckpointError: what `describe` refuses; a pruned checkpoint; an untrained head; missing, unexpected or
            non-finite weights; too little memory.
    """
    info = describe(path)
    if info.pruned:
        raise CheckpointError(f"{path.name} is pruned already; load it with load_pruned, or prune its dense original.")
    if not info.head_trained:
        raise CheckpointError(
            f"{path.name} is a raw encoder, its head is not trained; fine-tune it on your task first: "
            "python -m pgb_core finetune --checkpoint ... --task ... --out FOLDER."
        )
    refuse_without_memory(path, info)
    refuse_unsound(path)
    from pgb_core.architectures import dense_config

    return _load(path, info, dense_config(info.family, read_config(path / "config.json")), info.head)


def refuse_without_memory(path: Path, info: CheckpointInfo, copies: int = _MEMORY_FACTOR) -> None:
    """Raise a CheckpointError where what is free is too little for that many times the weights in folder `path`."""
    needed, free = info.parameters * 4 * copies, memory.available()
    if needed > free:
        raise CheckpointError(f"{path.name} needs about {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free.")


def load_base(path: Path, info: CheckpointInfo, config: Any) -> PreTrainedModel:
    """The base model of folder `path`, without a head, float32 on the CPU; a pooler that the file lacks is random.

    Args:
        config: of transformers, made of what `read_config` returns.

    Raises:
        CheckpointError: missing or non-finite weights.
    """
    refuse_unsound(path)
    return _load(path, info, config, None, (*FAMILIES[info.family].pretrained, *_HEADS))


def _load(
    path: Path, info: CheckpointInfo, config: Any, head: Head | None, unneeded: tuple[str, ...] = ()
) -> PreTrainedModel:
    """The model with that head; tensors whose names begin with one of `unneeded` may be left in the file."""
    import torch
    from transformers.utils import logging

    from pgb_core.architectures import dense_class

    bar = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model, report = dense_class(info.family, head).from_pretrained(
            path,
            config=config,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            attn_implementation="sdpa",
            dtype=torch.float32,
            output_loading_info=True,
        )
    finally:
        if bar:
            logging.enable_progress_bar()
    for kind in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        names = sorted(str(name) for name in report[kind])
        if kind == "unexpected_keys":
            names = [name for name in names if not UNREAD.search(name) and not name.startswith(unneeded)]
        if kind == "missing_keys" and head is None:
            names = [name for name in names if not UNREAD.search(name)]
        if names:
            raise CheckpointError(f"{path.name}: {len(names)} {kind.replace('_keys', '')} tensors, such as {names[0]}.")
    model.eval()
    return model


def load_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of folder `path`; its `model_max_length` is the number of positions the model has.

    It splits texts as tokenizer.json says. `model_input_names` is without `token_type_ids` where the model knows one
    type only.

    Raises:
        CheckpointError: the tokenizer files are missing or damaged, know more tokens than the model, or cannot encode
            a text.
    """
    from transformers import BertTokenizer, PreTrainedTokenizerFast, RobertaTokenizer

    info = describe(path)
    classes = {
        "BertTokenizer": BertTokenizer,
        "RobertaTokenizer": RobertaTokenizer,
        "PreTrainedTokenizerFast": PreTrainedTokenizerFast,
    }
    try:
        with tempfile.TemporaryDirectory(prefix="pgb-") as parent:
            folder = Path(parent, path.resolve().name)
            folder.mkdir()
            chosen = classes[tokenizer_copy.write(path, info.vocabulary, folder)]
            tokenizer = chosen.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        _refuse_useless(tokenizer)
    except CheckpointError:
        raise
    except Exception as error:  # the library raises many kinds, down to bare Exception from Rust
        raise_if_cancelled(error)
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"the tokenizer of {path.name} cannot be read ({reason:.200}).") from error
    if len(tokenizer) > info.vocabulary:
        raise CheckpointError(
            f"the tokenizer of {path.name} has {len(tokenizer)} tokens, its model {info.vocabulary}; "
            "they do not belong together."
        )
    tokenizer.model_max_length = info.max_positions
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if info.token_types > 1 else [])]
    tokenizer.model_input_names = names
    if set(names) != set(chosen.model_input_names):
        tokenizer.init_kwargs["model_input_names"] = names  # saved with it, for whoever loads it elsewhere
    return tokenizer


def _refuse_useless(tokenizer: PreTrainedTokenizerFast) -> None:
    """Raise an exception of any kind where `tokenizer` cannot encode a text of which it knows no word."""
    for name in ("pad_token", "cls_token", "sep_token"):
        if getattr(tokenizer, f"{name}_id") is None:
            raise ValueError(f"it has no {name}")
    ids = tokenizer(_UNKNOWN)["input_ids"]
    if not {tokenizer.cls_token_id, tokenizer.sep_token_id} <= set(ids):
        raise ValueError(f"it does not put {tokenizer.cls_token} and {tokenizer.sep_token} around a text")

"""A checkpoint from the Hugging Face Hub, at a pinned revision, as a plain folder under the cache.

Only the files that loading reads are fetched, never a weight file that could run code, nothing larger than the limit.
Whether the Hub answers is known within seconds, whatever the network does.
"""

from __future__ import annotations

import json
import os
import queue
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pgb_core import bounded_json, curated
from pgb_core.cache import locked, scratch
from pgb_core.errors import CheckpointError
from pgb_core.inspection import (
    INDEX,
    PRUNED_MANIFEST,
    SHARD,
    TOKENIZER_FILES,
    WEIGHTS,
    CheckpointInfo,
    describe,
    refuse_missing,
)
from pgb_core.label_order import nameless
from pgb_core.progress import Step, silent
from pgb_core.settings import get_settings

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}(@[0-9a-f]{40})?")
"""`owner/name`, the newest revision, or `owner/name@commit`."""
PREFIX = "hub:"
"""Before an id, it says that the Hub is meant, not a folder of that name."""
RECORD = "hub.json"
"""In the folder of a revision: name, revision and licence of the model, and who named its labels."""
OWNER, LIST = "its owner", "the list of well-known models"
_DEADLINE = 3.0
"""Seconds that the Hub has to answer, all in all, before it counts as out of reach."""
_MEANINGS = {
    401: " (it wants a valid token; log in with `hf auth login`)",
    403: " (that is not allowed; see who may download it)",
    429: " (too many requests; wait some minutes)",
}
"""What the Hub means by an answer, where that is not the network."""
_SMALL = 2**23
"""Largest file beside the weights, in bytes; larger ones would be refused once they are here."""
_AHEAD: dict[str, HubModel | ConnectionError] = {}
"""What `ask_ahead` was told, each for the one `fetch` that follows."""

T = TypeVar("T")


@dataclass(frozen=True)
class HubModel:
    """What the Hub says of a model, before anything is downloaded."""

    name: str
    revision: str
    files: Mapping[str, int]
    """Bytes of each file that is going to be downloaded."""
    license: str | None
    family: str | None
    """`model_type`, as its config says."""
    architecture: str | None
    parameters: int | None

    @property
    def raw(self) -> bool:
        """Whether its config says that it is an encoder without a head that was trained for a task."""
        return (self.architecture or "").endswith(("Model", "ForMaskedLM", "ForPreTraining"))


def look_up(name: str) -> HubModel:
    """What the Hub says of `owner/name`, or of `owner/name@commit`, within seconds.

    Raises:
        CheckpointError: no such model, no permission, no safetensors weights, too large.
        ConnectionError: the Hub is out of reach; the message says how that showed.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # isort: skip

    plain, revision = split(name)
    try:
        info = within(
            _DEADLINE,
            lambda: HfApi().model_info(plain, revision=revision, timeout=_DEADLINE, files_metadata=True),
        )
    except GatedRepoError as error:
        raise CheckpointError(
            f"{plain} may only be downloaded with its owner's permission; log in with `hf auth login` once it is given."
        ) from error
    except RevisionNotFoundError as error:
        raise CheckpointError(f"the Hub has no revision {revision} of {plain}; leave it out for the newest.") from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(f"the Hub has no public model {plain!r}; check the spelling of owner/name.") from error
    except HfHubHTTPError as error:
        code = error.response.status_code
        raise ConnectionError(f"answered {code}{_MEANINGS.get(code, '')}") from error
    except (HTTPError, OSError) as error:
        raise ConnectionError("is out of reach") from error
    return _described(plain, info)


def ask_ahead(name: str) -> None:
    """Ask now what the next `fetch` of `name` would ask: torch, which is loaded before that, takes seconds to load.

    Raises:
        CheckpointError: as for `fetch`.
    """
    home, revision = _home(name)
    if revision is not None and (home / revision).is_dir():
        return
    try:
        _AHEAD[name] = look_up(name)
    except ConnectionError as error:
        _cached(home, name, str(error))  # which refuses where there is none
        _AHEAD[name] = error


def fetch(name: str, step: Step = silent) -> tuple[Path, str]:
    """Folder and commit of the newest revision of `owner/name`; of the newest cached one if the Hub is out of reach.

    `owner/name@commit` means that commit alone; once it is cached the Hub is not asked.

    Raises:
        CheckpointError: no such model, no permission, no safetensors weights, too large, or out of reach and not
            cached.
    """
    home, revision = _home(name)
    if revision is not None and (home / revision).is_dir():
        return home / revision, revision
    plain, _ = split(name)
    step(0, 1, f"asking the Hub for {plain}")
    try:
        found = _asked(name)
    except ConnectionError as error:
        return _cached(home, name, str(error))
    folder = home / found.revision
    if not folder.is_dir():
        _download(found, folder, step)
    step(1, 1, f"{plain} at revision {found.revision[:8]}")
    return folder, found.revision


def out_of_reach(name: str, why: str) -> str:
    """The one line that says that a model can neither be asked for nor is cached."""
    return f"the Hugging Face Hub {why} and {name!r} is not cached; check the network, or use 'demo' or a folder."


def cached(name: str) -> Path | None:
    """Folder of the revision of `owner/name` that was fetched last, or of the one that is named; None without one."""
    home, revision = _home(name)
    if revision is not None:
        return home / revision if (home / revision).is_dir() else None
    revisions = [folder for folder in home.glob("*") if re.fullmatch(r"[0-9a-f]{40}", folder.name)]
    return max(revisions, key=lambda folder: folder.stat().st_mtime, default=None)


def read_record(folder: Path) -> dict[str, str]:
    """What `fetch` recorded of the model in `folder`; nothing of what is from elsewhere."""
    file = folder / RECORD
    try:
        if file.is_symlink() or not file.is_file():  # a pipe would be waited for, for ever
            return {}
        values = bounded_json.read_object(file, _SMALL)
    except (OSError, ValueError):
        return {}
    return {key: value for key, value in values.items() if isinstance(value, str)}


def note(folder: Path, info: CheckpointInfo) -> str | None:
    """What has to be said where the list of well-known models is not what the files in `folder` say, in one line."""
    record = read_record(folder)
    entry = curated.find(record.get("name", ""))
    if entry is None:
        return None
    if record.get("labels") == LIST:
        order = ", ".join(f"{index} is {label}" for index, label in enumerate(info.labels))
        return f"the files of {entry.name} only number its labels; {LIST} names them: {order}"
    return curated.difference(entry, info)


def split(name: str) -> tuple[str, str | None]:
    """`owner/name` and the commit, None where none is named.

    >>> split("owner/name")
    ('owner/name', None)

    Raises:
        CheckpointError: that is no id.
    """
    if not HUB_ID.fullmatch(name) or ".." in name or "--" in name:
        raise CheckpointError(
            f"{name!r:.120} is not a Hub id; it looks like owner/name, or owner/name@commit with all 40 hexadecimal "
            "digits of the commit."
        )
    plain, _, revision = name.partition("@")
    return plain, revision or None


@contextmanager
def offline_unless_reachable(dataset: str) -> Iterator[None]:
    """Within, Hugging Face libraries use their cache alone if the Hub does not answer at once for `dataset`.

    They would retry for half a minute otherwise before they look there.
    """
    import datasets
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    try:
        within(_DEADLINE, lambda: HfApi().dataset_info(dataset, timeout=_DEADLINE))
    except (HTTPError, OSError):
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before


def within(seconds: float, ask: Callable[[], T]) -> T:
    """What `ask` returns or raises, if it does so in time; else it goes on alone, and nobody hears of it.

    A client's own timeout is for each piece of an answer, and knows nothing of names that take long to be resolved.

    Raises:
        TimeoutError: it takes longer.
    """
    answers: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(1)

    def work() -> None:
        try:
            answers.put((ask(), None))
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            answers.put((None, error))

    threading.Thread(target=work, daemon=True, name="asks the Hub").start()
    try:
        answer, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:g} s") from None
    if error is not None:
        raise error
    return answer  # type: ignore[return-value]


def _home(name: str) -> tuple[Path, str | None]:
    """Where the revisions of a model are kept, and the one that is named."""
    plain, revision = split(name)
    return get_settings().cache_dir / "hub" / plain.replace("/", "--"), revision


def _asked(name: str) -> HubModel:
    """What the Hub says of a model, or said ahead; raises as `look_up`."""
    answer = _AHEAD.pop(name, None) or look_up(name)
    if isinstance(answer, ConnectionError):
        raise answer
    return answer


def _cached(home: Path, name: str, why: str) -> tuple[Path, str]:
    """The revision that was fetched last."""
    folder = cached(name)
    if folder is None:
        raise CheckpointError(out_of_reach(name, why))
    return folder, folder.name


def _described(name: str, info: ModelInfo) -> HubModel:
    """What is of use in the Hub's answer; refuse before a download what could not be loaded afterwards."""
    if info.sha is None or not re.fullmatch(r"[0-9a-f]{40}", info.sha):
        raise CheckpointError(f"the Hub names no revision of {name}; try again later.")
    sizes = {sibling.rfilename: sibling.size or 0 for sibling in info.siblings or []}
    refuse_missing(name, set(sizes))
    weights = [WEIGHTS] if WEIGHTS in sizes else [INDEX, *sorted(file for file in sizes if SHARD.fullmatch(file))]
    small = [file for file in ("config.json", *TOKENIZER_FILES, PRUNED_MANIFEST) if file in sizes]
    total, limit = sum(sizes[file] for file in weights), get_settings().max_parameters * 4
    if total > limit:
        raise CheckpointError(
            f"{name} has {total / 1e9:.1f} GB of weights, the limit is {limit / 1e9:.1f} GB; "
            "choose a smaller one or raise PGB_MAX_PARAMETERS."
        )
    large = [file for file in small if sizes[file] > _SMALL]
    if large:
        raise CheckpointError(f"{large[0]} of {name} has {sizes[large[0]] / 1e6:.0f} MB, which is no such file.")
    config: dict[str, Any] = info.config or {}
    names = config.get("architectures")
    stored = info.safetensors
    return HubModel(
        name,
        info.sha,
        {file: sizes[file] for file in (*small, *weights)},
        next((tag.removeprefix("license:") for tag in info.tags or [] if tag.startswith("license:")), None),
        _text(config.get("model_type")),
        _text(names[0]) if isinstance(names, list) and names else None,
        stored.total if stored is not None else None,
    )


def _text(value: object) -> str | None:
    return value[:100] if isinstance(value, str) else None


def _download(found: HubModel, folder: Path, step: Step) -> None:
    """Download beside `folder` and rename, so that a broken download leaves nothing that looks whole.

    One download at a time in the whole cache, so that each can clear away what a killed one left, of whatever model.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    disable_progress_bars()  # ours is the only progress on the terminal
    home = folder.parent.parent
    waiting = "waiting for another process that is downloading from the Hub"
    with locked(home, "part", step, waiting), scratch(home, "part") as part:
        if folder.is_dir():  # fetched while this process waited
            return
        step(0, 1, f"downloading {found.name} from the Hub, {sum(found.files.values()) / 1e6:.0f} MB")
        target = part / "files"
        try:
            snapshot_download(
                found.name,
                revision=found.revision,
                local_dir=target,
                allow_patterns=list(found.files),
                etag_timeout=_DEADLINE,
            )
        except (HTTPError, OSError, ValueError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise CheckpointError(f"downloading {found.name} from the Hub failed ({reason}); try again.") from error
        shutil.rmtree(target / ".cache", ignore_errors=True)
        record = {"name": found.name, "revision": found.revision, "license": found.license}
        record["labels"] = _name_labels(target, found.name)
        (target / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        folder.parent.mkdir(exist_ok=True)
        os.replace(target, folder)


def _name_labels(folder: Path, name: str) -> str:
    """Name the labels of a well-known model whose config has numbers only; returns who named them."""
    known = curated.find(name)
    try:
        info = describe(folder)
    except CheckpointError:
        return OWNER  # inspecting it will say what is wrong
    numbered = nameless(dict(enumerate(info.labels))) and info.head_trained
    if known is None or not known.labels or not numbered or curated.difference(known, info):
        return OWNER
    config = folder / "config.json"
    names = dict(enumerate(known.labels))
    values = bounded_json.read_object(config, _SMALL)
    values |= {"id2label": names, "label2id": {label: index for index, label in names.items()}}
    config.write_text(json.dumps(values, indent=1), encoding="utf-8")
    return LIST

"""A checkpoint from the Hugging Face Hub, at a pinned revision, as a plain folder under the cache.

Only the files that loading reads are fetched, never a weight file that could run code, nothing larger than the limit.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pgb_core.cache import locked, scratch
from pgb_core.errors import CheckpointError
from pgb_core.inspection import NEEDED, PRUNED_MANIFEST, TOKENIZER_FILES, refuse_missing
from pgb_core.progress import Step, silent
from pgb_core.settings import get_settings

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
PREFIX = "hub:"
"""Before an id, it says that the Hub is meant, not a folder of that name."""
RECORD = "hub.json"
"""In the folder of a revision: name, revision and licence of the model."""
_TIMEOUT = 4.0
"""Seconds that the Hub has to answer before it counts as out of reach."""


def fetch(name: str, step: Step = silent) -> tuple[Path, str]:
    """Folder and commit of the newest revision of `owner/name`; of the newest cached one if the Hub is out of reach.

    Raises:
        CheckpointError: no such model, no permission, no safetensors weights, too large, or out of reach and not
            cached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # isort: skip

    if not HUB_ID.fullmatch(name) or ".." in name or "--" in name:
        raise CheckpointError(f"{name!r} is not a Hub id; it looks like owner/name.")
    home = get_settings().cache_dir / "hub" / name.replace("/", "--")
    step(0, 1, f"asking the Hub for {name}")
    try:
        info = HfApi().model_info(name, timeout=_TIMEOUT, files_metadata=True)
    except GatedRepoError as error:
        raise CheckpointError(
            f"{name} may only be downloaded with its owner's permission; log in with `hf auth login` once it is given."
        ) from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(f"the Hub has no public model {name!r}; check the spelling of owner/name.") from error
    except HfHubHTTPError as error:
        return _cached(home, name, f"answered {error.response.status_code}")
    except (HTTPError, OSError):
        return _cached(home, name, "is out of reach")
    if info.sha is None:
        raise CheckpointError(f"the Hub names no revision of {name}; try again later.")
    folder = home / info.sha
    if not folder.is_dir():
        _check_files(name, info.siblings or [])
        _download(name, info.sha, folder, step)
    step(1, 1, f"{name} at revision {info.sha[:8]}")
    return folder, info.sha


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
        HfApi().dataset_info(dataset, timeout=_TIMEOUT)
    except (HTTPError, OSError):
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before


def _cached(home: Path, name: str, why: str) -> tuple[Path, str]:
    """The revision that was fetched last."""
    revisions = [folder for folder in home.glob("*") if re.fullmatch(r"[0-9a-f]{40}", folder.name)]
    if not revisions:
        raise CheckpointError(
            f"the Hugging Face Hub {why} and {name!r} is not cached; check the network, or use 'demo' or a folder."
        )
    newest = max(revisions, key=lambda folder: folder.stat().st_mtime)
    return newest, newest.name


def _check_files(name: str, siblings: list[RepoSibling]) -> None:
    """Refuse, before anything is downloaded, what could not be loaded afterwards."""
    sizes = {sibling.rfilename: sibling.size or 0 for sibling in siblings}
    refuse_missing(name, set(sizes))
    limit = get_settings().max_parameters * 4
    if sizes["model.safetensors"] > limit:
        raise CheckpointError(
            f"{name} has {sizes['model.safetensors'] / 1e9:.1f} GB of weights, the limit is {limit / 1e9:.1f} GB; "
            "choose a smaller one or raise PGB_MAX_PARAMETERS."
        )


def _download(name: str, revision: str, folder: Path, step: Step) -> None:
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
        step(0, 1, f"downloading {name} from the Hub")
        target = part / "files"
        try:
            snapshot_download(
                name,
                revision=revision,
                local_dir=target,
                allow_patterns=[*NEEDED, *TOKENIZER_FILES, PRUNED_MANIFEST],
                etag_timeout=_TIMEOUT,
            )
        except (HTTPError, OSError, ValueError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise CheckpointError(f"downloading {name} from the Hub failed ({reason}); try again.") from error
        shutil.rmtree(target / ".cache", ignore_errors=True)
        folder.parent.mkdir(exist_ok=True)
        os.replace(target, folder)

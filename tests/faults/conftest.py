"""What the tests of faults share: runs that behave as told, real ones that can be held at a stage, and a Redis."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from pgb_core import PruneSpec, embedded, jobs
from pgb_core.settings import get_settings
from tests import stand_in
from tests.faults import held
from tests.watching import ROOT, submit

Outcome = Callable[[str], None]


@pytest.fixture
def outcome(record_property: Callable[[str, object], None]) -> Outcome:
    """Says what became of it, for the table of `benchmarks/faults.py`."""
    return lambda text: record_property("outcome", text)


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Submits a run that behaves as told and returns its folder."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(embedded, "COMMAND", stand_in.WORKER)
    return submit


@pytest.fixture
def prune(tiny_checkpoint: Path, tiny_csv: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Submits a real run of every stage, held as `held.hold_file` is told, and returns its folder."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(embedded, "COMMAND", held.WORKER)
    runs_dir = get_settings().runs_dir
    sizes = {"calibration_samples": 64, "eval_samples": 40, "max_length": 32, "recover_epochs": 1}
    spec = PruneSpec(str(tiny_checkpoint), "csv", 0.5, train_file=str(tiny_csv), device="cpu", **sizes)

    def start(hold: str) -> Path:
        held.hold_file(runs_dir).write_text(hold)
        return runs_dir / jobs.submit(spec)

    return start


class Redis:
    """A Redis of this test alone, on loopback, which keeps nothing on disk."""

    def __init__(self, program: str, port: int) -> None:
        self.url = f"redis://127.0.0.1:{port}/0"
        self._command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with socket.socket() as attempt:
                if attempt.connect_ex(("127.0.0.1", self._port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError("Redis did not start")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@pytest.fixture
def redis(monkeypatch: pytest.MonkeyPatch) -> Iterator[Redis]:
    """A Redis that the settings name, running."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("no redis-server is installed; install one (Debian: apt-get install redis-server)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        found = Redis(program, free.getsockname()[1])
    monkeypatch.setenv("PGB_QUEUE", found.url)
    found.start()
    yield found
    found.kill()


@pytest.fixture
def workers(start: Callable[[str], Path], redis: Redis) -> Iterator[Callable[[], psutil.Popen]]:
    """Starts a worker by hand, as on another machine."""
    begun: list[psutil.Popen] = []

    def begin() -> psutil.Popen:
        begun.append(psutil.Popen(stand_in.WORKER, cwd=ROOT, stderr=subprocess.DEVNULL))
        return begun[-1]

    yield begin
    for process in begun:
        if process.is_running():
            process.kill()
        process.wait()

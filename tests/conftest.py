"""What every test has: its own folders, no network, few threads; and one tiny trained checkpoint for all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is first imported: it reads this once
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"  # tiny matrices: two threads on two busy cores are many times slower than one

import pytest
from hypothesis import settings as hypothesis_settings

from tests.tiny import make_tiny_checkpoint, make_tiny_csv

if TYPE_CHECKING:
    from tests.network import Network

hypothesis_settings.register_profile("pgb", deadline=None, derandomize=True)
hypothesis_settings.load_profile("pgb")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the tests that take minutes, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--long"):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="takes minutes: python -m benchmarks.faults, or --long"))


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs, models and caches of a test go to folders of its own; no setting of the caller's shell leaks in."""
    for name in [name for name in os.environ if name.startswith("PGB_")]:
        monkeypatch.delenv(name)
    base = tmp_path_factory.mktemp("pgb")
    for name in ("runs", "models", "cache", "data"):
        (base / name).mkdir()
        monkeypatch.setenv(f"PGB_{name.upper()}_DIR", str(base / name))
    monkeypatch.setenv("PGB_THREADS", "1")
    monkeypatch.setenv("PGB_SHOW_SAMPLES", "0")  # a server without runs is one, unless a test is about the samples
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    yield
    if (base / "runs" / ".queue").exists():  # a worker without its folder ends, and kills its runs
        (base / "runs").rename(base / "gone")
        shutil.rmtree(base / "gone", ignore_errors=True)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained two-class checkpoint (2 layers, hidden 32, 4 heads, 64 neurons). Read it, never write to it."""
    return make_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture(scope="session")
def tiny_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 texts with labels negative and positive, none of them used to train `tiny_checkpoint`."""
    return make_tiny_csv(tmp_path_factory.mktemp("data") / "tiny.csv")


@pytest.fixture(scope="session")
def network(tiny_checkpoint: Path, tiny_csv: Path) -> Network:
    """`tiny_checkpoint` taken apart for the tests of the stages. Read it, never write to it."""
    from tests.network import take_apart

    return take_apart(tiny_checkpoint, tiny_csv)

"""What must stay cheap to import: a page that waits seconds for torch is a broken page."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

import pgb_core

ROOT = Path(__file__).resolve().parent.parent
LIGHT = (
    "jobs",
    "commands",
    "embedded",
    "worker",
    "store",
    "spec",
    "settings",
    "layout",
    "progress",
    "answers",
    "published",
    "sweep_spec",
    "sweep_table",
    "trial",
    "checkpoints",
    "tasks",
    "demo",
    "corpora",
    "wheels",
    "console",
    "scored",
    "replan",
    "latency_table",
    "experience",
    "__main__",
    "formulas",
    "grouping",
    "lesson",
    "narration",
    "data_files",
    "hub_data",
    "label_order",
    "metrics",
    "significance",
    "splitting",
)
SLOW = ("torch", "transformers", "datasets", "sklearn", "scipy")


def loaded_by(modules: list[str], watched: tuple[str, ...]) -> list[str]:
    """Which of `watched` are in memory after a fresh interpreter has imported `modules`."""
    code = (
        "import importlib, json, logging, sys\nlogging.disable()\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"print(json.dumps([name for name in {watched!r} if name in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    return list(json.loads(done.stdout))


def imported_names(path: Path) -> set[str]:
    """Modules that the file at `path` imports when it runs."""
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


@pytest.mark.parametrize("module", LIGHT)
def test_modules_that_pages_and_the_command_line_start_with_are_light(module: str) -> None:
    assert loaded_by([f"pgb_core.{module}"], (*SLOW, "streamlit", "plotly")) == []


def test_app_and_pages_load_neither_torch_nor_transformers() -> None:
    files = [ROOT / "app.py", *sorted((ROOT / "pages").glob("*.py"))]
    names = set().union(*(imported_names(path) for path in files))
    names |= {f"ui.{path.stem}" for path in (ROOT / "ui").glob("*.py") if path.stem != "__init__"}
    assert "streamlit" in names
    assert loaded_by(sorted(names), SLOW) == []


def test_the_library_exports_what_it_says() -> None:
    assert sorted(pgb_core.__all__) == pgb_core.__all__
    for name in pgb_core.__all__:
        assert getattr(pgb_core, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        pgb_core.nothing  # noqa: B018


def test_every_error_is_a_pgb_error() -> None:
    errors = [value for name in pgb_core.__all__ if isinstance(value := getattr(pgb_core, name), type)]
    raised = [error for error in errors if issubclass(error, Exception)]
    assert len(raised) == 7
    assert all(issubclass(error, pgb_core.PGBError) for error in raised)


def test_kernels_of_the_hub_cannot_be_fetched() -> None:
    """transformers runs code from the Hub where this package is there."""
    assert importlib.util.find_spec("kernels") is None

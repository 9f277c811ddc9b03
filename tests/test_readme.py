"""The README knows every setting, page, command, flag, task and method."""

from __future__ import annotations

import argparse
import re
from dataclasses import fields
from pathlib import Path

from pgb_core.__main__ import make_parser
from pgb_core.settings import Settings
from pgb_core.spec import METHODS
from pgb_core.tasks import TASKS
from ui.frame import PAGES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_settings_with_their_sentences() -> None:
    for setting in fields(Settings):
        assert f"| `PGB_{setting.name.upper()}` |" in README
        assert setting.metadata["sentence"] in README


def test_pages_tasks_and_methods() -> None:
    for title, _ in PAGES.values():
        assert f"**{title}**" in README
    for name in (*TASKS, *METHODS):
        assert f"`{name}`" in README


def test_commands_and_flags() -> None:
    commands = next(a for a in make_parser()._actions if isinstance(a, argparse._SubParsersAction)).choices
    for name, parser in commands.items():
        assert f"python -m pgb_core {name}" in README
        for action in parser._actions:
            for flag in action.option_strings:
                if flag not in ("-h", "--help") and action.help != argparse.SUPPRESS:
                    assert flag in README, f"{name} {flag}"


def test_every_file_it_names_is_there() -> None:
    for name in re.findall(r"`((?:pgb_core|benchmarks|docs)/[\w./]+)`|\]\((docs/[\w./]+)\)", README):
        assert (ROOT / (name[0] or name[1])).exists(), name


def test_its_code_is_the_code() -> None:
    for block in re.findall(r"```python\n((?:class|PLACES) .*?)```", README, re.DOTALL):
        name = re.match(r"(?:class )?(\w+)", block)
        assert name is not None
        file = "modeling_pgb_distilbert.py" if name[1] == "PLACES" else "architectures.py"
        assert block in (ROOT / "pgb_core" / file).read_text(encoding="utf-8"), name[1]

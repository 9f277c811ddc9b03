"""What is written for deployments agrees with the code: no engine is at hand to build the image here."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pgb_core.__main__ import make_parser
from pgb_core.settings import Settings

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
GUIDE = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["Dockerfile", "compose.yaml", "docs/deploy.md"])
def test_every_variable_is_a_setting(name: str) -> None:
    named = set(re.findall(r"PGB_[A-Z_]+", (ROOT / name).read_text(encoding="utf-8")))
    assert named
    assert named <= {f"PGB_{setting.upper()}" for setting in Settings.__dataclass_fields__}


def test_the_image_copies_what_is_there_and_all_that_the_app_needs() -> None:
    copied = [name for line in re.findall(r"^COPY (.*) \S+$", DOCKERFILE, re.MULTILINE) for name in line.split()]
    assert all((ROOT / name).exists() for name in copied)
    assert {"app.py", "pages/", "ui/", "pgb_core/", "requirements.txt", ".streamlit/config.toml"} == set(copied)
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"]
    assert set(sent) == set(copied)


def test_nothing_runs_as_root_and_everything_says_whether_it_is_well() -> None:
    lines = DOCKERFILE.splitlines()
    user = next(number for number, line in enumerate(lines) if line.startswith("USER "))
    assert lines[user] == "USER pgb"
    assert not any(line.startswith(("RUN ", "COPY ")) for line in lines[user:])
    assert "HEALTHCHECK" in DOCKERFILE
    services = COMPOSE["services"]
    assert set(services) == {"app", "worker", "redis"}
    assert services["redis"]["user"] == "redis"
    assert all("healthcheck" in services[name] for name in ("worker", "redis"))
    assert services["app"]["environment"] == services["worker"]["environment"]
    assert services["app"]["volumes"] == services["worker"]["volumes"]


def test_the_sweeps_of_the_guide_are_understood() -> None:
    sub = next(a for a in make_parser()._actions if isinstance(a, argparse._SubParsersAction))
    flags = {name: set(parser._option_string_actions) for name, parser in sub.choices.items()}
    commands = re.findall(r"pgb_core (sweep|prune|demo)\s([^`\n]*(?:\\\n[^`\n]*)*)", GUIDE)
    assert {name for name, _ in commands} == {"sweep", "prune", "demo"}
    for name, arguments in commands:
        assert set(re.findall(r"--[a-z-]+", arguments)) <= flags[name]

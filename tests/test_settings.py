"""Settings come from the environment, and a wrong one is told by name."""

from __future__ import annotations

import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from pgb_core import SpecError
from pgb_core.settings import Settings, get_settings

ROOT = Path(__file__).parent.parent
NUMBERS = [item.name for item in fields(Settings) if item.type in ("int", "float")]
TEXTS = {"queue": "redis://localhost:6379/0", "cancel": "owner"}
FOLDERS = [item.name for item in fields(Settings) if item.type == "Path"]


def test_every_setting_is_documented_in_a_sentence_and_has_a_known_type() -> None:
    assert len(NUMBERS) + len(FOLDERS) + len(TEXTS) == len(fields(Settings))
    for item in fields(Settings):
        sentence = item.metadata["sentence"]
        assert sentence[0].isupper()
        assert sentence.endswith(".")


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_comes_from_its_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"PGB_{name.upper()}", "7")
    assert getattr(get_settings(), name) == 7


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("text", ["many", "-1", "nan", "inf", "1;2"])
def test_a_wrong_number_names_its_variable(name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"PGB_{name.upper()}", text)
    with pytest.raises(SpecError, match=f"PGB_{name.upper()}='{text}' is not a .*number of at least"):
        get_settings()


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_comes_from_its_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"PGB_{name.upper()}", TEXTS[name])
    assert getattr(get_settings(), name) == TEXTS[name]


@pytest.mark.parametrize("name", TEXTS)
def test_a_wrong_text_names_its_variable_and_is_not_repeated(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"PGB_{name.upper()}", "amqp://user:password@host")
    with pytest.raises(SpecError, match=f"PGB_{name.upper()} is not what it may be: w") as refused:
        get_settings()
    assert "password" not in str(refused.value)


def test_a_server_that_could_never_run_anything_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGB_MAX_RUNNING_JOBS", "0")
    with pytest.raises(SpecError, match="at least 1"):
        get_settings()


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_becomes_absolute(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(f"PGB_{name.upper()}", "some/folder")
    assert getattr(get_settings(), name) == tmp_path.resolve() / "some" / "folder"


def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGB_MAX_QUEUED_JOBS", "")
    assert get_settings().max_queued_jobs == 20


def test_the_cache_follows_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PGB_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert get_settings().cache_dir == tmp_path / "pgb"


def test_the_server_takes_what_the_form_offers_to_upload() -> None:
    config = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text(encoding="utf-8"))
    limits = Settings()
    assert config["server"]["maxUploadSize"] == max(limits.max_checkpoint_megabytes, limits.max_upload_megabytes)

"""Where a checkpoint is from is read as plain text: nothing in a README can do more than fill a line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgb_core import hub
from pgb_core.card import FILE, Origin, of_finetuned, read_origin
from pgb_core.finetune_spec import FinetuneSpec


def written(folder: Path, head: str) -> Origin:
    (folder / FILE).write_text(f"---\n{head}\n---\n\n# A model\nlicense: not-this-one\n", encoding="utf-8")
    return read_origin(folder)


@pytest.mark.parametrize(
    ("head", "origin"),
    [
        ("license: apache-2.0", Origin(None, "apache-2.0")),
        ('license: "mit"\nbase_model: google-bert/bert-base-uncased', Origin("google-bert/bert-base-uncased", "mit")),
        ("license: other\nlicense_name: my-licence", Origin(None, "my-licence")),
        ("base_model:\n- owner/one\n- owner/two\nlicense:\n  - mit", Origin("owner/one", "mit")),
        ("base_model: a/b\nbase_model_revision: abc", Origin("a/b", None, "abc")),
        ("language: en", Origin()),
        ("license: <script>alert(1)</script>", Origin(None, "scriptalert(1)/script")),
        ("license: &a [*a, *a]", Origin(None, "a a, a")),
        (f"license: {'x' * 10_000}", Origin(None, "x" * 100)),
    ],
)
def test_the_head_of_a_model_card(tmp_path: Path, head: str, origin: Origin) -> None:
    assert written(tmp_path, head) == origin


def test_without_a_head_nothing_is_known(tmp_path: Path) -> None:
    assert read_origin(tmp_path) == Origin()
    (tmp_path / FILE).write_text("# A model\nlicense: mit")
    assert read_origin(tmp_path) == Origin()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("---\nlicense: secret\n---\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / FILE).symlink_to(tmp_path / "secret")
    (tmp_path / "record").write_text('{"name": "owner/secret"}')
    (tmp_path / "folder" / hub.RECORD).symlink_to(tmp_path / "record")
    assert read_origin(tmp_path / "folder") == Origin()


def test_the_record_of_a_download_goes_first(tmp_path: Path) -> None:
    record = {"name": "owner/name", "revision": "0" * 40, "license": None}
    (tmp_path / hub.RECORD).write_text(json.dumps(record))
    assert written(tmp_path, "license: mit\nbase_model: other/one") == Origin("owner/name", "mit", "0" * 40)


@given(st.binary(max_size=200))
def test_any_bytes_are_read(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / FILE).write_bytes(b"---\nlicense: " + content)
    (folder / hub.RECORD).write_bytes(content)
    found = read_origin(folder)
    assert len(found.license or "") <= 100
    assert "\n" not in (found.license or "")


def test_a_card_names_the_revision_that_was_fine_tuned(tmp_path: Path) -> None:
    spec = FinetuneSpec(checkpoint="hub:owner/name", task="sst2")
    facts = {"score": 0.9, "learning_rate": 1e-4, "metric": "accuracy", "standard_error": 0.01, "samples": 9}
    origin = Origin("owner/name", "mit", "0" * 40)
    (tmp_path / FILE).write_text(of_finetuned(spec, facts, origin), encoding="utf-8")
    assert read_origin(tmp_path) == origin

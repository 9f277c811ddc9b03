"""Points as files, and what decides whether they still hold."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.accuracy_points import (
    ONE_SHOT_CODE,
    RECOVERY_CODE,
    Key,
    Origin,
    Point,
    code_digest,
    data_digest,
    pack,
    read,
    read_all,
    unpack,
    write,
)
from pgb_core.batching import Example

ORIGIN = Origin("checkpoint", "data", "code", {"torch": "2"}, "abc", "cpu", 2)


def point(key: Key, count: int = 13) -> Point:
    answers = np.random.default_rng(0).random(count) < 0.7
    logits = np.random.default_rng(1).normal(size=(count, 3)).astype(np.float32) if key.reference else None
    return Point(key, ORIGIN, answers, 0.501, 12, 4, 1, 0.25, 0.01, {"pruning": 1.5}, logits)


@given(st.lists(st.booleans(), max_size=40))
def test_packed_answers_come_back(answers: list[bool]) -> None:
    assert unpack(pack(np.array(answers, dtype=bool)), len(answers)).tolist() == answers


def test_answers_of_another_count_are_refused() -> None:
    with pytest.raises(ValueError, match="do not hold"):
        unpack(pack(np.ones(9, dtype=bool)), 25)


@pytest.mark.parametrize(
    "key",
    [
        Key("news", "dense"),
        Key("news", "dense", recovered=True),
        Key("news", "pgb-mixed", 0.5),
        Key("news", "pgb-mixed", 0.5, recovered=True),
    ],
)
def test_a_point_comes_back_from_its_file(tmp_path: Path, key: Key) -> None:
    written = point(key)
    found = read(write(tmp_path, written))
    assert found is not None
    for name in ("key", "origin", "achieved", "sublayers", "grouped", "dropped", "loss", "divergence", "seconds"):
        assert getattr(found, name) == getattr(written, name)
    np.testing.assert_array_equal(found.correct, written.correct)
    if written.logits is None:
        assert found.logits is None
    else:
        np.testing.assert_array_equal(found.logits, written.logits)
    assert found.score == np.mean(written.correct)


def test_each_point_has_a_file_of_its_own(tmp_path: Path) -> None:
    keys = [Key("news", "pgb", 0.5), Key("news", "pgb", 0.5, True), Key("news", "pgb", 0.75), Key("tweets", "pgb", 0.5)]
    for key in keys:
        write(tmp_path, point(key))
    assert [found.key for found in read_all(tmp_path)] == sorted(keys)


def test_what_is_no_point_is_not_read(tmp_path: Path) -> None:
    path = write(tmp_path, point(Key("news", "pgb", 0.5)))
    values = json.loads(path.read_text())
    assert read(tmp_path / "nothing.json") is None
    for damaged in ("", "{", "[]", json.dumps(values | {"schema": 0}), json.dumps(values | {"samples": 99})):
        path.write_text(damaged)
        assert read(path) is None
    assert read_all(tmp_path) == []
    path = write(tmp_path, point(Key("news", "dense")))
    values = json.loads(path.read_text())
    del values["logits"]
    path.write_text(json.dumps(values))
    assert read(path) is None


def test_a_failed_point_keeps_its_reason(tmp_path: Path) -> None:
    failed = Point(Key("news", "pgb", 0.99), ORIGIN, np.zeros(0, dtype=bool), failure="out of reach.")
    path = write(tmp_path, failed)
    found = read(path)
    assert found is not None
    assert found.failure == "out of reach."
    assert json.loads(path.read_text())["score"] is None


def test_what_makes_points_comparable_and_what_makes_them_stale() -> None:
    for other in (replace(ORIGIN, checkpoint="x"), replace(ORIGIN, data="x")):
        assert not other.comparable(ORIGIN)
    for other in (replace(ORIGIN, code="x"), replace(ORIGIN, versions={"torch": "3"})):
        assert other.comparable(ORIGIN)
        assert not other.same_code(ORIGIN)
    elsewhere = replace(ORIGIN, commit=None, device="gpu", threads=8)
    assert elsewhere.comparable(ORIGIN)
    assert elsewhere.same_code(ORIGIN)


def test_the_digest_of_data_depends_on_every_token_label_and_split() -> None:
    examples = [Example((1, 2), (0, 0), 0), Example((3,), (0,), 1)]
    found = data_digest(examples)
    assert found == data_digest(list(examples))
    for other in ([examples[::-1]], [examples[:1], examples[1:]], [[replace(examples[0], label=1), examples[1]]]):
        assert data_digest(*other) != found


def test_the_digest_of_code_follows_imports_and_heeds_what_runs(tmp_path: Path) -> None:
    package = tmp_path / "pkg"
    (package / "sub").mkdir(parents=True)
    (package / "top.py").write_text("from pkg.sub.deep import f\nfrom pkg import side\nx = f()\n")
    (package / "sub" / "deep.py").write_text('def f():\n    """Doc."""\n    return 1\n')
    (package / "side.py").write_text("import pkg.top\n")  # a circle
    (package / "other.py").write_text("y = 1\n")
    before = code_digest(["top"], package=package)
    (package / "other.py").write_text("y = 2\n")
    (package / "sub" / "deep.py").write_text('def f():\n    """Another."""\n    return 1  # why\n')
    assert code_digest(["top"], package=package) == before
    assert code_digest(["top"], "3 epochs", package=package) != before
    for file, text in (("side.py", "import pkg.top\nz = 1\n"), ("sub/deep.py", "def f():\n    return 2\n")):
        (package / file).write_text(text)
        after = code_digest(["top"], package=package)
        assert after != before
        before = after


def test_recovery_has_more_code_than_pruning() -> None:
    assert code_digest(ONE_SHOT_CODE) != code_digest(RECOVERY_CODE) != code_digest(())

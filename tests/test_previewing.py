"""A file is looked at in another process, which a bomb may end."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pgb_core import previewing
from pgb_core.data_files import preview
from pgb_core.errors import TaskError


def test_it_sees_what_the_library_sees(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("text,label\ngood day,1\nbäd,0\n", encoding="utf-8")
    assert previewing.preview_apart(file) == preview(file)


def test_a_refusal_is_the_same_line(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(TaskError, match=r"^a.csv is not UTF-8 text; save it as UTF-8.$"):
        previewing.preview_apart(file)


@pytest.mark.parametrize(
    ("shared", "words"), [(False, "takes too much memory or time"), (True, "holds more than 2,000,000,000 characters")]
)
def test_a_small_file_that_unpacks_to_gigabytes_is_refused(shared: bool, words: str, tmp_path: Path) -> None:
    file = tmp_path / "bomb.parquet"
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 200_000, pa.int32()), pa.array(["x" * 2**20]))
    table = pa.table({"text": text, "label": ["a"] * 200_000})
    pq.write_table(table, file, compression="zstd", store_schema=shared)
    assert file.stat().st_size < 10**6
    with pytest.raises(TaskError, match=rf"^bomb.parquet {words}"):
        previewing.preview_apart(file)

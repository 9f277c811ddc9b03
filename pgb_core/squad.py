"""Question answering as in SQuAD: windows over long paragraphs, the words that answer a question, EM and F1.

A paragraph that does not fit beside its question is read in overlapping windows. Each window gives a logit for every
token to be the start, and one to be the end, of the answer; its first token stands for "no answer here". The answer to
a question is the best span of the n best starts and ends over all its windows; where the data has questions without
answers (SQuAD 2.0), no answer wins if its logits beat those of the best span. After Devlin et al., BERT, 2019,
sections 4.2 and 4.3, and the official evaluation of Rajpurkar et al., 2016 and 2018.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pgb_core.batching import Example, check_length
from pgb_core.progress import Step, silent

if TYPE_CHECKING:
    from datasets import Dataset

QUESTION_TOKENS = 64
"""Longer questions are cut, as in BERT's own recipe."""
STRIDE = 128
"""Tokens that a window shares with the one before it."""
N_BEST = 20
"""Starts, and ends, that are tried per window."""
ANSWER_TOKENS = 30
"""Longest answer."""
NULL_THRESHOLD = 0.0
"""By how much the logits of no answer must beat those of the best span."""
_NULL = 0
"""Place of the token that stands for no answer: the first, in all families."""
_CHUNK = 64
"""Questions tokenized between two calls of `step`."""


@dataclass(frozen=True, eq=False)
class Window:
    """One input to the model: a question beside a part of its paragraph."""

    example: Example
    """Its label: first and last token of the answer, twice `_NULL` where it is not in this part."""
    row: int
    """Place of the question in the dataset."""
    offsets: NDArray[np.int32]
    """(L, 2) first character and the one after the last of each token of the paragraph; -1 of the other tokens."""


# --- windows -------------------------------------------------------------------------------------------------------


def windows_of(dataset: Dataset, tokenizer: Any, max_length: int, step: Step = silent) -> list[Window]:
    """The windows of every question, in the dataset's order, of `max_length` tokens at most.

    Where that leaves little room for a paragraph, questions are cut to half of it and windows overlap by a fourth.

    Raises:
        TaskError: `max_length` is more than the checkpoint has positions for.
    """
    check_length(tokenizer, max_length)
    found: list[Window] = []
    for start in range(0, len(dataset), _CHUNK):
        found += _windows(dataset[start : start + _CHUNK], start, tokenizer, max_length)
        step(min(start + _CHUNK, len(dataset)), len(dataset), "reading questions and paragraphs")
    return found


def _windows(rows: Mapping[str, Sequence[Any]], first: int, tokenizer: Any, max_length: int) -> list[Window]:
    questions = _cut(rows["text"], tokenizer, min(QUESTION_TOKENS, max_length // 2))
    tokens = tokenizer(
        questions,
        rows["text_pair"],
        truncation="only_second",
        max_length=max_length,
        stride=min(STRIDE, max_length // 4),
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_token_type_ids=True,
        padding=False,
    )
    typed = "token_type_ids" in tokenizer.model_input_names
    known: dict[int, int] = {}  # one object per token id: a training set has millions of them
    found = []
    for n, (ids, types) in enumerate(zip(tokens["input_ids"], tokens["token_type_ids"], strict=True)):
        row = tokens["overflow_to_sample_mapping"][n]
        offsets = np.array(tokens["offset_mapping"][n], dtype=np.int32)
        offsets[[part != 1 for part in tokens.sequence_ids(n)]] = -1
        label = _span(offsets, rows["answers"][row], rows["starts"][row])
        tokens_shared = tuple(known.setdefault(token, token) for token in ids)
        example = Example(tokens_shared, tuple(types) if typed else None, label, tokenizer.pad_token_id)
        found.append(Window(example, first + row, offsets))
    return found


def _cut(questions: Sequence[str], tokenizer: Any, most: int) -> list[str]:
    """The questions up to their `most`-th token."""
    tokens = tokenizer(
        [question.strip() for question in questions],
        add_special_tokens=False,
        truncation=True,
        max_length=most,
        return_offsets_mapping=True,
    )
    pairs = zip(questions, tokens["offset_mapping"], strict=True)
    return [q.strip()[: offsets[-1][1]] if offsets else q.strip() for q, offsets in pairs]


def _span(offsets: NDArray[np.int32], answers: Sequence[str], starts: Sequence[int]) -> tuple[int, int]:
    """First and last token of the first answer; twice `_NULL` if there is none, or a part of it is elsewhere."""
    if not answers:
        return _NULL, _NULL
    begin, end = starts[0], starts[0] + len(answers[0])
    inside = np.flatnonzero((offsets[:, 0] < end) & (offsets[:, 1] > begin) & (offsets[:, 0] >= 0))
    context = offsets[offsets[:, 0] >= 0]
    if not len(inside) or begin < context[0, 0] or end > context[-1, 1]:
        return _NULL, _NULL
    return int(inside[0]), int(inside[-1])


# --- answers -------------------------------------------------------------------------------------------------------


def answer_texts(
    logits: NDArray[np.float32], windows: Sequence[Window], contexts: Mapping[int, str], *, may_be_none: bool
) -> dict[int, str]:
    """The answer to each question, by its row; an empty text for none.

    Args:
        logits: (windows, L, 2) of start and end.
        contexts: the whole paragraph by row.
        may_be_none: whether no answer is an answer, as in SQuAD 2.0.
    """
    best: dict[int, tuple[float, str]] = dict.fromkeys(contexts, (-np.inf, ""))
    null: dict[int, float] = dict.fromkeys(contexts, np.inf)
    for scores, window in zip(logits, windows, strict=True):
        row = window.row
        null[row] = min(null[row], float(scores[_NULL].sum()))
        score, first, last = _best_span(scores[: len(window.offsets)], window.offsets[:, 0] >= 0)
        if score > best[row][0]:
            best[row] = score, contexts[row][window.offsets[first, 0] : window.offsets[last, 1]]
    return {
        row: "" if may_be_none and null[row] - score > NULL_THRESHOLD else text for row, (score, text) in best.items()
    }


def _best_span(scores: NDArray[np.float32], context: NDArray[np.bool_]) -> tuple[float, int, int]:
    """Score, first and last token of the best span of `N_BEST` starts and ends among the tokens of the paragraph."""
    masked = np.where(context[:, None], scores, -np.inf)
    firsts, lasts = (np.argsort(-masked[:, k], kind="stable")[:N_BEST] for k in (0, 1))
    lengths = lasts[None, :] - firsts[:, None] + 1
    sums = masked[firsts, 0][:, None] + masked[lasts, 1][None, :]
    sums = np.where((lengths > 0) & (lengths <= ANSWER_TOKENS), sums, -np.inf)
    i, j = np.unravel_index(int(sums.argmax()), sums.shape)
    return float(sums[i, j]), int(firsts[i]), int(lasts[j])


# --- metrics -------------------------------------------------------------------------------------------------------


def normalized(text: str) -> str:
    """In lower case, without punctuation, articles and superfluous white space: what counts as the same answer.

    >>> normalized("The  Team's!")
    'teams'
    """
    plain = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", plain).split())


def exact_match(said: str, answer: str) -> float:
    """1 where both are the same once `normalized`, else 0."""
    return float(normalized(said) == normalized(answer))


def f1(said: str, answer: str) -> float:
    """Harmonic mean of precision and recall of the words of `said`; with no words on one side, whether both have none.

    >>> f1("the red house", "house")
    0.6666666666666666
    """
    words, right = normalized(said).split(), normalized(answer).split()
    if not words or not right:
        return float(words == right)
    common = sum((Counter(words) & Counter(right)).values())
    return 2 * common / (len(words) + len(right))


METRICS: Mapping[str, Callable[[str, str], float]] = {"f1": f1, "exact_match": exact_match}


def points(metric: str, said: Sequence[str], answers: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """(N,) `f1` or `exact_match` of each answer with the right one that it is nearest to; an empty text is none."""
    score = METRICS[metric]
    found = []
    for text, right in zip(said, answers, strict=True):
        found.append(max(score(text, answer) for answer in [r for r in right if normalized(r)] or [""]))
    return np.array(found)

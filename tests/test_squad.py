from __future__ import annotations

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertTokenizer

from pgb_core import squad
from pgb_core.errors import TaskError
from pgb_core.squad import answer_texts, exact_match, f1, normalized, points, windows_of
from tests.tiny import FILLERS, SPECIAL_TOKENS

WORDS = ("who", "where", "won", "red", "blue", *FILLERS)


@pytest.fixture(scope="module")
def tokenizer() -> BertTokenizer:
    tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate((*SPECIAL_TOKENS, *WORDS, ".", "?"))})
    tokenizer.model_max_length = 128
    return tokenizer


def dataset(*rows: tuple[str, str, list[str]]) -> Dataset:
    """Of (question, paragraph, answers); an answer starts where its words first are."""
    return Dataset.from_dict(
        {
            "text": [question for question, _, _ in rows],
            "text_pair": [context for _, context, _ in rows],
            "answers": [answers for _, _, answers in rows],
            "starts": [[context.index(answer) for answer in answers] for _, context, answers in rows],
            "label": [int(bool(answers)) for _, _, answers in rows],
        }
    )


LONG = " ".join([*("the day of the house " * 8).split(), "red", "blue", *("on a road " * 8).split()])


@given(st.integers(12, 60), st.integers(1, 40))
def test_windows_cover_the_paragraph_and_know_where_the_answer_is(max_length: int, words: int) -> None:
    vocabulary = {word: index for index, word in enumerate((*SPECIAL_TOKENS, *WORDS, "?"))}
    tokenizer = BertTokenizer(vocab=vocabulary)
    tokenizer.model_max_length = 128
    context = LONG
    answer = " ".join(context.split()[words : words + 2])
    data = dataset(("who won?", context, [answer]))
    start = len(" ".join(context.split()[:words])) + 1
    data = data.remove_columns("starts").add_column("starts", [[start]])
    windows = windows_of(data, tokenizer, max_length)
    covered: set[int] = set()
    found = 0
    for window in windows:
        assert len(window.example.input_ids) == len(window.offsets) <= max_length
        places = [(int(a), int(b)) for a, b in window.offsets if a >= 0]
        covered |= {character for a, b in places for character in range(a, b)}
        first, last = window.example.label  # type: ignore[misc]
        if (first, last) == (0, 0):
            assert not (places[0][0] <= start and start + len(answer) <= places[-1][1])
        else:
            found += 1
            assert context[window.offsets[first, 0] : window.offsets[last, 1]] == answer
    assert {n for n, character in enumerate(context) if character != " "} <= covered
    assert found >= 1  # the overlap is longer than the answer
    assert all(window.row == 0 for window in windows)


def test_a_question_that_is_too_long_is_cut_and_its_paragraph_is_read(tokenizer: BertTokenizer) -> None:
    data = dataset((" ".join(["who"] * 100), "the red house", ["red"]))
    (window,) = windows_of(data, tokenizer, 128)
    assert list(window.example.input_ids).count(WORDS.index("who") + len(SPECIAL_TOKENS)) == squad.QUESTION_TOKENS
    assert window.example.label == (67, 67)


def test_questions_without_answers_point_to_the_first_token(tokenizer: BertTokenizer) -> None:
    (window,) = windows_of(dataset(("who won?", "the red house", [])), tokenizer, 32)
    assert window.example.label == (0, 0)
    with pytest.raises(TaskError, match="is more than this checkpoint's 128 positions"):
        windows_of(dataset(("who won?", "the red house", [])), tokenizer, 129)


def logits_for(windows: list[squad.Window], best: dict[int, tuple[int, int, float]]) -> np.ndarray:
    """Zeros, but for one span of some windows, by their place: first and last token, and the logit of each."""
    longest = max(len(window.offsets) for window in windows)
    found = np.full((len(windows), longest, 2), -np.inf, dtype=np.float32)
    for n, window in enumerate(windows):
        found[n, : len(window.offsets)] = 0.0
        if n in best:
            first, last, logit = best[n]
            found[n, first, 0] = found[n, last, 1] = logit
    return found


def test_the_best_span_of_all_windows_is_the_answer(tokenizer: BertTokenizer) -> None:
    windows = windows_of(dataset(("who won?", LONG, ["red blue"])), tokenizer, 32)
    assert len(windows) > 2
    right = next(n for n, window in enumerate(windows) if window.example.label != (0, 0))
    first, last = windows[right].example.label  # type: ignore[misc]
    logits = logits_for(windows, {0: (6, 7, 2.0), right: (first, last, 3.0)})
    assert answer_texts(logits, windows, {0: LONG}, may_be_none=False) == {0: "red blue"}


@pytest.mark.parametrize("place", [1, 2])
def test_neither_the_question_nor_an_end_before_the_start_is_an_answer(tokenizer: BertTokenizer, place: int) -> None:
    context = "the red house on a road"
    windows = windows_of(dataset(("who won?", context, ["red"])), tokenizer, 32)
    logits = logits_for(windows, {0: (place, place, 9.0)})
    start = 5  # [CLS] who won ? [SEP] the
    logits[0, start + 2, 0] = 4.0
    logits[0, start, 1] = 4.0
    logits[0, start + 4, 1] = 3.0
    assert answer_texts(logits, windows, {0: context}, may_be_none=False) == {0: "house on a"}


def test_an_answer_has_a_greatest_length(tokenizer: BertTokenizer) -> None:
    windows = windows_of(dataset(("who won?", LONG, ["red blue"])), tokenizer, 128)
    logits = logits_for(windows, {0: (5, 5 + squad.ANSWER_TOKENS, 9.0)})
    logits[0, 6, 1] = 1.0
    text = answer_texts(logits, windows, {0: LONG}, may_be_none=False)[0]
    assert text == "the day"


def test_no_answer_wins_where_every_window_prefers_it_and_the_task_knows_it(tokenizer: BertTokenizer) -> None:
    windows = windows_of(dataset(("who won?", LONG, [])), tokenizer, 32)
    sure = logits_for(windows, dict.fromkeys(range(len(windows)), (0, 0, 5.0)))
    sure[1, 8] = 2.0
    assert answer_texts(sure, windows, {0: LONG}, may_be_none=True) == {0: ""}
    assert answer_texts(sure, windows, {0: LONG}, may_be_none=False)[0] != ""
    sure[2, 0] = -5.0  # one window that sees its answer: the least null score counts
    assert answer_texts(sure, windows, {0: LONG}, may_be_none=True)[0] != ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [("The  Cat's, hat!", "cats hat"), ("a an the", ""), ("Theatre an-other", "theatre another"), ("", "")],
)
def test_texts_are_normalized_as_in_the_official_evaluation(text: str, expected: str) -> None:
    assert normalized(text) == expected


@pytest.mark.parametrize(
    ("said", "answer", "exact", "overlap"),
    [
        ("the Team", "team", 1, 1),
        ("red team", "team", 0, 2 / 3),
        ("team team", "team red", 0, 0.5),
        ("", "", 1, 1),
        ("", "team", 0, 0),
        ("the", "team", 0, 0),
        ("blue", "team", 0, 0),
    ],
)
def test_exact_match_and_f1(said: str, answer: str, exact: float, overlap: float) -> None:
    assert exact_match(said, answer) == exact
    assert f1(said, answer) == pytest.approx(overlap)


words = st.lists(st.sampled_from(["red", "team", "the", "won", "day"]), max_size=5).map(" ".join)


@given(words, words)
def test_f1_is_the_harmonic_mean_of_precision_and_recall(said: str, answer: str) -> None:
    found, right = normalized(said).split(), normalized(answer).split()
    common = sum(min(found.count(word), right.count(word)) for word in set(found))
    if common:
        precision, recall = common / len(found), common / len(right)
        assert f1(said, answer) == pytest.approx(2 * precision * recall / (precision + recall))
    else:
        assert f1(said, answer) == float(not found and not right)
    assert f1(said, answer) == f1(answer, said) >= exact_match(said, answer)


def test_the_nearest_right_answer_counts_and_none_is_right_where_there_is_none() -> None:
    said = ["red team", "", "red", ""]
    answers = [["blue", "the red team"], [], [], ["red"]]
    assert points("f1", said, answers).tolist() == [1, 1, 0, 0]
    assert points("exact_match", said, answers).tolist() == [1, 1, 0, 0]

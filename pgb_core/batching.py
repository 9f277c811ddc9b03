"""From texts to tensors: tokenized examples, padded batches, stratified samples.

Batches are sorted by length by default, so that a short text is not computed at the length of the longest one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from pgb_core.errors import TaskError
from pgb_core.progress import Step, silent

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast

_CHUNK = 256
"""Texts tokenized between two calls of `step`: a few milliseconds of work, so a cancel is heard at once."""


@dataclass(frozen=True)
class Example:
    """One tokenized text or pair of texts, unpadded, with what is right."""

    input_ids: tuple[int, ...]
    token_type_ids: tuple[int, ...] | None
    """None where the model takes none, or knows one type only."""
    label: int | float | tuple[int, int]
    """The index of its label, a value, or the first and the last token of an answer."""
    padding: int = 0
    """What fills it up to the longest of its batch."""


@dataclass(frozen=True)
class Batch:
    """B examples padded to the longest of them, L tokens; every tensor is int64, but for labels that are values.

    >>> batch.to(torch.device("cpu")).inputs.keys()  # doctest: +SKIP
    dict_keys(['input_ids', 'attention_mask', 'token_type_ids'])
    """

    input_ids: torch.Tensor  # (B, L)
    attention_mask: torch.Tensor  # (B, L), 1 on real tokens
    token_type_ids: torch.Tensor | None  # (B, L)
    labels: torch.Tensor  # (B,), or (B, 2) tokens
    indices: torch.Tensor  # (B,), positions in the list of examples

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`; the indices stay on the CPU, where results are put back in order."""
        return replace(
            self,
            input_ids=self.input_ids.to(device),
            attention_mask=self.attention_mask.to(device),
            token_type_ids=None if self.token_type_ids is None else self.token_type_ids.to(device),
            labels=self.labels.to(device),
        )

    @property
    def inputs(self) -> dict[str, torch.Tensor]:
        """Keyword arguments of the model's forward; without the labels, so that the model computes no loss."""
        inputs = {"input_ids": self.input_ids, "attention_mask": self.attention_mask}
        return inputs if self.token_type_ids is None else {**inputs, "token_type_ids": self.token_type_ids}


def encode(dataset: Dataset, tokenizer: PreTrainedTokenizerFast, max_length: int, step: Step = silent) -> list[Example]:
    """Tokenize `text` (and `text_pair`, if there is one), cut to `max_length` tokens, in the dataset's order.

    The second text is of type 1, and there are no types where the tokenizer's model takes none.

    Raises:
        TaskError: `max_length` is more than the checkpoint has positions for.
    """
    check_length(tokenizer, max_length)
    paired = "text_pair" in dataset.column_names
    examples: list[Example] = []
    for start in range(0, len(dataset), _CHUNK):
        rows = dataset[start : start + _CHUNK]
        pairs = rows["text_pair"] if paired else None
        examples += encode_texts(rows["text"], pairs, rows["label"], tokenizer, max_length)
        step(len(examples), len(dataset), "reading texts")
    return examples


def check_length(tokenizer: PreTrainedTokenizerFast, max_length: int) -> None:
    """Refuse texts longer than the model reads.

    Raises:
        TaskError: `max_length` is more than the checkpoint has positions for.
    """
    if max_length > tokenizer.model_max_length:
        raise TaskError(
            f"max length {max_length} is more than this checkpoint's {tokenizer.model_max_length} positions; "
            f"give a max length of {tokenizer.model_max_length} or less."
        )


def encode_texts(
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    labels: Sequence[int] | Sequence[float],
    tokenizer: PreTrainedTokenizerFast,
    max_length: int,
) -> list[Example]:
    """Tokenize as `encode` does what is not in a dataset."""
    tokens = tokenizer(texts, pairs, truncation=True, max_length=max_length, padding=False, return_token_type_ids=True)
    typed = "token_type_ids" in tokenizer.model_input_names
    return [
        Example(tuple(ids), tuple(types) if typed else None, label, tokenizer.pad_token_id)
        for ids, types, label in zip(tokens["input_ids"], tokens["token_type_ids"], labels, strict=True)
    ]


def batches(
    examples: Sequence[Example],
    batch_size: int,
    *,
    tokens: int | None = None,
    among: Sequence[int] | None = None,
    order: Literal["length", "shuffled"] = "length",
    seed: int = 0,
) -> Iterator[Batch]:
    """Every example once, or those at the positions `among`, in batches of `batch_size` (the last may be smaller).

    `length` goes from short to long, ties in the given order; `shuffled` is a permutation that `seed` decides.

    Args:
        tokens: most tokens of a batch of several examples, padding included: what bounds its memory.
    """
    positions = list(range(len(examples)) if among is None else among)
    if order == "length":
        positions.sort(key=lambda position: len(examples[position].input_ids))
    else:
        positions = shuffled(positions, seed)
    chosen: list[int] = []
    longest = 0
    for position in positions:
        length = max(longest, len(examples[position].input_ids))
        too_long = tokens is not None and (len(chosen) + 1) * length > tokens
        if chosen and (len(chosen) == batch_size or too_long):
            yield collate(examples, chosen)
            chosen, length = [], len(examples[position].input_ids)
        chosen.append(position)
        longest = length
    if chosen:
        yield collate(examples, chosen)


def shuffled(positions: Sequence[int], seed: int) -> list[int]:
    """The positions in an order that `seed` decides."""
    order: list[int] = np.random.default_rng(seed).permutation(positions).tolist()
    return order


def collate(examples: Sequence[Example], positions: Sequence[int]) -> Batch:
    """The examples at `positions` as one batch."""
    chosen = [examples[position] for position in positions]
    shape = (len(chosen), max(len(example.input_ids) for example in chosen))
    input_ids = np.full(shape, chosen[0].padding, dtype=np.int64)
    attention_mask = np.zeros(shape, dtype=np.int64)
    typed = chosen[0].token_type_ids is not None
    token_type_ids = np.zeros(shape, dtype=np.int64)
    for row, example in enumerate(chosen):
        length = len(example.input_ids)
        input_ids[row, :length] = example.input_ids
        attention_mask[row, :length] = 1
        token_type_ids[row, :length] = example.token_type_ids or 0
    return Batch(
        torch.from_numpy(input_ids),
        torch.from_numpy(attention_mask),
        torch.from_numpy(token_type_ids) if typed else None,
        labels_of(chosen),
        torch.tensor(list(positions), dtype=torch.int64),
    )


def labels_of(examples: Sequence[Example]) -> torch.Tensor:
    """(N,) int64 indices or float32 values, or (N, 2) int64 tokens."""
    valued = any(isinstance(example.label, float) for example in examples)
    return torch.tensor([example.label for example in examples], dtype=torch.float32 if valued else torch.int64)


def strata(labels: Sequence[int] | Sequence[str] | Sequence[float]) -> NDArray[Any]:
    """(N,) what examples are stratified by: the labels; of values, which fifth of the values they are in."""
    array = np.array(labels)
    if array.dtype.kind != "f":
        return array
    return np.searchsorted(np.quantile(array, (0.2, 0.4, 0.6, 0.8)), array, side="right")


def stratified_positions(labels: Sequence[int] | Sequence[str] | Sequence[float], count: int, seed: int) -> list[int]:
    """Positions of `count` examples without replacement (all, if there are fewer), ascending.

    Each label has its share of the whole, rounded by largest remainder, so it is off by less than one example; of
    values, each of their `strata`.
    """
    if count >= len(labels):
        return list(range(len(labels)))
    generator = np.random.default_rng(seed)
    array = strata(labels)
    names, sizes = np.unique(array, return_counts=True)
    exact = sizes * (count / len(array))
    take = np.floor(exact).astype(np.int64)
    remainders = np.argsort(take - exact, kind="stable")  # largest remainder first
    take[remainders[: count - int(take.sum())]] += 1
    chosen = [
        generator.choice(np.flatnonzero(array == name), size, replace=False)
        for name, size in zip(names, take, strict=True)
    ]
    positions: list[int] = np.sort(np.concatenate(chosen)).tolist()
    return positions

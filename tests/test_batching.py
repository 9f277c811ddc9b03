from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from pgb_core.batching import Example, batches, encode, stratified_positions
from pgb_core.checkpoints import load_model, load_tokenizer
from pgb_core.errors import JobCancelled, TaskError
from pgb_core.evaluation import predict
from tests.test_inspection import edit_config, edit_tensors

EXAMPLES = st.lists(
    st.builds(
        lambda length, label: Example(tuple(range(5, 5 + length)), (1,) * length, label, padding=99),
        st.integers(1, 12),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=60,
)


def test_encode_puts_pairs_in_one_sequence_with_two_types(tiny_checkpoint: Path) -> None:
    tokenizer = load_tokenizer(tiny_checkpoint)
    data = Dataset.from_dict({"text": ["the happy", "sad"], "text_pair": ["win", "the the"], "label": [1, 0]})
    first, second = encode(data, tokenizer, 16)
    names = tokenizer.convert_ids_to_tokens(list(first.input_ids))
    assert names == ["[CLS]", "the", "happy", "[SEP]", "win", "[SEP]"]
    assert first.token_type_ids == (0, 0, 0, 0, 1, 1)
    assert (first.label, second.label) == (1, 0)
    assert len(second.input_ids) == 6


def test_encode_gives_pairs_no_types_where_the_model_knows_one_type(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))
    edit_config(folder, type_vocab_size=1)
    name = "bert.embeddings.token_type_embeddings.weight"
    edit_tensors(folder, lambda tensors: tensors.update({name: tensors[name][:1]}))
    data = Dataset.from_dict({"text": ["the happy"], "text_pair": ["win"], "label": [1]})
    (example,) = encode(data, load_tokenizer(folder), 16)
    assert len(example.input_ids) == 6
    assert example.token_type_ids is None
    assert predict(load_model(folder), [example]).shape == (1,)


def test_encode_cuts_to_the_length_and_keeps_the_last_separator(tiny_checkpoint: Path) -> None:
    tokenizer = load_tokenizer(tiny_checkpoint)
    (example,) = encode(Dataset.from_dict({"text": ["the " * 50], "label": [0]}), tokenizer, 10)
    assert len(example.input_ids) == 10
    assert example.input_ids[-1] == tokenizer.sep_token_id


def test_encode_refuses_more_tokens_than_positions(tiny_checkpoint: Path) -> None:
    data = Dataset.from_dict({"text": ["the"], "label": [0]})
    with pytest.raises(TaskError, match="128 positions"):
        encode(data, load_tokenizer(tiny_checkpoint), 129)


def test_encode_stops_when_step_cancels(tiny_checkpoint: Path) -> None:
    calls = []

    def step(done: int, total: int, message: str = "") -> None:
        calls.append((done, total))
        raise JobCancelled

    data = Dataset.from_dict({"text": ["the"] * 600, "label": [0] * 600})
    with pytest.raises(JobCancelled):
        encode(data, load_tokenizer(tiny_checkpoint), 8, step)
    assert calls == [(256, 600)]


@given(EXAMPLES, st.integers(1, 9), st.sampled_from(["length", "shuffled"]))
def test_batches_hold_every_example_once_padded_and_masked(examples: list[Example], size: int, order: str) -> None:
    seen: list[int] = []
    for batch in batches(examples, size, order=order):  # type: ignore[arg-type]
        assert batch.token_type_ids is not None
        assert batch.input_ids.shape == batch.attention_mask.shape
        assert torch.equal(batch.token_type_ids, batch.attention_mask)
        assert len(batch.labels) <= size
        for row, position in enumerate(batch.indices.tolist()):
            example = examples[position]
            length = len(example.input_ids)
            assert batch.input_ids[row, :length].tolist() == list(example.input_ids)
            assert (batch.input_ids[row, length:] == 99).all()
            assert batch.attention_mask[row].tolist() == [1] * length + [0] * (batch.input_ids.shape[1] - length)
            assert batch.labels[row] == example.label
        seen += batch.indices.tolist()
    assert sorted(seen) == list(range(len(examples)))


@given(EXAMPLES, st.integers(1, 9))
def test_batches_by_length_go_from_short_to_long(examples: list[Example], size: int) -> None:
    order = [index for batch in batches(examples, size) for index in batch.indices.tolist()]
    lengths = [len(examples[index].input_ids) for index in order]
    assert lengths == sorted(lengths)
    padding = sum(int((1 - batch.attention_mask).sum()) for batch in batches(examples, size))
    in_order = sum(
        size_ * max(part) - sum(part)
        for start in range(0, len(examples), size)
        if (part := [len(e.input_ids) for e in examples[start : start + size]]) and (size_ := len(part))
    )
    assert padding <= in_order


@given(EXAMPLES, st.integers(1, 9), st.integers(1, 60))
def test_batches_of_at_most_so_many_tokens(examples: list[Example], size: int, tokens: int) -> None:
    found = list(batches(examples, size, tokens=tokens))
    together = np.sort(np.concatenate([batch.indices.numpy() for batch in found])).tolist() if found else []
    assert together == list(range(len(examples)))
    lengths = [len(example.input_ids) for example in examples]
    for batch, after in zip(found, [*found[1:], None], strict=True):
        assert batch.input_ids.numel() <= tokens or len(batch.indices) == 1
        assert len(batch.indices) <= size
        if after is not None:  # one more would have been too many
            following = lengths[int(after.indices[0])]
            assert len(batch.indices) == size or (len(batch.indices) + 1) * following > tokens


def test_shuffled_order_depends_on_the_seed_alone() -> None:
    examples = [Example((1,), (0,), 0)] * 50
    orders = [
        torch.cat([batch.indices for batch in batches(examples, 7, order="shuffled", seed=seed)]).tolist()
        for seed in (1, 1, 2)
    ]
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != list(range(50))


def test_inputs_are_forward_arguments_and_to_keeps_everything() -> None:
    (batch,) = batches([Example((1, 2), (0, 1), 3)], 1)
    moved = batch.to(torch.device("cpu"))
    assert set(moved.inputs) == {"input_ids", "attention_mask", "token_type_ids"}
    (untyped,) = batches([Example((1, 2), None, 3)], 1)
    assert set(untyped.to(torch.device("cpu")).inputs) == {"input_ids", "attention_mask"}
    assert moved.labels.tolist() == [3]
    assert all(tensor.dtype == torch.int64 for tensor in (*moved.inputs.values(), moved.labels, moved.indices))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(1, 70), st.integers(0, 5))
def test_a_stratified_sample_keeps_the_shares(labels: list[int], count: int, seed: int) -> None:
    positions = stratified_positions(labels, count, seed)
    assert len(positions) == min(count, len(labels))
    assert positions == sorted(set(positions))  # without replacement, in the given order
    assert positions == stratified_positions(labels, count, seed)
    whole, part = Counter(labels), Counter(labels[position] for position in positions)
    for label, size in whole.items():
        assert abs(part[label] - size * len(positions) / len(labels)) < 1


def test_a_stratified_sample_is_random_within_a_label() -> None:
    labels = [index % 2 for index in range(200)]
    chosen, other = (np.array(stratified_positions(labels, 40, seed)) for seed in (0, 1))
    assert not np.array_equal(chosen, other)
    assert chosen.max() > 150

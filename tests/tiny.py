"""A real, very small BERT and the text it was trained on: made in seconds, the same on every machine.

A text is a run of filler words with cue words among them; its label is the class that most of the cues belong to.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

FILLERS = ("the", "a", "of", "and", "in", "on", "at", "by", "this", "was", "day", "house", "road", "game", "year")
CUES: tuple[tuple[str, ...], ...] = (
    ("awful", "broken", "dreary", "sad", "worse"),
    ("bright", "clever", "happy", "lovely", "superb"),
    ("goal", "match", "race", "team", "win"),
    ("bank", "market", "price", "share", "trade"),
)
"""Cue words of class 0, 1, ...: as many classes as a tiny checkpoint can have."""
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
MAX_POSITIONS = 128


def tiny_texts(rows: int, classes: int = 2, seed: int = 0) -> tuple[list[str], list[int]]:
    """Texts of 6 to 20 words and their classes, equally many of each class up to one."""
    generator = np.random.default_rng(seed)
    texts, labels = [], []
    for row in range(rows):
        label = row % classes
        words = list(generator.choice(FILLERS, generator.integers(4, 15)))
        words += list(generator.choice(CUES[label], generator.integers(2, 5)))
        words += list(generator.choice(CUES[(label + 1) % classes], 1))
        generator.shuffle(words)
        texts.append(" ".join(words))
        labels.append(label)
    return texts, labels


def make_tiny_csv(path: Path, rows: int = 400, seed: int = 0, labels: Sequence[str] = ("negative", "positive")) -> Path:
    """Write `path` with the columns text and label (a name of `labels`)."""
    texts, classes = tiny_texts(rows, len(labels), seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        writer.writerows((text, labels[label]) for text, label in zip(texts, classes, strict=True))
    return path


def make_tiny_checkpoint(
    folder: Path,
    *,
    layers: int = 2,
    hidden: int = 32,
    heads: int = 4,
    intermediate: int = 64,
    labels: Sequence[str] = ("negative", "positive"),
    seed: int = 0,
    train: bool = True,
) -> Path:
    """Save a `BertForSequenceClassification` and its tokenizer in `folder`; trained, it is right on 9 texts of 10."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    from pgb_core.batching import Example
    from pgb_core.recovery import finetune

    words = (*SPECIAL_TOKENS, *FILLERS, *(cue for cues in CUES for cue in cues))
    tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate(words)})
    tokenizer.model_max_length = MAX_POSITIONS
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=intermediate,
        max_position_embeddings=MAX_POSITIONS,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
        initializer_range=0.08,  # the usual 0.02 is for wide matrices: at this width it barely starts to learn
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertForSequenceClassification(config)
    if train:
        texts, classes = tiny_texts(960, len(labels), seed + 1)
        tokens = tokenizer(texts, return_token_type_ids=True)
        examples = [
            Example(tuple(ids), tuple(types), label)
            for ids, types, label in zip(tokens["input_ids"], tokens["token_type_ids"], classes, strict=True)
        ]
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # for matrices this small, threads that wait for each other cost more than they do
        finetune(model, examples, epochs=3, learning_rate=3e-3, seed=seed, device=torch.device("cpu"))
        torch.set_num_threads(threads)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder

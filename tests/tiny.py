"""Real, very small encoders and the text one is trained on: made in seconds, the same on every machine.

A text is a run of filler words with cue words among them; its label is the class that most of the cues belong to.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import nn

    from pgb_core.families import Head

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


def tiny_tokenizer(family: str = "bert") -> Any:
    """Whole words for BERT and DistilBERT; for RoBERTa byte-level pieces, learned from the words."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import BertTokenizer, RobertaTokenizer

    words = [*FILLERS, *(cue for cues in CUES for cue in cues)]
    if family != "roberta":
        tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate((*SPECIAL_TOKENS, *words))})
    else:
        learned = ByteLevelBPETokenizer()
        texts = [" ".join(words), *(f" {word}" for word in words)]
        special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        learned.train_from_iterator(texts, vocab_size=400, min_frequency=1, show_progress=False, special_tokens=special)
        model = json.loads(learned.to_str())["model"]
        tokenizer = RobertaTokenizer(vocab=model["vocab"], merges=[tuple(merge) for merge in model["merges"]])
    tokenizer.model_max_length = MAX_POSITIONS
    return tokenizer


def tiny_model(
    family: str = "bert",
    head: Head = "classification",
    *,
    layers: int = 2,
    hidden: int = 32,
    heads: int = 4,
    intermediate: int = 64,
    labels: Sequence[str] = ("negative", "positive"),
    seed: int = 0,
) -> nn.Module:
    """A dense model with random weights, in eval mode, for the tokens of `tiny_tokenizer`."""
    import torch

    from pgb_core.architectures import dense_class, dense_config
    from pgb_core.families import FAMILIES

    files, tokenizer = FAMILIES[family], tiny_tokenizer(family)
    sizes = {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "intermediate_size": intermediate,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": MAX_POSITIONS + (2 if files.shifted else 0),
        "type_vocab_size": 1 if family == "roberta" else 2,
    }
    names = ["score"] if head == "regression" else list(labels)
    config = dense_config(
        family,
        {
            **{files.key(key): value for key, value in sizes.items() if key in files.sizes},
            "pad_token_id": tokenizer.pad_token_id,
            "id2label": dict(enumerate(names)),
            "label2id": {label: index for index, label in enumerate(names)},
            "initializer_range": 0.08,  # the usual 0.02 is for wide matrices: at this width it barely starts to learn
        },
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = dense_class(family, head)(config)
    return model.eval()


def save_tiny(model: Any, folder: Path) -> Path:
    """A checkpoint folder of a tiny model, with the tokenizer of its family."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tiny_tokenizer(model.config.model_type).save_pretrained(folder)
    return folder


def make_tiny_checkpoint(
    folder: Path,
    *,
    family: str = "bert",
    layers: int = 2,
    hidden: int = 32,
    heads: int = 4,
    intermediate: int = 64,
    labels: Sequence[str] = ("negative", "positive"),
    seed: int = 0,
    train: bool = True,
) -> Path:
    """Save a classifier and its tokenizer in `folder`; trained, it is right on 9 texts of 10."""
    import torch

    from pgb_core.batching import encode_texts
    from pgb_core.recovery import finetune

    model = tiny_model(
        family, layers=layers, hidden=hidden, heads=heads, intermediate=intermediate, labels=labels, seed=seed
    )
    if train:
        texts, classes = tiny_texts(960, len(labels), seed + 1)
        examples = encode_texts(texts, None, classes, tiny_tokenizer(family), MAX_POSITIONS)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # for matrices this small, threads that wait for each other cost more than they do
        finetune(model, examples, epochs=3, learning_rate=3e-3, seed=seed, device=torch.device("cpu"))
        torch.set_num_threads(threads)
    return save_tiny(model, folder)

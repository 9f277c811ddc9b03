"""What tiny models with other heads can learn in seconds: questions whose answers a rule finds, and values of texts.

A question is the first cue of a class, and its answer where another cue of that class is in the paragraph. The value of
a text is the difference between the numbers of its cues of two classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pgb_core.families import Head
from tests.tiny import CUES, FILLERS

if TYPE_CHECKING:
    from pgb_core.batching import Example


def questions(rows: int, seed: int, *, unanswerable: float = 0.0, words: int = 8) -> dict[str, list[Any]]:
    """Columns question, context and answers as SQuAD's; a share of the questions has no answer in its paragraph."""
    generator = np.random.default_rng(seed)
    table: dict[str, list[Any]] = {"question": [], "context": [], "answers": []}
    for _ in range(rows):
        asked, other = generator.choice(len(CUES), 2, replace=False)
        text = [str(word) for word in generator.choice(FILLERS, words)]
        places = generator.choice(words, 2, replace=False)
        text[places[1]] = str(generator.choice(CUES[other][1:]))
        answer = str(generator.choice(CUES[asked][1:]))
        if generator.random() >= unanswerable:
            text[places[0]] = answer
            found = {"text": [answer], "answer_start": [len(" ".join([*text[: places[0]], ""]))]}
        else:
            found = {"text": [], "answer_start": []}
        table["question"].append(CUES[asked][0])
        table["context"].append(" ".join(text))
        table["answers"].append(found)
    return table


def make_answering_checkpoint(folder: Path, task: str = "squad", *, family: str = "bert", epochs: int = 8) -> Path:
    """Save a model of two layers, fine-tuned on the training split of `task`, which has to be there already."""
    from pgb_core import judging
    from pgb_core.tasks import load_task
    from tests.tiny import tiny_tokenizer

    data = load_task(task, id2label={0: "LABEL_0", 1: "LABEL_1"})
    examples = judging.examples_of(data.task, data.train, tiny_tokenizer(family), 32)
    return _trained(folder, "question_answering", examples, family, epochs)


def make_valued_csv(path: Path, rows: int = 400, seed: int = 0) -> Path:
    """Write `path` with the columns text and label, a number from -3 to 3."""
    generator = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["text,label"]
    for _ in range(rows):
        bad, good = generator.integers(0, 4, 2)
        words = [*generator.choice(FILLERS, 6), *generator.choice(CUES[0], bad), *generator.choice(CUES[1], good)]
        generator.shuffle(words)
        lines.append(f"{' '.join(words)},{good - bad}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def make_valuing_checkpoint(folder: Path, file: Path, *, family: str = "bert", epochs: int = 6) -> Path:
    """Save a regression of two layers, fine-tuned on `file`."""
    from pgb_core import judging
    from pgb_core.tasks import load_task
    from tests.tiny import tiny_tokenizer

    data = load_task("csv", id2label={0: "score"}, train_file=file, eval_file=file)
    examples = judging.examples_of(data.task, data.train, tiny_tokenizer(family), 32)
    return _trained(folder, "regression", examples, family, epochs)


def _trained(folder: Path, head: Head, examples: Sequence[Example], family: str, epochs: int) -> Path:
    import torch

    from pgb_core.recovery import finetune
    from tests.tiny import save_tiny, tiny_model

    model = tiny_model(family, head, labels=("LABEL_0", "LABEL_1"))
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # a model this small has nothing to spare: it learns five times as fast without
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    finetune(model, examples, epochs=epochs, learning_rate=3e-3, seed=0, device=torch.device("cpu"))
    torch.set_num_threads(threads)
    return save_tiny(model, folder)

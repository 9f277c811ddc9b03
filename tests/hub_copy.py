"""Small copies of data sets of the Hub: Parquet files of the same columns, types and splits, with rows of our own.

`datasets` reads them as it reads the real ones; GLUE's labels have their names in the files, SQuAD's answers are lists.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from pgb_core.settings import get_settings
from pgb_core.tasks import TASKS
from tests.tiny import CUES, FILLERS

Rows = Mapping[str, Sequence[Any]]
ROWS = 24


def write_copy(repository: str, configs: Mapping[str, Mapping[str, datasets.Dataset]]) -> Path:
    """A folder laid out like a data set of the Hub, in the server's data folder: splits by configuration."""
    folder = get_settings().data_dir / repository
    entries = []
    for config, splits in configs.items():
        (folder / config).mkdir(parents=True, exist_ok=True)
        for split, data in splits.items():
            data.to_parquet(folder / config / f"{split}-00000-of-00001.parquet")
        files = [{"split": split, "path": f"{config}/{split}-*"} for split in splits]
        entries.append({"config_name": config, "data_files": files})
    (folder / "README.md").write_text(f"---\nconfigs: {json.dumps(entries)}\n---\n")
    return folder


def sentences(count: int, seed: int) -> list[str]:
    """Texts of filler and cue words, all different."""
    generator = np.random.default_rng(seed)
    words = [*FILLERS, *(word for cues in CUES for word in cues)]
    return [" ".join(generator.choice(words, generator.integers(4, 10))) for _ in range(count)]


def write_glue() -> Path:
    """All of GLUE's tasks, `ROWS` rows per split; test splits have the label -1, as the real ones."""
    configs: dict[str, dict[str, datasets.Dataset]] = {}
    for task in TASKS.values():
        if task.source is None or task.head == "question_answering":
            continue
        splits = configs.setdefault(task.source.config, {})
        for n, split in enumerate((task.source.train, task.source.evaluation, "test")):
            splits[split] = _glue_split(task.text_columns, task.labels, n, labeled=split != "test")
    return write_copy("nyu-mll/glue", configs)


def _glue_split(columns: Sequence[str], labels: Sequence[str] | None, seed: int, labeled: bool) -> datasets.Dataset:
    rows: dict[str, list[Any]] = {name: sentences(ROWS, 10 * seed + n) for n, name in enumerate(columns)}
    features = {name: datasets.Value("string") for name in columns}
    if labels is None:
        rows["label"] = [(0.2 * n) % 5.0 if labeled else -1.0 for n in range(ROWS)]
        features["label"] = datasets.Value("float32")
    else:
        rows["label"] = [n % len(labels) if labeled else -1 for n in range(ROWS)]
        features["label"] = datasets.ClassLabel(names=list(labels))
    rows["idx"] = list(range(ROWS))
    features["idx"] = datasets.Value("int32")
    return datasets.Dataset.from_dict(rows, features=datasets.Features(features))


def write_squad(train: Rows, validation: Rows, task: str = "squad") -> Path:
    """A copy of SQuAD 1.1 or 2.0 with columns question, context, answers (`text` and `answer_start` lists)."""
    features = datasets.Features(
        {
            "id": datasets.Value("string"),
            "title": datasets.Value("string"),
            "context": datasets.Value("string"),
            "question": datasets.Value("string"),
            "answers": {
                "text": datasets.List(datasets.Value("string")),
                "answer_start": datasets.List(datasets.Value("int32")),
            },
        }
    )
    source = TASKS[task].source
    assert source is not None
    splits = {}
    for split, rows in (("train", train), ("validation", validation)):
        count = len(rows["question"])
        full = {"id": [f"{split}{n}" for n in range(count)], "title": ["words"] * count, **rows}
        splits[split] = datasets.Dataset.from_dict(full, features=features)
    return write_copy(source.repository, {source.config: splits})

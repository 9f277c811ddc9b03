"""Fine-tuning: an encoder gets a new head for a task and is trained on it; what comes out can be pruned.

The training is `recovery.finetune`, as for the demo checkpoints, which are made by `train` as well. Labels and their
order are the task's own; of the user's own file they are the values of its label column, in order.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pgb_core import card, checkpoints, data_files, evaluation, judging, recovery, tasks
from pgb_core.architectures import base_of, dense_class, dense_config
from pgb_core.errors import CheckpointError, SpecError
from pgb_core.families import Head
from pgb_core.finetune_spec import FinetuneSpec, labels_for
from pgb_core.inspection import describe, read_config
from pgb_core.progress import ProgressCallback, Reporter, Step, silent
from pgb_core.recording import Clock, recorded
from pgb_core.tasks import TaskData

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

_WEIGHTS = {"loading": 4.0, "training": 100.0, "evaluation": 5.0, "saving": 1.0}


@dataclass(frozen=True)
class Trained:
    """A fine-tuned model, on the CPU, and what it scores on the evaluation split."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    metric: str
    score: float
    standard_error: float
    samples: int


def finetune_checkpoint(
    spec: FinetuneSpec, out: Path, *, run: Path | None = None, on_progress: ProgressCallback | None = None
) -> dict[str, Any]:
    """Fine-tune what `spec` says and write a checkpoint folder `out`, which appears only when it is whole.

    Args:
        run: a run folder, for progress and cancellation from another process.

    Returns:
        `checkpoint`, the folder; `task`; `base_revision` (on the Hub, else None) and `base_fingerprint`; `metric`,
        `score`, `standard_error`, `samples`; `labels`; `learning_rate`; `seconds` per stage.

    Raises:
        PGBError: the checkpoint or the data cannot be used, or `out` exists. Nothing is written then.
    """

    def work(report: ProgressCallback) -> dict[str, Any]:
        return _finetune(spec, out, report)

    if run is not None:
        return recorded(run, {**spec.to_dict(), "name": out.name}, work, on_progress, job="finetune")
    return work(on_progress or (lambda progress: None))


def _finetune(spec: FinetuneSpec, out: Path, report: ProgressCallback) -> dict[str, Any]:
    reporter, clock = Reporter(report, _WEIGHTS), Clock()
    refuse_existing(out)
    with clock.stage("loading"):
        step = reporter.stage("loading")
        found = checkpoints.resolve(spec.checkpoint, spec.task, step)
        file = None if spec.train_file is None else data_files.preview(Path(spec.train_file))
        head, labels = labels_for(spec.task, file, spec.columns)
        data = tasks.load_task(
            spec.task,
            id2label=dict(enumerate(labels)),
            head=head,
            train_file=spec.train_file,
            eval_file=spec.eval_file,
            columns=spec.columns,
            seed=spec.seed,
        )
        model = with_new_head(found.path, head, labels, spec.seed)
        rate = spec.learning_rate or recovery.default_learning_rate(describe(found.path).hidden)
    with clock.stage("training"):
        trained = train(
            model,
            checkpoints.load_tokenizer(found.path),
            data,
            epochs=spec.epochs,
            learning_rate=rate,
            seed=spec.seed,
            device=evaluation.choose_device(spec.device),
            max_length=spec.max_length,
            training=reporter.stage("training"),
            evaluating=lambda: reporter.stage("evaluation"),
        )
    reporter.stage("saving")
    facts = {
        "checkpoint": str(out),
        "task": spec.task,
        "base_revision": found.revision,
        "base_fingerprint": found.fingerprint,
        "metric": trained.metric,
        "score": trained.score,
        "standard_error": trained.standard_error,
        "samples": trained.samples,
        "labels": list(labels),
        "learning_rate": rate,
    }
    origin = card.origin_of(found)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-", ignore_cleanup_errors=True) as part:
        files = Path(part) / "files"
        save(trained, files)
        (files / card.FILE).write_text(card.of_finetuned(spec, facts, origin), encoding="utf-8")
        refuse_existing(out)
        os.replace(files, out)
    return {**facts, "seconds": clock.total()}


def refuse_existing(out: Path) -> None:
    """Raise a SpecError where there is something in the place of folder `out`."""
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise SpecError(f"{out.name} exists already; choose another folder to write.")


# --- the parts, which the demo uses too ----------------------------------------------------------------------------


def with_new_head(encoder: Path, head: Head, labels: Sequence[str], seed: int) -> PreTrainedModel:
    """The encoder in folder `encoder` with an untrained head, whose weights `seed` decides; float32, on the CPU.

    Raises:
        CheckpointError: the folder is refused, is a pruned model, or is too large for the memory that is free.
    """
    info = describe(encoder)
    if info.pruned:
        raise CheckpointError(f"{encoder.name} is pruned already; fine-tune its dense original, or let runs recover.")
    checkpoints.refuse_without_memory(encoder, info)
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: index for index, label in enumerate(labels)}}
    values = read_config(encoder / "config.json") | names
    values["problem_type"] = "regression" if head == "regression" else None
    config = dense_config(info.family, values)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = dense_class(info.family, head)(config)
        base = checkpoints.load_base(encoder, info, config)  # a pooler that the file lacks is drawn as well
    missing, _ = base_of(model).load_state_dict(base.state_dict(), strict=False)  # a pooler that this head has not
    if missing:
        raise CheckpointError(f"{encoder.name}: {len(missing)} missing tensors, such as {missing[0]}.")
    return model


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    data: TaskData,
    *,
    epochs: int,
    learning_rate: float,
    seed: int,
    device: torch.device,
    max_length: int | None = None,
    training: Step = silent,
    evaluating: Callable[[], Step] = lambda: silent,
) -> Trained:
    """Train `model` in place on the task's training split and score it on the other one.

    Args:
        evaluating: called once the training is over; returns the step function of the evaluation.

    Raises:
        PGBError: the loss is no longer finite, or `max_length` is more than the model has positions for.
    """
    length = max_length or min(data.task.max_length, tokenizer.model_max_length)
    recovery.finetune(
        model,
        judging.examples_of(data.task, data.train, tokenizer, length),
        epochs=epochs,
        learning_rate=learning_rate,
        seed=seed,
        device=device,
        step=training,
    )
    found = judging.evaluation_of(data.task, data.evaluation, tokenizer, length)
    scores = judging.judge(found, evaluation.logits(model, found.examples, step=evaluating())).scores
    score, error = scores[data.task.metric]
    return Trained(model.cpu(), tokenizer, data.task.metric, score, error, len(found.rows))


def save(trained: Trained, folder: Path) -> None:
    """Write config.json, model.safetensors and the tokenizer into `folder`."""
    trained.model.save_pretrained(folder)
    trained.tokenizer.save_pretrained(folder)

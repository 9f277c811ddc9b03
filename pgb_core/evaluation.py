"""What pruning cost and bought: score with standard error, parameters and FLOPs; `latency.py` measures time."""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pgb_core import checkpoints, judging, tasks
from pgb_core.architectures import attention_sizes, encoder_of, head_of, predictions_of
from pgb_core.batching import Example, batches
from pgb_core.data_files import Columns
from pgb_core.errors import SpecError
from pgb_core.likelihood import likelihood_of
from pgb_core.pgb_blocks import GroupedLinear
from pgb_core.progress import Step, silent
from pgb_core.saving import load_pruned
from pgb_core.settings import get_settings
from pgb_core.spec import check_evaluation

BATCH = 32


# --- devices and models --------------------------------------------------------------------------------------------


def choose_device(name: str) -> torch.device:
    """The device called `auto`, `cpu` or `cuda`; sets the CPU threads of this process.

    Raises:
        SpecError: `cuda` is asked for, and there is none.
    """
    torch.set_num_threads(cpu_threads())
    if name == "cuda" and not torch.cuda.is_available():
        raise SpecError("No CUDA device is available here; choose device auto or cpu.")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def cpu_threads() -> int:
    """CPU threads that a run takes: the setting, or one for each core."""
    return get_settings().threads or torch.get_num_threads()


def device_name(device: torch.device) -> str:
    """E.g. `cpu` or the name of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def load_any(path: Path) -> nn.Module:
    """The dense or pruned model in folder `path`.

    Raises:
        CheckpointError: it cannot be loaded.
    """
    return load_pruned(path) if checkpoints.describe(path).pruned else checkpoints.load_model(path)


# --- score ---------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def logits(
    model: nn.Module, examples: Sequence[Example], *, batch_size: int = BATCH, step: Step = silent
) -> NDArray[np.float32]:
    """The model's predictions for each example, in their order.

    (N, labels) logits of classes; (N, 1) values of a regression; (N, L, 2) logits of an answer's first and last token,
    -inf beyond the end of an example.
    """
    device = next(model.parameters()).device
    longest = max((len(example.input_ids) for example in examples), default=0)
    size = likelihood_of(model).size(len(labels_of(model)), longest)
    found = np.full((len(examples), *size), -np.inf, dtype=np.float32)
    done = 0
    for batch in batches(examples, batch_size):
        predictions = predictions_of(model.eval()(**batch.to(device).inputs)).float().cpu().numpy()
        if predictions.ndim == 3:  # tokens
            predictions[batch.attention_mask.numpy() == 0] = -np.inf
        found[batch.indices.numpy(), : predictions.shape[1]] = predictions
        done += len(batch.indices)
        step(done, len(examples), f"{done} of {len(examples)} examples")
    return found


def predict(
    model: nn.Module, examples: Sequence[Example], *, batch_size: int = BATCH, step: Step = silent
) -> NDArray[np.int64]:
    """(N,) label that a classifier predicts for each example, in their order."""
    predictions: NDArray[np.int64] = logits(model, examples, batch_size=batch_size, step=step).argmax(axis=1)
    return predictions


def divergence(dense: NDArray[np.float32], pruned: NDArray[np.float32]) -> float:
    """Mean Kullback-Leibler divergence of predictions from the dense model's, in nats; both (N, labels) logits."""
    p, q = (torch.from_numpy(values.astype(np.float64)).log_softmax(dim=1) for values in (dense, pruned))
    return float((p.exp() * (p - q)).sum(dim=1).mean())


def evaluate_checkpoint(
    checkpoint: str,
    task: str,
    *,
    train_file: str | None = None,
    eval_file: str | None = None,
    eval_samples: int | None = None,
    columns: Columns | None = None,
    max_length: int | None = None,
    device: str = "auto",
    seed: int = 0,
    step: Step = silent,
) -> dict[str, Any]:
    """Score of a dense or pruned checkpoint on the evaluation split of `task`, as `evaluate --json` prints it.

    Where the task has further metrics they are in `secondary`; `note` says what is special about checkpoint or labels.

    Raises:
        PGBError: an argument is out of range, or the checkpoint or the data cannot be used.
    """
    check_evaluation(
        checkpoint=checkpoint,
        task=task,
        train_file=train_file,
        eval_file=eval_file,
        eval_samples=eval_samples,
        max_length=max_length,
        device=device,
        seed=seed,
        columns=columns,
    )
    target = choose_device(device)
    found = checkpoints.resolve(checkpoint, task, step)
    model = load_any(found.path).to(target)
    data = tasks.load_task(
        task,
        id2label=labels_of(model),
        head=head_of(model),
        train_file=train_file,
        eval_file=eval_file,
        columns=columns,
        seed=seed,
    )
    tokenizer = checkpoints.load_tokenizer(found.path)
    length = max_length or min(data.task.max_length, tokenizer.model_max_length)
    split = judging.evaluation_of(data.task, data.evaluation, tokenizer, length, eval_samples, seed)
    verdict = judging.judge(split, logits(model, split.examples, step=step))
    (score, error), *others = verdict.scores.values()
    named = zip(data.task.secondary, others, strict=True)
    secondary = {name: {"score": score, "standard_error": error} for name, (score, error) in named}
    alarm = None if found.source == "pruned" else judging.alarm(split, verdict)
    note = "; ".join(note for note in (found.note, data.note, alarm) if note)
    return {
        "metric": data.task.metric,
        "score": score,
        "samples": len(split.rows),
        "standard_error": error,
        "task": task,
        "checkpoint": checkpoint,
        **({"secondary": secondary} if secondary else {}),
        **({"note": note} if note else {}),
    }


def labels_of(model: nn.Module) -> dict[int, str]:
    """Label names of a classifier, by index."""
    config: Any = model.config
    return {int(index): str(name) for index, name in config.id2label.items()}


# --- size ----------------------------------------------------------------------------------------------------------


def parameters(model: nn.Module) -> int:
    """All parameters that the model holds."""
    return sum(parameter.numel() for parameter in model.parameters())


def encoder_weights(model: nn.Module) -> int:
    """Weights in the encoder's linear layers that the dense or pruned model kept: neither biases nor removed ones.

    Removed weights that are still there as zeros do not count here, but in `flops`: they are multiplied with.
    """
    encoder = encoder_of(model)
    grouped = (module for module in encoder.modules() if isinstance(module, GroupedLinear))
    return _linear_weights(encoder) - sum(module.removed for module in grouped)


def flops(model: nn.Module, *, batch: int = 1, length: int = 128) -> int:
    """Multiply-adds x 2 of one forward pass: linear layers of the encoder, attention, pooler and head.

    Attention is q k^T and the weighted sum of v: 2 L^2 multiply-adds for each of the heads * width rows. Biases,
    LayerNorm, softmax, activations and embeddings are left out, as usual.
    """
    encoder = _linear_weights(encoder_of(model))
    head = _linear_weights(model) - encoder
    heads = length if head_of(model) == "question_answering" else 1  # else it sees the first token only
    attention = sum(2 * length * length * size for size in attention_sizes(model))
    return 2 * batch * (encoder * length + head * heads + attention)


def _linear_weights(module: nn.Module) -> int:
    """Weights of every linear layer below `module`, whole or grouped."""
    total = 0
    for child in module.modules():
        if isinstance(child, nn.Linear):
            total += child.weight.numel()
        elif isinstance(child, GroupedLinear):
            total += sum(weight.numel() for weight in child.weights)
    return total


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory this process has held: on the GPU if it runs there, else resident."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

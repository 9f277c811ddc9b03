"""What pruning cost and bought: score with standard error, parameters and FLOPs; `latency.py` measures time."""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pgb_core import checkpoints, tasks
from pgb_core.architectures import attention_sizes, encoder_of, head_of
from pgb_core.batching import Example, batches, encode, stratified_positions
from pgb_core.errors import SpecError
from pgb_core.pgb_blocks import GroupedLinear
from pgb_core.progress import Step, silent
from pgb_core.saving import load_pruned
from pgb_core.settings import get_settings
from pgb_core.spec import check_evaluation

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast

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
    """(N, labels) the model's answer to each example, in their order."""
    device = next(model.parameters()).device
    found = np.zeros((len(examples), len(labels_of(model))), dtype=np.float32)
    done = 0
    for batch in batches(examples, batch_size):
        found[batch.indices.numpy()] = model.eval()(**batch.to(device).inputs).logits.float().cpu().numpy()
        done += len(batch.indices)
        step(done, len(examples), f"{done} of {len(examples)} examples")
    return found


def predict(
    model: nn.Module, examples: Sequence[Example], *, batch_size: int = BATCH, step: Step = silent
) -> NDArray[np.int64]:
    """(N,) predicted label of each example, in their order."""
    predictions: NDArray[np.int64] = logits(model, examples, batch_size=batch_size, step=step).argmax(axis=1)
    return predictions


def divergence(dense: NDArray[np.float32], pruned: NDArray[np.float32]) -> float:
    """Mean Kullback-Leibler divergence of predictions from the dense model's, in nats; both (N, labels) logits."""
    p, q = (torch.from_numpy(values.astype(np.float64)).log_softmax(dim=1) for values in (dense, pruned))
    return float((p.exp() * (p - q)).sum(dim=1).mean())


def score_of(metric: str, predictions: NDArray[np.int64], examples: Sequence[Example]) -> tuple[float, float]:
    """The score, as a fraction, and its standard error."""
    labels = np.array([example.label for example in examples], dtype=np.int64)
    return tasks.compute_score(metric, predictions, labels), tasks.standard_error(metric, predictions, labels)


def evaluate_checkpoint(
    checkpoint: str,
    task: str,
    *,
    train_file: str | None = None,
    eval_file: str | None = None,
    eval_samples: int | None = None,
    max_length: int | None = None,
    device: str = "auto",
    seed: int = 0,
    step: Step = silent,
) -> dict[str, Any]:
    """Score of a dense or pruned checkpoint on the evaluation split of `task`, as in the contract's `evaluate --json`.

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
    )
    target = choose_device(device)
    found = checkpoints.resolve(checkpoint, task, step)
    model = load_any(found.path).to(target)
    id2label = labels_of(model)
    data = tasks.load_task(task, id2label=id2label, train_file=train_file, eval_file=eval_file, seed=seed)
    tokenizer = checkpoints.load_tokenizer(found.path)
    examples = examples_of(data.evaluation, tokenizer, max_length or data.task.max_length, eval_samples, seed)
    score, error = score_of(data.task.metric, predict(model, examples, step=step), examples)
    return {
        "metric": data.task.metric,
        "score": score,
        "samples": len(examples),
        "standard_error": error,
        "task": task,
        "checkpoint": checkpoint,
    }


def examples_of(
    dataset: Dataset, tokenizer: PreTrainedTokenizerFast, max_length: int, samples: int | None, seed: int
) -> list[Example]:
    """The tokenized evaluation examples: all, or a label-stratified sample of `samples`.

    Raises:
        TaskError: `max_length` is more than the checkpoint has positions for.
    """
    if samples is not None:
        dataset = dataset.select(rows_of(dataset, samples, seed))
    return encode(dataset, tokenizer, max_length)


def rows_of(dataset: Dataset, samples: int | None, seed: int) -> list[int]:
    """The rows of an evaluation split that `examples_of` takes, ascending."""
    if samples is None:
        return list(range(len(dataset)))
    return stratified_positions(list(dataset["label"]), samples, seed)


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

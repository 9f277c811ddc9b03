"""Ordinary fine-tuning, in place: the recovery stage of a pruned model, and the demo checkpoint's own training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import nn
from torch.nn import functional

from pgb_core.batching import Example, batches
from pgb_core.errors import PGBError
from pgb_core.progress import Step, silent

WARM_UP = 0.1
"""Share of the steps over which the learning rate rises from zero; afterwards it falls back to zero."""
WEIGHT_DECAY = 0.01
CLIP_NORM = 1.0


def default_learning_rate(hidden: int) -> float:
    """Peak learning rate for an encoder of that hidden size: 1e-4 for small ones (MiniLM), 3e-5 for base size.

    >>> default_learning_rate(384), default_learning_rate(768)
    (0.0001, 3e-05)
    """
    return 1e-4 if hidden <= 512 else 3e-5


def finetune(
    model: nn.Module,
    examples: Sequence[Example],
    *,
    epochs: int,
    learning_rate: float,
    batch_size: int = 32,
    seed: int,
    device: torch.device,
    step: Step = silent,
) -> None:
    """Train all parameters of `model` on `examples` with cross-entropy; leaves it on `device` in eval mode.

    AdamW with linear warm-up and decay and clipped gradients; bfloat16 autocast where the device is fast at it. On a
    CPU the result depends on the seed and the thread count alone. The global random state is left as it was.
    `step` is called after every batch; an exception from it (a cancel) leaves the model half trained, in eval mode.

    Raises:
        PGBError: the loss is no longer finite.
    """
    total = epochs * math.ceil(len(examples) / batch_size)
    if total == 0:
        model.eval()
        return
    model.to(device)
    optimizer = torch.optim.AdamW(_parameter_groups(model), lr=learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(_rate, total=total))
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    cuda = range(torch.cuda.device_count()) if device.type == "cuda" else ()
    done = 0
    model.train()
    try:
        with torch.random.fork_rng(devices=cuda):
            torch.manual_seed(seed)  # dropout
            for epoch in range(epochs):
                for batch in batches(examples, batch_size, order="shuffled", seed=seed + epoch):
                    batch = batch.to(device)
                    with torch.autocast(device.type, torch.bfloat16, enabled=_fast_bfloat16(device)):
                        logits = model(**batch.inputs).logits
                    loss = functional.cross_entropy(logits.float(), batch.labels)
                    if not torch.isfinite(loss):
                        raise PGBError(
                            f"fine-tuning diverged (loss {loss.item()}) in epoch {epoch + 1}; "
                            "remove fewer weights or recover without fine-tuning."
                        )
                    torch.autograd.backward(loss)
                    nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
                    optimizer.step()
                    schedule.step()
                    optimizer.zero_grad()
                    done += 1
                    step(done, total, f"epoch {epoch + 1} of {epochs}, loss {loss.item():.3f}")
    finally:
        model.eval()
        for parameter in parameters:
            parameter.grad = None


def _rate(done: int, total: int) -> float:
    """Share of the peak learning rate after `done` of `total` steps: up to 1 and back to 0, in straight lines."""
    rising = math.ceil(WARM_UP * total)
    return (done + 1) / (rising + 1) if done < rising else (total - done) / max(total - rising, 1)


def _parameter_groups(model: nn.Module) -> list[dict[str, object]]:
    """Matrices decay; biases and LayerNorm, which have one dimension, do not."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]


def _fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 products have hardware: emulated ones are slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))

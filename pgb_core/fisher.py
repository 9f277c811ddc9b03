"""Second-order information: what a small change anywhere in the network does to the loss.

The loss is expanded around the fine-tuned weights. Its curvature is the Fisher information, whose expectation over
labels is the model's own: for logits with probabilities p it is J^T (diag(p) - p p^T) J. We send directions v with
sum or mean of v v^T = diag(p) - p p^T back through the network: the same expectation as labels sampled from the
prediction, without waiting for the rare label that a confident model contradicts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pgb_core.architectures import Sublayer, attention_mask, classify, embed
from pgb_core.batching import Batch

DRAWS = 4
"""Random directions where the classes are more than that."""


def random_signs(samples: int, model: nn.Module, seed: int, draws: int = 1) -> Tensor:
    """(draws, samples, labels) of -1 and 1, the same for a sample whatever batch it comes in."""
    labels: int = model.config.num_labels  # type: ignore[union-attr,assignment]
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2, (draws, samples, labels), generator=generator).float() * 2 - 1


def random_direction(logits: Tensor, signs: Tensor) -> Tensor:
    """(B, labels) v = sqrt(p) e - p (sqrt(p) . e): over random signs e, E[v v^T] = diag(p) - p p^T."""
    p = logits.softmax(dim=-1)
    root = p.sqrt() * signs
    return root - p * root.sum(dim=-1, keepdim=True)


def directions(logits: Tensor, signs: Tensor) -> Tensor:
    """(K, B, labels) v_k with sum_k v_k v_k^T = diag(p) - p p^T, exactly for few classes, else in expectation.

    Args:
        signs: (DRAWS, B, labels).
    """
    labels = logits.shape[-1]
    if labels > DRAWS:
        return torch.stack([random_direction(logits, e) for e in signs]) / math.sqrt(len(signs))
    p = logits.softmax(dim=-1)
    units = torch.eye(labels, dtype=p.dtype, device=p.device)
    exact: Tensor = p.T.sqrt()[:, :, None] * (units[:, None] - p)  # v_k = sqrt(p_k) (e_k - p)
    return exact


@contextmanager
def differentiable_activations(model: nn.Module) -> Iterator[None]:
    """Inside, the model is in eval mode and no parameter asks for a gradient: only activations are differentiated."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


Trace = tuple[tuple[Tensor, Tensor], list[Tensor]]
"""Of one sublayer: (entry input, exit input), and the outputs of all its matrices; each (B, L, .)."""


@torch.enable_grad()
def trace(model: nn.Module, sublayers: Sequence[Sublayer], batch: Batch) -> tuple[list[Trace], Tensor]:
    """The forward pass, sublayer by sublayer, and the (B, labels) logits."""
    x = embed(model, batch.inputs).requires_grad_()
    mask = attention_mask(batch.attention_mask)
    traces: list[Trace] = []
    for sub in sublayers:
        entries = [entry(x) for entry in sub.entries]
        hidden = sub.mix(tuple(entries), mask)
        output = sub.exit(hidden)
        traces.append(((x, hidden), [*entries, output]))
        x = sub.norm(x + output)
    return traces, classify(model, x)


def exit_gradients(
    model: nn.Module,
    sublayers: Sequence[Sublayer],
    batches: Sequence[Batch],
    among: range | None = None,
    *,
    seed: int = 0,
) -> list[Tensor]:
    """(K, T, hidden) per sublayer: what `directions` send back to its output, for all real tokens of the batches.

    Args:
        among: the places of the sublayers that are wanted; default all.
    """
    wanted = among or range(len(sublayers))
    device = sublayers[0].exit.weight.device
    samples = 1 + max(int(batch.indices.max()) for batch in batches)
    signs = random_signs(samples, model, seed, DRAWS)
    tokens = [int(batch.attention_mask.sum()) for batch in batches]
    found: list[Tensor] = []
    with differentiable_activations(model):
        for n, batch in enumerate(batch.to(device) for batch in batches):
            traces, logits = trace(model, sublayers, batch)
            outputs = [traces[place][1][-1] for place in wanted]
            vs = directions(logits.detach(), signs[:, batch.indices].to(device))
            if not found:  # all at once: small pieces would lie between what each batch takes and frees
                found = [output.new_empty(len(vs), sum(tokens), output.shape[-1]) for output in outputs]
            real, place = batch.attention_mask.bool(), slice(sum(tokens[:n]), sum(tokens[: n + 1]))
            for k, v in enumerate(vs):
                gradients = torch.autograd.grad(logits, outputs, grad_outputs=v, retain_graph=k + 1 < len(vs))
                for all_gradients, gradient in zip(found, gradients, strict=True):
                    all_gradients[k, place] = gradient[real]
    return found

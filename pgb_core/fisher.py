"""Second-order information: what a small change anywhere in the network does to the loss.

The loss is expanded around the fine-tuned weights. Its curvature is the Fisher information, whose expectation over
labels is the model's own: for predictions with the information F it is J^T F J. We send directions v with sum or mean
of v v^T = F (`likelihood`) back through the network: the same expectation as labels sampled from the prediction,
without waiting for the rare label that a confident model contradicts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pgb_core.architectures import Sublayer, attention_mask, embed, predict
from pgb_core.batching import Batch
from pgb_core.likelihood import DRAWS, likelihood_of, random_signs


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
    """The forward pass, sublayer by sublayer, and the predictions."""
    x = embed(model, batch.inputs).requires_grad_()
    mask = attention_mask(batch.attention_mask)
    traces: list[Trace] = []
    for sub in sublayers:
        entries = [entry(x) for entry in sub.entries]
        hidden = sub.mix(tuple(entries), mask)
        output = sub.exit(hidden)
        traces.append(((x, hidden), [*entries, output]))
        x = sub.norm(x + output)
    return traces, predict(model, x)


def exit_gradients(
    model: nn.Module,
    sublayers: Sequence[Sublayer],
    batches: Sequence[Batch],
    among: range | None = None,
    *,
    seed: int = 0,
) -> list[Tensor]:
    """(K, T, hidden) per sublayer: what the directions of the model's predictions send back to its output.

    For all real tokens of the batches.

    Args:
        among: the places of the sublayers that are wanted; default all.
    """
    wanted = among or range(len(sublayers))
    device = sublayers[0].exit.weight.device
    samples = 1 + max(int(batch.indices.max()) for batch in batches)
    likelihood, signs = likelihood_of(model), random_signs(model, batches, samples, seed, DRAWS)
    tokens = [int(batch.attention_mask.sum()) for batch in batches]
    found: list[Tensor] = []
    with differentiable_activations(model):
        for n, batch in enumerate(batch.to(device) for batch in batches):
            traces, predictions = trace(model, sublayers, batch)
            outputs = [traces[place][1][-1] for place in wanted]
            vs = likelihood.directions(predictions.detach(), signs[:, batch.indices].to(device), batch.attention_mask)
            if (
                not found
            ):  # all at once: small pieces between what each batch takes and frees would keep that from others
                found = [output.new_empty(len(vs), sum(tokens), output.shape[-1]) for output in outputs]
            real, place = batch.attention_mask.bool(), slice(sum(tokens[:n]), sum(tokens[: n + 1]))
            for k, v in enumerate(vs):
                gradients = torch.autograd.grad(predictions, outputs, grad_outputs=v, retain_graph=k + 1 < len(vs))
                for all_gradients, gradient in zip(found, gradients, strict=True):
                    all_gradients[k, place] = gradient[real]
    return found

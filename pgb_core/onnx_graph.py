"""A model, dense or pruned, as an ONNX graph, and the check that onnxruntime gives the logits that torch gives.

onnx, onnxscript and onnxruntime are imported by what needs them: they take seconds.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pgb_core.architectures import head_of, input_names, max_length

TOLERANCE = 1e-4
"""Largest difference of a logit from torch's at which a graph counts as equal."""
_FILE_LIMIT = 2**31 - 2**24
"""Largest weights, in bytes, that go into the graph's own file: a protobuf message ends at 2 GiB."""


class _Logits(nn.Module):
    """The model's logits alone, as a function of the tensors that `input_names` lists."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Each (B, L) -> (B, labels), or (B, L) for the start and (B, L) for the end of an answer."""
        outputs = self.model(**dict(zip(input_names(self.model), inputs, strict=True)))
        return tuple(outputs[name] for name in output_names(self.model))


def output_names(model: nn.Module) -> tuple[str, ...]:
    """Of the graph's outputs, as transformers calls them."""
    return ("start_logits", "end_logits") if head_of(model) == "question_answering" else ("logits",)


def write_graph(model: nn.Module, file: Path) -> None:
    """Write the float32 graph of `model`, on the CPU and in eval mode, for any batch and any length that it takes."""
    example = example_inputs(model, 2, min(16, max_length(model)))  # of size 1, a dimension would be fixed
    sizes = {0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("length", min=1, max=max_length(model))}
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    with _quiet(), torch.no_grad():
        torch.onnx.export(
            _Logits(model).eval(),
            tuple(example.values()),
            file,
            input_names=tuple(example),
            output_names=output_names(model),
            dynamic_shapes=(tuple(sizes for _ in example),),
            dynamo=True,
            external_data=weights > _FILE_LIMIT,
            verbose=False,
        )


def largest_difference(model: nn.Module, file: Path) -> float:
    """Of any logit that onnxruntime computes with the graph in `file` from torch's, with and without padding."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    longest = min(128, max_length(model))
    differences = []
    for batch, length in ((1, 1), (1, longest), (3, longest // 2)):
        inputs = example_inputs(model, batch, length)
        found = session.run(output_names(model), {name: tensor.numpy() for name, tensor in inputs.items()})
        with torch.inference_mode():
            expected = _Logits(model)(*inputs.values())
        differences += [float((torch.from_numpy(a) - b).abs().max()) for a, b in zip(found, expected, strict=True)]
    return float(np.max(differences))  # NaN if one is


def example_inputs(model: nn.Module, batch: int, length: int) -> dict[str, Tensor]:
    """Seeded inputs, each (batch, length): the first row is full, each further one is padded by one token more."""
    config: Any = model.config
    generator = torch.Generator().manual_seed(0)
    lengths = (length - torch.arange(batch)).clamp(min=1)
    ids = torch.randint(config.vocab_size, (batch, length), generator=generator)
    inputs = {"input_ids": ids, "attention_mask": (torch.arange(length) < lengths[:, None]).long()}
    if "token_type_ids" in input_names(model):
        inputs["token_type_ids"] = torch.randint(config.type_vocab_size, (batch, length), generator=generator)
    return inputs


@contextmanager
def _quiet() -> Iterator[None]:
    """Within, the exporter does not tell what it optimizes, nor which packages it could also work with."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

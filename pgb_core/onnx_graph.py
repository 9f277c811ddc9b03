"""A classifier, dense or pruned, as an ONNX graph, and the check that onnxruntime gives the logits that torch gives.

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

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUT = "logits"
TOLERANCE = 1e-4
"""Largest difference of a logit from torch's at which a graph counts as equal."""
_FILE_LIMIT = 2**31 - 2**24
"""Largest weights, in bytes, that go into the graph's own file: a protobuf message ends at 2 GiB."""


class _Logits(nn.Module):
    """The model's logits alone, as a function of the three tensors of `INPUTS`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Each (B, L) -> (B, labels)."""
        inputs = dict(zip(INPUTS, (input_ids, attention_mask, token_type_ids), strict=True))
        logits: Tensor = self.model(**inputs).logits
        return logits


def write_graph(model: nn.Module, file: Path) -> None:
    """Write the float32 graph of `model`, on the CPU and in eval mode, for any batch and any length that it takes."""
    config: Any = model.config
    example = example_inputs(model, 2, min(16, config.max_position_embeddings))  # of size 1, a dimension would be fixed
    sizes = {
        0: torch.export.Dim("batch", min=1),
        1: torch.export.Dim("length", min=1, max=config.max_position_embeddings),
    }
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    with _quiet(), torch.no_grad():
        torch.onnx.export(
            _Logits(model).eval(),
            tuple(example.values()),
            file,
            input_names=INPUTS,
            output_names=(OUTPUT,),
            dynamic_shapes=dict.fromkeys(INPUTS, sizes),
            dynamo=True,
            external_data=weights > _FILE_LIMIT,
            verbose=False,
        )


def largest_difference(model: nn.Module, file: Path) -> float:
    """Of any logit that onnxruntime computes with the graph in `file` from torch's, with and without padding."""
    import onnxruntime

    config: Any = model.config
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    longest = min(128, config.max_position_embeddings)
    differences = []
    for batch, length in ((1, 1), (1, longest), (3, longest // 2)):
        inputs = example_inputs(model, batch, length)
        (found,) = session.run([OUTPUT], {name: tensor.numpy() for name, tensor in inputs.items()})
        with torch.inference_mode():
            expected = model(**inputs).logits
        differences.append(float((torch.from_numpy(found) - expected).abs().max()))
    return float(np.max(differences))  # NaN if one is


def example_inputs(model: nn.Module, batch: int, length: int) -> dict[str, Tensor]:
    """Seeded `INPUTS`, each (batch, length): the first row is full, each further one is padded by one token more."""
    config: Any = model.config
    generator = torch.Generator().manual_seed(0)
    lengths = (length - torch.arange(batch)).clamp(min=1)
    values = (
        torch.randint(config.vocab_size, (batch, length), generator=generator),
        (torch.arange(length) < lengths[:, None]).long(),
        torch.randint(config.type_vocab_size, (batch, length), generator=generator),
    )
    return dict(zip(INPUTS, values, strict=True))


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

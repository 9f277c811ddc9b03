"""An ONNX graph gives torch's logits for every batch and length."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pgb_core import onnx_graph
from pgb_core.architectures import input_names
from pgb_core.families import Head
from pgb_core.layout import Layout, dropped_layout
from pgb_core.onnx_graph import TOLERANCE, example_inputs, largest_difference, write_graph
from pgb_core.saving import load_pruned
from tests.network import Network, layouts_of_all_kinds, save_network, some_layouts
from tests.test_architectures import prune
from tests.tiny import MAX_POSITIONS, tiny_model


def logits(file: Path, inputs: dict[str, torch.Tensor]) -> np.ndarray[Any, Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (found,) = session.run(["logits"], {name: tensor.numpy() for name, tensor in inputs.items()})
    return np.asarray(found)


def loaded(network: Network, kind: str, path: Path) -> nn.Module:
    layouts: dict[str, list[Layout]] = {
        "groups": [*some_layouts(network, 0)],
        "mixed": layouts_of_all_kinds(network)["mixed"],
        "all dropped": [dropped_layout(sub.shape) for sub in network.sublayers],
    }
    layouts["groups"][0] = dropped_layout(network.sublayers[0].shape)
    save_network(network, layouts[kind], path)
    return load_pruned(path)


@pytest.mark.parametrize("kind", ["groups", "mixed", "all dropped"])
def test_the_graph_equals_torch_for_every_batch_and_length(
    network: Network, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx

    if kind == "groups":
        monkeypatch.setattr(torch, "get_num_threads", lambda: 4)  # then the model takes columns in another way
    model: Any = loaded(network, kind, tmp_path)
    write_graph(model, tmp_path / "model.onnx")
    graph = onnx.load(tmp_path / "model.onnx").graph
    assert [entry.name for entry in graph.input] == list(input_names(model))
    assert [entry.name for entry in graph.output] == ["logits"]
    for entry in graph.input:
        assert [size.dim_param for size in entry.type.tensor_type.shape.dim] == ["batch", "length"]

    generator = torch.Generator().manual_seed(0)
    for batch, length in ((1, 1), (1, 2), (3, 1), (5, 17), (2, MAX_POSITIONS), (1, MAX_POSITIONS)):
        for padded in (False, True):
            ids, types = (torch.randint(n, (batch, length), generator=generator) for n in (40, 2))
            lengths = torch.randint(1, length + 1, (batch, 1), generator=generator) if padded else length
            mask = (torch.arange(length).expand(batch, -1) < lengths).long()
            inputs = dict(zip(input_names(model), (ids, mask, types), strict=True))
            with torch.no_grad():
                expected = model(**inputs).logits.numpy()
            assert np.abs(logits(tmp_path / "model.onnx", inputs) - expected).max() < 1e-5, (batch, length, padded)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("family", "head"), [("distilbert", "question_answering"), ("roberta", "classification")])
def test_graphs_of_other_families_and_heads_equal_torch(family: str, head: Head, tmp_path: Path) -> None:
    import onnx

    model = prune(tiny_model(family, head), "dropped", tmp_path)[2]
    write_graph(model, tmp_path / "model.onnx")
    graph = onnx.load(tmp_path / "model.onnx").graph
    assert [entry.name for entry in graph.input] == ["input_ids", "attention_mask"]
    names = ["start_logits", "end_logits"] if head == "question_answering" else ["logits"]
    assert [entry.name for entry in graph.output] == names
    assert largest_difference(model, tmp_path / "model.onnx") < 1e-5


def test_writing_a_graph_says_nothing_and_leaves_the_process_as_it_was(
    network: Network, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded(network, "groups", tmp_path)
    filters = list(warnings.filters)
    monkeypatch.setattr(onnx_graph, "_FILE_LIMIT", 10_000)  # as if it were too large for one file
    write_graph(model, tmp_path / "model.onnx")
    assert capfd.readouterr() == ("", "")
    assert filters == warnings.filters
    assert logging.getLogger("torch.onnx").level == logging.NOTSET
    assert (tmp_path / "model.onnx.data").stat().st_size > 10_000
    assert largest_difference(model, tmp_path / "model.onnx") < 1e-5


def test_a_graph_of_another_model_is_told(network: Network, tmp_path: Path) -> None:
    write_graph(network.model, tmp_path / "model.onnx")
    assert largest_difference(network.model, tmp_path / "model.onnx") < TOLERANCE
    other: Any = loaded(network, "groups", tmp_path)
    assert largest_difference(other, tmp_path / "model.onnx") > TOLERANCE
    with torch.no_grad():
        other.classifier.bias[0] = float("nan")
    assert np.isnan(largest_difference(other, tmp_path / "model.onnx"))


def test_examples_have_padding_in_all_rows_but_the_first(network: Network) -> None:
    inputs = example_inputs(network.model, 3, 5)
    assert inputs["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0], [1, 1, 1, 0, 0]]
    assert set(inputs) == set(input_names(network.model))
    assert example_inputs(network.model, 4, 2)["attention_mask"].tolist() == [[1, 1], [1, 0], [1, 0], [1, 0]]

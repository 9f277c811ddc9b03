"""Scores, sizes and latency of models."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy
from torch.utils.flop_counter import FlopCounterMode

from pgb_core import SpecError, evaluation
from pgb_core.data_files import Columns
from pgb_core.grouped import cut, install
from pgb_core.layout import SublayerLayout
from tests.network import Network, layouts_of_all_kinds


def pruned(network: Network, pick: int = -1) -> tuple[torch.nn.Module, list[SublayerLayout]]:
    layouts = [candidates[pick] for candidates in network.candidates]
    modules = [cut(sub, layout) for sub, layout in zip(network.sublayers, layouts, strict=True)]
    return install(network.model, network.sublayers, modules), layouts


@pytest.mark.parametrize("pick", [None, 0, 3, -1])
def test_flops_equal_torchs_own_count(network: Network, pick: int | None) -> None:
    model = copy.deepcopy(network.model if pick is None else pruned(network, pick)[0]).requires_grad_(False)
    model.config._attn_implementation = "eager"  # torch does not count its fused attention on a CPU
    ids = torch.randint(5, 20, (3, 24))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
    assert evaluation.flops(model, batch=3, length=24) == counter.get_total_flops()


def test_sizes_count_what_the_model_holds(network: Network) -> None:
    model, layouts = pruned(network)
    assert evaluation.encoder_weights(network.model) == 2 * (4 * 32 * 32 + 2 * 32 * 64)
    assert evaluation.encoder_weights(model) == sum(layout.cost for layout in layouts)
    assert evaluation.parameters(model) < evaluation.parameters(network.model)


@pytest.mark.parametrize("kind", ["untied", "zeros"])
def test_flops_of_matrices_that_stand_alone_equal_torchs_own_count(network: Network, kind: str) -> None:
    layouts = layouts_of_all_kinds(network)[kind]
    modules = [cut(sub, layout) for sub, layout in zip(network.sublayers, layouts, strict=True)]
    model = install(network.model, network.sublayers, modules).requires_grad_(False)
    model.config._attn_implementation = "eager"
    ids = torch.randint(5, 20, (3, 24))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
    assert evaluation.flops(model, batch=3, length=24) == counter.get_total_flops()
    assert evaluation.encoder_weights(model) == sum(layout.cost for layout in layouts)


def test_predictions_come_in_the_order_of_the_examples(network: Network) -> None:
    together = evaluation.predict(network.model, network.examples, batch_size=7)
    alone = [evaluation.predict(network.model, [example])[0] for example in network.examples]
    assert together.tolist() == alone


def test_logits_are_the_models_own(network: Network) -> None:
    found = evaluation.logits(network.model, network.examples, batch_size=7)
    assert found.shape == (len(network.examples), 2)
    assert found.argmax(axis=1).tolist() == evaluation.predict(network.model, network.examples).tolist()
    with torch.no_grad():
        for batch in network.batches:
            expected = network.model(**batch.inputs).logits.numpy()
            np.testing.assert_allclose(found[batch.indices.numpy()], expected, atol=1e-5)


def test_divergence_is_the_mean_relative_entropy() -> None:
    rng = np.random.default_rng(0)
    dense, other = rng.normal(size=(2, 50, 3)).astype(np.float32) * 3
    dense.flags.writeable = False  # as it comes from a file
    expected = np.mean([entropy(p, q) for p, q in zip(softmax(dense, axis=1), softmax(other, axis=1), strict=True)])
    assert evaluation.divergence(dense, other) == pytest.approx(expected, rel=1e-5)
    assert evaluation.divergence(dense, dense + 5) == pytest.approx(0, abs=1e-6)  # a constant changes no prediction


def test_the_devices_of_this_machine() -> None:
    assert evaluation.choose_device("cpu").type == "cpu"
    assert evaluation.choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(SpecError, match="No CUDA device"):
            evaluation.choose_device("cuda")


def test_labels_in_a_wrong_order_raise_the_alarm(tiny_checkpoint: Path, tiny_csv: Path) -> None:
    turned = Columns(labels=("positive=negative", "negative=positive"))
    found = evaluation.evaluate_checkpoint(str(tiny_checkpoint), "csv", train_file=str(tiny_csv), columns=turned)
    assert found["score"] < 0.2
    assert "worse than always giving the same answer" in found["note"]


def test_evaluate_a_folder(tiny_checkpoint: Path, tiny_csv: Path) -> None:
    found = evaluation.evaluate_checkpoint(str(tiny_checkpoint), "csv", train_file=str(tiny_csv), eval_samples=40)
    assert found["samples"] == 40
    assert found["score"] > 0.9
    assert found.keys() == {"metric", "score", "samples", "standard_error", "task", "checkpoint"}

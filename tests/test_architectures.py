"""Every family of encoders with every head: seen as sublayers, pruned, saved, loaded and counted."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pgb_core import architectures, evaluation, latency
from pgb_core.architectures import Sublayer, attention_mask, embed, encoder_sublayers, predict, predictions_of
from pgb_core.checkpoints import describe, load_model
from pgb_core.families import FAMILIES, Head, class_name
from pgb_core.grouped import cut, install
from pgb_core.layout import Group, Layout, SublayerLayout, dropped_layout, rectangle_layout
from pgb_core.magnitude import magnitude_layouts
from pgb_core.matrixwise import MatrixwiseLayout
from pgb_core.saving import block_tensors, load_pruned, save_pruned
from pgb_core.untied import tiled_matrix
from tests.tiny import MAX_POSITIONS, save_tiny, tiny_model

HEADS: tuple[Head, ...] = get_args(Head)
EACH = pytest.mark.parametrize(("family", "head"), [(family, head) for family in FAMILIES for head in HEADS])
FAMILY = pytest.mark.parametrize("family", FAMILIES)


def padded_inputs(model: nn.Module, batch: int = 3, length: int = 11) -> dict[str, Tensor]:
    """Seeded tokens, each row shorter than the one above it; padding is the model's own."""
    config: Any = model.config
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, config.vocab_size, (batch, length), generator=generator)
    mask = (torch.arange(length) < (length - 3 * torch.arange(batch))[:, None]).long()
    inputs = {"input_ids": torch.where(mask.bool(), ids, config.pad_token_id), "attention_mask": mask}
    if "token_type_ids" in architectures.input_names(model):
        inputs["token_type_ids"] = torch.randint(config.type_vocab_size, (batch, length), generator=generator)
    return inputs


def run_sublayers(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    x, mask = embed(model, inputs), attention_mask(inputs["attention_mask"])
    for sub in encoder_sublayers(model):
        x = sub.norm(x + sub.exit(sub.hidden(x, mask)))
    return predict(model, x)


def on_real(model: nn.Module, found: Tensor, inputs: dict[str, Tensor]) -> Tensor:
    """What counts of predictions: those of an answer's start and end only on real tokens."""
    spans = architectures.head_of(model) == "question_answering"
    return found[inputs["attention_mask"].bool()] if spans else found


def some_layouts(sublayers: Sequence[Sublayer], kind: str) -> list[Layout]:
    if kind == "zeros":
        return [*magnitude_layouts(sublayers, 0.4)]
    rng = np.random.default_rng(0)
    found: list[Layout] = []
    for place, sub in enumerate(sublayers):
        if kind == "untied":
            sizes = zip(sub.shape.matrices, (*sub.entries, sub.exit), strict=True)
            matrices = (tiled_matrix(name, rng.random(tuple(linear.weight.shape)), 2) for name, linear in sizes)
            found.append(MatrixwiseLayout(sub.shape, tuple(matrices)))
        elif kind == "dropped" and place in (0, 3):
            found.append(dropped_layout(sub.shape))
        elif place % 2:
            partial = Group(np.array([3, 1]), np.array([5, 9, 2]), np.array([0, 31, 7]))
            found.append(
                SublayerLayout(sub.shape, (partial, Group(np.array([0]), np.array([1, 30]), np.array([2, 4]))))
            )
        else:
            found.append(rectangle_layout(sub.shape, np.array([0, 2])))
    return found


def prune(model: nn.Module, kind: str, path: Path) -> tuple[nn.Module, nn.Module, nn.Module]:
    """The model cut as the layouts of `kind` say: with zeros, with blocks, and these read from a folder."""
    sublayers = encoder_sublayers(model)
    layouts = some_layouts(sublayers, kind)
    blocks = install(model, sublayers, [cut(sub, layout) for sub, layout in zip(sublayers, layouts, strict=True)])
    save_pruned(blocks, [(sub.layer, layout) for sub, layout in zip(sublayers, layouts, strict=True)], path)
    masked = copy.deepcopy(model)
    with torch.no_grad():
        for sub, layout in zip(encoder_sublayers(masked), layouts, strict=True):
            for matrix, linear in zip(layout.matrices(), (*sub.entries, sub.exit), strict=True):
                linear.weight.mul_(torch.from_numpy(matrix.mask()))
            if layout.dropped:
                sub.exit.bias.zero_()
    return masked, blocks, load_pruned(path)


# --- as sublayers --------------------------------------------------------------------------------------------------


@EACH
def test_the_sublayers_are_the_models_forward_pass(family: str, head: Head) -> None:
    model = tiny_model(family, head)
    inputs = padded_inputs(model)
    with torch.no_grad():
        expected, found = predictions_of(model(**inputs)), run_sublayers(model, inputs)
        shape = {"classification": (3, 2), "regression": (3, 1), "question_answering": (3, 11, 2)}[head]
        assert found.shape == expected.shape == shape
        assert torch.allclose(on_real(model, found, inputs), on_real(model, expected, inputs), atol=1e-6)
    assert architectures.head_of(model) == head


@EACH
def test_predictions_are_without_dropout_whatever_the_mode(family: str, head: Head) -> None:
    model = tiny_model(family, head)
    hidden = torch.randn(3, 5, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(predict(model.train(), hidden), predict(model.eval(), hidden))


@FAMILY
@pytest.mark.parametrize("layers", [2, 6, 12, 24])
def test_encoders_of_every_depth_are_seen_whole(family: str, layers: int) -> None:
    model = tiny_model(family, layers=layers, hidden=8, heads=2, intermediate=12)
    inputs, names = padded_inputs(model), model.state_dict().keys()
    sublayers = encoder_sublayers(model)
    assert [sub.key for sub in sublayers] == [(n, k) for n in range(layers) for k in ("attention", "feed_forward")]
    tensors = [sub.tensor_name(matrix) for sub in sublayers for matrix in sub.shape.matrices]
    assert len(set(tensors)) == 6 * layers
    assert set(tensors) <= names
    encoder = architectures.encoder_of(model)
    assert sum(p.numel() for p in encoder.parameters() if p.dim() > 1) == sum(sub.shape.weights for sub in sublayers)
    with torch.no_grad():
        assert torch.allclose(run_sublayers(model, inputs), predictions_of(model(**inputs)), atol=1e-6)


@FAMILY
def test_what_a_family_reads(family: str) -> None:
    model: Any = tiny_model(family)
    assert ("token_type_ids" in architectures.input_names(model)) == (family == "bert")
    assert architectures.max_length(model) == MAX_POSITIONS
    longest = latency.random_inputs(model, latency.Shape(1, MAX_POSITIONS))
    assert tuple(longest) == architectures.input_names(model)
    with torch.no_grad():
        assert model(**longest).logits.shape == (1, 2)
        one_more = torch.full((1, MAX_POSITIONS + 1), 5)
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=one_more, attention_mask=torch.ones_like(one_more))


# --- pruned --------------------------------------------------------------------------------------------------------


@EACH
@pytest.mark.parametrize("kind", ["groups", "dropped", "untied"])
def test_a_pruned_model_is_the_masked_one_in_memory_and_from_its_folder(
    family: str, head: Head, kind: str, tmp_path: Path
) -> None:
    model = tiny_model(family, head)
    masked, blocks, loaded = prune(model, kind, tmp_path)
    inputs = padded_inputs(model)
    with torch.no_grad():
        expected, in_memory, read = (predictions_of(m(**inputs)) for m in (masked, blocks, loaded))
    assert torch.allclose(on_real(model, in_memory, inputs), on_real(model, expected, inputs), atol=1e-5)
    assert torch.allclose(read, in_memory, atol=1e-6)  # how a memory is aligned may change the last bit
    assert type(loaded).__name__ == class_name(family, head, pruned=True)
    tensors = loaded.state_dict()
    assert tensors.keys() == blocks.state_dict().keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in blocks.state_dict().items())
    info = describe(tmp_path)
    assert (info.family, info.head, info.pruned, info.head_trained) == (family, head, True, True)
    assert info.parameters == evaluation.parameters(loaded)
    assert info.encoder_weights == evaluation.encoder_weights(loaded) < evaluation.encoder_weights(model)


@FAMILY
@pytest.mark.parametrize("kind", ["groups", "dropped", "untied", "zeros"])
def test_hidden_states_and_attentions_are_those_of_the_masked_model(family: str, kind: str, tmp_path: Path) -> None:
    masked, blocks, loaded = prune(tiny_model(family), kind, tmp_path)
    inputs = padded_inputs(masked)
    wanted: dict[str, Any] = {**inputs, "output_hidden_states": True, "output_attentions": True}
    for model in (masked, blocks, loaded):
        any_model: Any = model
        any_model.set_attn_implementation("eager")
    with torch.no_grad():
        expected, *found = (model(**wanted) for model in (masked, blocks, loaded))
    real = inputs["attention_mask"].bool()
    for output in found:
        assert len(output.hidden_states) == 3
        for state, dense in zip(output.hidden_states, expected.hidden_states, strict=True):
            assert torch.allclose(state[real], dense[real], atol=1e-5)
        heads = {"groups": [2, 2], "dropped": [0, 2], "untied": [4, 4], "zeros": [4, 4]}[kind]
        assert [attention.shape[1] for attention in output.attentions] == heads


@FAMILY
@pytest.mark.parametrize("kind", ["groups", "untied"])
def test_the_pruned_file_holds_each_matrix_where_it_is_said_to_be(family: str, kind: str, tmp_path: Path) -> None:
    model = tiny_model(family)
    tensors, sublayers = prune(model, kind, tmp_path)[2].state_dict(), encoder_sublayers(model)
    for sub, layout in zip(sublayers, some_layouts(sublayers, kind), strict=True):
        for matrix, linear in zip(layout.matrices(), (*sub.entries, sub.exit), strict=True):
            places = block_tensors(sub, layout)[*sub.key, matrix.name]
            for (name, start, stop), rows, columns in zip(places, matrix.row_groups, matrix.column_groups, strict=True):
                dense = linear.weight.detach().numpy()[np.ix_(rows, columns)]
                np.testing.assert_array_equal(tensors[name][start:stop].numpy(), dense)


@EACH
def test_a_pruned_model_trains(family: str, head: Head, tmp_path: Path) -> None:
    loaded = prune(tiny_model(family, head), "dropped", tmp_path)[2].train()
    predictions_of(loaded(**padded_inputs(loaded))).sum().backward()
    gradients = {name: parameter.grad for name, parameter in loaded.named_parameters() if ".weights." in name}
    assert len(gradients) > 2
    assert all(grad is not None and bool(grad.any()) for grad in gradients.values())


# --- counted and loaded --------------------------------------------------------------------------------------------


@EACH
def test_flops_and_parameters_are_torchs_own_count(family: str, head: Head, tmp_path: Path) -> None:
    dense = tiny_model(family, head)
    for model in (dense, prune(dense, "groups", tmp_path)[2]):
        any_model: Any = model
        any_model.set_attn_implementation("eager")  # torch does not count its fused attention on a CPU
        inputs = latency.random_inputs(model, latency.Shape(3, 24))
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(**inputs)
        assert evaluation.flops(model, batch=3, length=24) == counter.get_total_flops()
        assert evaluation.parameters(model) == sum(math.prod(p.shape) for p in model.parameters())


@EACH
def test_a_saved_model_is_loaded_in_float32_whatever_it_was_saved_in(family: str, head: Head, tmp_path: Path) -> None:
    model: Any = tiny_model(family, head)
    expected = {name: tensor.half().float() for name, tensor in model.state_dict().items()}
    loaded: Any = load_model(save_tiny(model.half(), tmp_path))
    assert type(loaded).__name__ == class_name(family, head)
    assert loaded.config._attn_implementation == "sdpa"
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.state_dict().items())
    assert {tensor.dtype for tensor in loaded.state_dict().values()} == {torch.float32}
    info = describe(tmp_path)
    assert (info.family, info.head, info.layers, info.hidden, info.heads, info.intermediate) == (
        family,
        head,
        2,
        32,
        4,
        64,
    )
    assert (info.max_positions, info.dtype) == (MAX_POSITIONS, "float16")
    assert info.encoder_weights == 2 * (4 * 32 * 32 + 2 * 32 * 64)

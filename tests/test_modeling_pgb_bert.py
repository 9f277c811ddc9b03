"""What runs of a pruned model: blocks, hidden states and attentions, in a file that stands alone."""

from __future__ import annotations

import ast
import copy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import pgb_core
from pgb_core.architectures import encoder_sublayers
from pgb_core.families import FAMILIES, portable_files
from pgb_core.grouped import cut, install
from pgb_core.layout import Layout, SublayerLayout, dropped_layout
from pgb_core.modeling_pgb_bert import PGBBertConfig, PGBBertForSequenceClassification
from pgb_core.pgb_blocks import GroupedLinear
from pgb_core.pgb_sublayers import sublayer_modules
from pgb_core.saving import load_pruned
from tests.network import Network, layouts_of_all_kinds, save_network, some_layouts
from tests.test_grouped import masked_dense


@pytest.mark.parametrize("family", FAMILIES)
def test_its_files_need_torch_transformers_and_each_other_alone(family: str) -> None:
    files = portable_files(family)
    for file in files:
        tree = ast.parse(Path(pgb_core.__file__).with_name(file).read_text(encoding="utf-8"))
        names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        assert {f"{node.module}.py" for node in froms if node.level} <= set(files)
        packages = {name.partition(".")[0] for name in names | {str(node.module) for node in froms if not node.level}}
        assert packages - set(sys.stdlib_module_names) <= {"torch", "transformers"}


# --- sublayers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tied", "mixed"])
def test_modules_made_from_the_manifest_are_those_of_the_layouts(network: Network, kind: str) -> None:
    config: Any = network.model.config
    for sub, layout in zip(network.sublayers, layouts_of_all_kinds(network)[kind], strict=True):
        made = sublayer_modules(config, {"layer": sub.layer, "kind": sub.shape.kind, **layout.manifest()})
        for new, expected in zip(made, (cut(sub, layout).entry, cut(sub, layout).exit), strict=True):
            assert new is not None
            assert expected is not None
            sizes, expected_sizes = ({n: t.shape for n, t in m.state_dict().items()} for m in (new, expected))
            assert sizes == expected_sizes


# --- what comes out ------------------------------------------------------------------------------------------------


def pruned_models(network: Network, layouts: Sequence[Layout], path: Path) -> list[nn.Module]:
    """The same pruned model, installed in a copy of the dense one and loaded from a folder, with eager attention."""
    installed = save_network(network, layouts, path)
    models = [installed, load_pruned(path)]
    for model in models:
        assert isinstance(model, PGBBertForSequenceClassification) == (model is not installed)
        model.set_attn_implementation("eager")
    return models


def with_dropped_attention(network: Network) -> list[Layout]:
    layouts: list[Layout] = [*some_layouts(network, 3)]
    layouts[2] = dropped_layout(network.sublayers[2].shape)
    return layouts


def heads_in_order(layout: Layout) -> np.ndarray[Any, Any]:
    """The dense numbers of the heads that a pruned attention runs, in its order."""
    if not isinstance(layout, SublayerLayout):
        return np.arange(layout.shape.units)
    return np.concatenate([np.empty(0, dtype=np.int64), *(group.units for group in layout.groups)])


@pytest.mark.parametrize("kind", ["groups and rectangles", "dropped attention", "mixed"])
def test_hidden_states_and_attentions_are_those_of_the_masked_dense_model(
    network: Network, tmp_path: Path, kind: str
) -> None:
    layouts: Sequence[Layout] = {
        "groups and rectangles": some_layouts(network, 0),
        "dropped attention": with_dropped_attention(network),
        "mixed": layouts_of_all_kinds(network)["mixed"],
    }[kind]
    masked: Any = masked_dense(network, layouts)
    masked.set_attn_implementation("eager")
    batch = network.batches[0]
    wanted: dict[str, Any] = {**batch.inputs, "output_hidden_states": True, "output_attentions": True}
    heads = [heads_in_order(layout) for layout in layouts if layout.shape.kind == "attention"]
    with torch.no_grad():
        expected = masked(**wanted)
        for model in pruned_models(network, layouts, tmp_path):
            found = model(**wanted)
            assert len(found.hidden_states) == 3
            for state, dense_state in zip(found.hidden_states, expected.hidden_states, strict=True):
                assert torch.allclose(state, dense_state, atol=1e-4)
            for attention, dense_attention, kept in zip(found.attentions, expected.attentions, heads, strict=True):
                assert attention.shape[1] == len(kept)
                assert torch.allclose(attention, dense_attention[:, kept], atol=1e-5)
            assert [kept.size == 0 for kept in heads] == [attention.shape[1] == 0 for attention in found.attentions]


@pytest.mark.parametrize("dropped", [False, True])
def test_attentions_that_are_not_computed_are_an_error_that_says_what_to_do(
    network: Network, tmp_path: Path, dropped: bool
) -> None:
    shapes = [sub.shape for sub in network.sublayers]
    layouts = [dropped_layout(shape) for shape in shapes] if dropped else some_layouts(network, 1)
    save_network(network, layouts, tmp_path)
    model: Any = load_pruned(tmp_path)
    batch = network.batches[0]
    with pytest.raises(ValueError, match=r"'sdpa' gives no attentions; call .*set_attn_implementation\('eager'\)"):
        model(**batch.inputs, output_attentions=True)
    with torch.no_grad():
        before = model(**batch.inputs)
        assert before.attentions is None
        model.set_attn_implementation("eager")
        after = model(**batch.inputs, output_attentions=True)
    assert len(after.attentions) == 2
    assert torch.allclose(before.logits, after.logits, atol=1e-5)


def test_a_model_that_gave_attentions_before_it_was_pruned_still_gives_all(network: Network) -> None:
    dense: Any = copy.deepcopy(network.model)
    dense.set_attn_implementation("eager")
    inputs = network.batches[0].inputs
    with torch.no_grad():
        assert len(dense(**inputs, output_attentions=True).attentions) == 2
        sublayers = encoder_sublayers(dense)
        modules = [cut(sub, layout) for sub, layout in zip(sublayers, some_layouts(network, 0), strict=True)]
        found = install(dense, sublayers, modules)(**inputs, output_attentions=True, output_hidden_states=True)
    assert [attention.shape[1] for attention in found.attentions] == [2, 2]
    assert len(found.hidden_states) == 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_it_runs_in_half_precision(network: Network, tmp_path: Path, dtype: torch.dtype) -> None:
    save_network(network, some_layouts(network, 0), tmp_path)
    inputs = network.batches[0].inputs
    with torch.no_grad():
        expected = load_pruned(tmp_path)(**inputs).logits
        found = load_pruned(tmp_path).to(dtype)(**inputs).logits
    assert found.dtype == dtype
    assert float((found.float() - expected).abs().max()) < 0.1


def test_a_model_made_from_its_configuration_alone_starts_anew_in_the_original_order(network: Network) -> None:
    layouts = some_layouts(network, 0)
    sublayers = [
        {"layer": sub.layer, "kind": sub.shape.kind, **layout.manifest()}
        for sub, layout in zip(network.sublayers, layouts, strict=True)
    ]
    dense: Any = network.model.config
    config = PGBBertConfig(**{**dense.to_dict(), "initializer_range": 0.5}, sublayers=sublayers)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = PGBBertForSequenceClassification(config)
    linears = [module for module in model.modules() if isinstance(module, GroupedLinear)]
    weights = torch.cat([weight.detach().flatten() for linear in linears for weight in linear.weights])
    assert float(weights.std()) == pytest.approx(0.5, rel=0.05)
    for linear in linears:
        assert not bool(linear.bias.any())
        for order in (linear.gather, linear.scatter):
            assert order is None or order.tolist() == list(range(len(order)))
    assert bool(torch.isfinite(model.eval()(**network.batches[0].inputs).logits).all())


def test_its_configuration_survives_a_file(network: Network, tmp_path: Path) -> None:
    sublayers = [{"layer": 0, "kind": "attention", "groups": []}]
    config = PGBBertConfig(hidden_size=32, num_attention_heads=4, sublayers=sublayers)
    config.save_pretrained(tmp_path)
    read = PGBBertConfig.from_pretrained(tmp_path)
    assert read.sublayers == sublayers
    assert (read.model_type, read.hidden_size) == ("pgb_bert", 32)
    assert PGBBertConfig().sublayers == []

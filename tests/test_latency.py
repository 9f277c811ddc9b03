"""Times and memory of models, measured side by side."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from torch import nn
from torch.profiler import ProfilerActivity, profile

from pgb_core import latency
from pgb_core.errors import SpecError
from pgb_core.grouped import cut, install
from pgb_core.latency import DEFAULT, GRID, Shape
from pgb_core.layout import dropped_layout, untouched_layout
from pgb_core.settings import get_settings
from pgb_core.status import machine
from tests.network import Network

SMALL = Shape(2, 16)


def pruned(network: Network) -> nn.Module:
    """Every sublayer as its last candidate."""
    pairs = zip(network.sublayers, (options[-1] for options in network.candidates), strict=True)
    return install(network.model, network.sublayers, [cut(sub, layout) for sub, layout in pairs])


def test_two_models_are_compared(network: Network) -> None:
    said: list[str] = []
    (found,) = latency.compare(
        network.model, pruned(network), [SMALL], threads=1, step=lambda done, total, message="": said.append(message)
    )
    for name in ("dense", "pruned"):
        assert 0 < found[name]["p10_ms"] <= found[name]["median_ms"] <= found[name]["p90_ms"]
        assert found[name]["repeats"] == latency.ROUNDS
    assert found["speedup"] == found["dense"]["median_ms"] / found["pruned"]["median_ms"]
    assert found["ideal_speedup"] > 1
    assert found["pruned"]["peak_bytes"] < found["dense"]["peak_bytes"]
    assert (found["batch"], found["length"], found["threads"]) == (2, 16, 1)
    assert (found["dtype"], found["device"]) == ("float32", "cpu")
    assert said[-1] == "batch 2 of 16 tokens, round 15 of 15"


def test_models_take_turns_after_a_warm_up_and_slow_ones_get_fewer_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    forwards = {name: (lambda inputs, name=name: calls.append(name)) for name in ("first", "second")}
    monkeypatch.setattr(latency, "ROUND_SECONDS", 0.0)  # once in a turn
    times = latency.take_turns(forwards, {"first": {}, "second": {}}, threads=1, rounds=3)
    assert {name: len(values) for name, values in times.items()} == {"first": 3, "second": 3}
    turns = [name for name, _ in groupby(calls)]  # a timer repeats a turn to warm up
    assert turns[-6:] == ["first", "second"] * 3
    monkeypatch.setattr(latency, "SHAPE_SECONDS", 0.0)
    assert len(latency.take_turns(forwards, {"first": {}, "second": {}}, threads=1)["first"]) == latency.FEWEST_ROUNDS


def test_a_measurement_waits_for_one_of_another_process() -> None:
    lock = FileLock(get_settings().cache_dir / f".latency-{machine()}.lock")
    said: list[str] = []

    def step(done: int, total: int, message: str = "") -> None:
        said.append(message)
        lock.release()

    lock.acquire()
    latency.take_turns({"model": lambda inputs: None}, {"model": {}}, threads=1, rounds=1, step=step)
    assert said == ["waiting for another measurement", "round 1 of 1"]


def test_the_threads_are_fixed_and_given_back() -> None:
    before, seen = torch.get_num_threads(), set[int]()
    latency.take_turns({"model": lambda inputs: seen.add(torch.get_num_threads())}, {"model": {}}, threads=1, rounds=1)
    assert seen == {1}
    assert torch.get_num_threads() == before


def without_sublayers(network: Network) -> nn.Module:
    """Nothing is left of an attention and of another layer's feed-forward half."""
    layouts = [(dropped_layout if i in (0, 3) else untouched_layout)(s.shape) for i, s in enumerate(network.sublayers)]
    modules = [cut(sub, layout) for sub, layout in zip(network.sublayers, layouts, strict=True)]
    return install(network.model, network.sublayers, modules)


@pytest.mark.parametrize("dropped", [False, True])
def test_peak_memory_equals_what_the_profiler_saw(network: Network, dropped: bool) -> None:
    model = without_sublayers(network) if dropped else network.model.eval()
    inputs = latency.random_inputs(model, Shape(4, 32))
    own = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        model(**inputs)
    held = most = 0
    for event in recorded.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    assert latency.peak_bytes(model, inputs) == pytest.approx(own + most, rel=0.02)


def test_shapes_are_cut_to_the_positions_of_the_model(network: Network) -> None:
    positions = network.model.config.max_position_embeddings
    found = latency.compare(network.model, network.model, [Shape(1, 8), Shape(1, 10**6), Shape(1, 10**7)])
    assert [(entry["batch"], entry["length"]) for entry in found] == [(1, 8), (1, positions)]


def test_onnxruntime_is_timed_as_torch_is(network: Network, tiny_checkpoint: Path) -> None:
    (found,) = latency.compare(network.model, pruned(network), [SMALL], threads=1, runtime="onnxruntime")
    assert found["runtime"] == "onnxruntime"
    assert found["dense"]["median_ms"] > 0
    assert "peak_bytes" not in found["dense"]
    (plain,) = latency.compare(network.model, pruned(network), [SMALL], threads=1)
    assert plain["ideal_speedup"] == found["ideal_speedup"]
    with pytest.raises(SpecError, match="on the CPU"):
        latency.measure_checkpoints(str(tiny_checkpoint), runtime="onnxruntime", device="cuda")


def test_onnxruntime_answers_what_torch_answers(network: Network, tmp_path: Path) -> None:
    model = pruned(network)
    inputs = latency.random_inputs(model, SMALL)
    (found,) = latency.onnx_forward_of(model, tmp_path / "graph", 1)(inputs)  # type: ignore[misc]
    torch.testing.assert_close(torch.from_numpy(found), latency.forward_of(model)(inputs).logits)  # type: ignore[attr-defined]


def test_the_grid_begins_with_the_default_and_names_shapes() -> None:
    assert GRID[0] == DEFAULT == Shape(8, 128)
    assert len(set(GRID)) == len(GRID) == 9
    assert str(Shape(1, 32)) == "batch 1 of 32 tokens"


def test_checkpoints_are_measured_as_they_lie(tiny_checkpoint: Path) -> None:
    (found,) = latency.measure_checkpoints(str(tiny_checkpoint), shapes=[SMALL], device="cpu")
    assert found["ideal_speedup"] == 1
    with pytest.raises(SpecError, match=r"length 100000 is more than the checkpoint's \d+ positions"):
        latency.measure_checkpoints(str(tiny_checkpoint), shapes=[Shape(1, 100_000)], device="cpu")

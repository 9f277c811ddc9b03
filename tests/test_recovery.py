from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from pgb_core.batching import Example, batches
from pgb_core.checkpoints import load_model, load_tokenizer
from pgb_core.errors import JobCancelled, PGBError
from pgb_core.recovery import _rate, default_learning_rate, finetune
from tests.tiny import make_tiny_checkpoint, tiny_texts

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_checkpoint(tmp_path_factory.mktemp("untrained") / "tiny", train=False)


@pytest.fixture(scope="module")
def examples(untrained: Path) -> list[Example]:
    texts, labels = tiny_texts(640, seed=11)
    tokens = load_tokenizer(untrained)(texts)["input_ids"]
    return [Example(tuple(ids), (0,) * len(ids), label) for ids, label in zip(tokens, labels, strict=True)]


def accuracy(model: nn.Module, examples: list[Example]) -> float:
    with torch.inference_mode():
        right = [(model(**b.inputs).logits.argmax(-1) == b.labels).sum().item() for b in batches(examples, 64)]
    return sum(right) / len(examples)


def test_it_learns_and_leaves_the_model_ready_to_use(untrained: Path, examples: list[Example]) -> None:
    model = load_model(untrained)
    before = accuracy(model, examples[480:])
    steps: list[tuple[int, int]] = []
    finetune(
        model,
        examples[:480],
        epochs=5,
        learning_rate=3e-3,
        seed=0,
        device=CPU,
        step=lambda done, total, message="": steps.append((done, total)),
    )
    assert before < 0.7
    assert accuracy(model, examples[480:]) > 0.9
    assert steps == [(done, 75) for done in range(1, 76)]
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_one_seed_one_result_whatever_the_global_state(untrained: Path, examples: list[Example]) -> None:
    results = []
    for global_seed, seed in ((1, 5), (2, 5), (2, 6)):
        torch.manual_seed(global_seed)
        expected_next = torch.rand(3, generator=torch.Generator().manual_seed(global_seed))
        model = load_model(untrained)
        finetune(model, examples[:96], epochs=1, learning_rate=1e-3, seed=seed, device=CPU)
        assert torch.equal(torch.rand(3), expected_next)  # the global random state is as it was
        results.append(torch.cat([parameter.flatten() for parameter in model.parameters()]).detach())
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[1], results[2])


def test_a_cancel_stops_after_its_batch(untrained: Path, examples: list[Example]) -> None:
    model = load_model(untrained)
    calls = []

    def step(done: int, total: int, message: str = "") -> None:
        calls.append(done)
        if done == 2:
            raise JobCancelled

    with pytest.raises(JobCancelled):
        finetune(model, examples, epochs=3, learning_rate=1e-3, seed=0, device=CPU, step=step)
    assert calls == [1, 2]
    assert not model.training


def test_divergence_is_told_in_one_line(untrained: Path, examples: list[Example]) -> None:
    model = load_model(untrained)
    with torch.no_grad():
        model.classifier.weight.fill_(float("inf"))
    with pytest.raises(PGBError, match="diverged") as caught:
        finetune(model, examples, epochs=1, learning_rate=1e-3, seed=0, device=CPU)
    assert "\n" not in str(caught.value)


def test_no_epochs_change_nothing(untrained: Path, examples: list[Example]) -> None:
    model, original = load_model(untrained), load_model(untrained)
    finetune(model, examples, epochs=0, learning_rate=1.0, seed=0, device=CPU)
    for changed, kept in zip(model.parameters(), original.parameters(), strict=True):
        assert torch.equal(changed, kept)


def test_frozen_parameters_stay(untrained: Path, examples: list[Example]) -> None:
    model = load_model(untrained)
    frozen = model.bert.embeddings.word_embeddings.weight.requires_grad_(False)
    before = frozen.clone()
    finetune(model, examples[:64], epochs=1, learning_rate=1e-2, seed=0, device=CPU)
    assert torch.equal(frozen, before)


@pytest.mark.parametrize("total", [2, 7, 106])
def test_the_rate_rises_to_one_and_falls_towards_zero(total: int) -> None:
    rates = [_rate(done, total) for done in range(total)]
    peak = rates.index(max(rates))
    assert max(rates) == pytest.approx(1.0)
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert min(rates) > 0
    assert _rate(total, total) == 0


def test_default_learning_rates_are_those_of_the_method() -> None:
    assert default_learning_rate(384) == 1e-4
    assert 2e-5 <= default_learning_rate(768) <= 5e-5

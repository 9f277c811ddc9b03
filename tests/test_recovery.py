from __future__ import annotations

import copy
import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pgb_core import recovery
from pgb_core.architectures import encoder_of, encoder_sublayers
from pgb_core.batching import Example, batches, stratified_positions
from pgb_core.checkpoints import load_model, load_tokenizer
from pgb_core.errors import JobCancelled, PGBError
from pgb_core.grouped import cut, install
from pgb_core.likelihood import likelihood_of
from pgb_core.magnitude import magnitude_layouts
from pgb_core.progress import silent
from pgb_core.recovery import Recovery, _rate, default_learning_rate, finetune, recover
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


def accuracy_of(model: nn.Module) -> recovery.Score:
    return partial(likelihood_of(model).score, "accuracy")


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


# --- with a watch --------------------------------------------------------------------------------------------------


def recovered(model: nn.Module, examples: list[Example], **changes: Any) -> Recovery:
    values: dict[str, Any] = {"epochs": 2, "learning_rate": 3e-3, "metric": "accuracy", "seed": 0, "device": CPU}
    return recover(model, examples, **{**values, **changes})


def state(model: nn.Module) -> torch.Tensor:
    return torch.cat([value.flatten() for value in model.state_dict().values() if value.is_floating_point()]).clone()


def test_recovery_learns_and_says_how(untrained: Path, examples: list[Example]) -> None:
    model = load_model(untrained)
    steps: list[tuple[int, int]] = []
    found = recovered(model, examples[:480], epochs=5, step=lambda done, total, message="": steps.append((done, total)))
    assert accuracy(model, examples[480:]) > 0.9
    assert (found.trained, found.set_aside) == (432, 48)
    assert [check.epoch for check in found.history] == [n / 2 for n in range(11)]
    assert found.history[0].loss is None
    losses = [check.loss for check in found.history[1:] if check.loss is not None]
    assert len(losses) == 10
    assert losses[-1] < losses[0]
    assert steps == sorted(steps)
    assert steps[-1] == (70, 70)
    assert not model.training
    json.dumps(asdict(found))


@pytest.fixture(scope="module")
def trained(untrained: Path, examples: list[Example]) -> nn.Module:
    """Right on most of the examples. Copy it, never change it."""
    model = load_model(untrained)
    finetune(model, examples[:480], epochs=5, learning_rate=3e-3, seed=0, device=CPU)
    return model


def test_what_got_worse_is_not_kept_and_the_training_ends(trained: nn.Module, examples: list[Example]) -> None:
    model = copy.deepcopy(trained)
    watcher = recovery._Watcher(model, examples[480:560], accuracy_of(model), epochs=9, total=180, step=silent)
    watcher.look(0.0)
    assert not watcher(10, 0.5)
    good = state(model)
    with torch.no_grad():
        model.classifier.weight.neg_()
        model.classifier.bias.neg_()
    assert [watcher(done, 0.5) for done in range(20, 90, 10)] == [False] * (recovery.PATIENCE - 1) + [True] * 2
    assert (watcher.best, watcher.kept) == (1, 1)
    scores = [check.dev_score or 0.0 for check in watcher.history]
    assert scores[1] > 0.9
    assert scores[2] < 0.1
    model.load_state_dict(watcher.state)
    assert torch.equal(state(model), good)


def test_of_states_that_cannot_be_told_apart_the_last_is_kept(trained: nn.Module, examples: list[Example]) -> None:
    """One more error is within the noise, ten are not; the start does not compete."""
    aside = [e for e in examples[480:600] if trained(torch.tensor([e.input_ids])).logits.argmax() == e.label]
    model = copy.deepcopy(trained)
    watcher = recovery._Watcher(model, aside, accuracy_of(model), epochs=2, total=40, step=silent)
    for epoch, wrong in ((0.0, 0), (0.5, 20), (1.0, 0), (1.5, 1), (2.0, 10)):
        watcher.aside = [replace(e, label=1 - e.label) if i < wrong else e for i, e in enumerate(aside)]
        watcher.look(epoch)
        assert watcher.kept == {0.0: 0, 0.5: 1, 1.0: 2, 1.5: 3, 2.0: 3}[epoch]
    assert watcher.best == 2


def test_the_model_is_left_in_the_kept_state(untrained: Path, examples: list[Example]) -> None:
    model = load_model(untrained)
    found = recovered(model, examples[:480], epochs=4)
    aside = stratified_positions([example.label for example in examples[:480]], 48, 0)
    assert accuracy(model, [examples[i] for i in aside]) == pytest.approx(found.history[found.kept].dev_score)
    assert found.kept >= 1


def test_looking_does_not_change_the_training(
    untrained: Path, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last state of a watched training is that of plain fine-tuning on the same examples, to the bit."""
    found: list[torch.Tensor] = []
    monkeypatch.setattr(recovery._Watcher, "_rank", lambda self, look: (look, 0.0))
    model = load_model(untrained)
    recovered(model, examples[:400])
    found.append(state(model))
    aside = stratified_positions([example.label for example in examples[:400]], 40, 0)
    model = load_model(untrained)
    rest = [example for i, example in enumerate(examples[:400]) if i not in aside]
    finetune(model, rest, epochs=2, learning_rate=3e-3, seed=0, device=CPU)
    found.append(state(model))
    assert torch.equal(*found)


def test_too_few_examples_are_all_trained_on_and_the_last_state_stays(untrained: Path, examples: list[Example]) -> None:
    model, plain = load_model(untrained), load_model(untrained)
    found = recovered(model, examples[:64])
    finetune(plain, examples[:64], epochs=2, learning_rate=3e-3, seed=0, device=CPU)
    assert torch.equal(state(model), state(plain))
    assert (found.trained, found.set_aside) == (64, 0)
    assert found.kept == len(found.history) - 1
    assert found.history[found.kept].epoch == 2
    assert all(check.dev_score is None for check in found.history)


def test_zeros_of_the_encoder_stay(untrained: Path, examples: list[Example]) -> None:
    dense = load_model(untrained)
    sublayers = encoder_sublayers(dense)
    layouts = magnitude_layouts(sublayers, 0.5)
    model = install(dense, sublayers, [cut(sub, layout) for sub, layout in zip(sublayers, layouts, strict=True)])
    weights = [p for p in encoder_of(model).parameters() if p.dim() == 2]
    before = [weight.detach().clone() for weight in weights]
    assert all((weight == 0).any() for weight in before)
    recovered(model, examples[:480], epochs=5)
    for weight, old in zip(weights, before, strict=True):
        assert not weight[old == 0].any()
        assert not torch.equal(weight, old)


def test_default_learning_rates_are_those_of_the_method() -> None:
    assert default_learning_rate(384) == 5e-5
    assert 2e-5 <= default_learning_rate(1024) <= default_learning_rate(768) <= 5e-5

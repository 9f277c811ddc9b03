"""Stage 6, recovery: ordinary fine-tuning of a pruned model, watched on training examples that are set aside.

Nothing but the loss of the task's labels (`likelihood`), no distillation. A seeded, label-stratified tenth of the
training examples is not trained on (also not afterwards): it says which state to keep, and when to stop. The demo
checkpoint's own training is `finetune` without that.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from pgb_core import evaluation
from pgb_core.architectures import predictions_of
from pgb_core.batching import Example, batches, labels_of, stratified_positions
from pgb_core.errors import PGBError
from pgb_core.likelihood import likelihood_of
from pgb_core.progress import Step, silent

WARM_UP = 0.1
"""Share of the steps over which the learning rate rises from zero; afterwards it falls back to zero."""
WEIGHT_DECAY = 0.01
CLIP_NORM = 1.0
SET_ASIDE = 0.1
MOST_SET_ASIDE = 1000
LEAST_SET_ASIDE = 32
"""With fewer examples the score is a matter of luck: then all are trained on, and the last state is kept."""
CHECKS = 2
"""Looks at the examples set aside, per epoch."""
PATIENCE = 6
"""Looks without a better one after which training stops."""

Score = Callable[[torch.Tensor, torch.Tensor], float]
"""Of predictions on labels."""
Watch = Callable[[int, float], bool]
"""Called after every step with the number of steps done and the loss of its batch; true ends the training."""


def default_learning_rate(hidden: int) -> float:
    """Peak learning rate for an encoder of that hidden size: 5e-5 for small ones (MiniLM), 3e-5 for base, 2e-5 above.

    No rate from 2e-5 to 2e-4 gave the demo a score that differs by more than its error, on tweets or on BBC news; the
    higher ones move its predictions further from the dense model's.

    >>> default_learning_rate(384), default_learning_rate(768), default_learning_rate(1024)
    (5e-05, 3e-05, 2e-05)
    """
    return 5e-5 if hidden <= 512 else 3e-5 if hidden <= 768 else 2e-5


# --- recovery ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Check:
    """One look at the model: `epoch` epochs into the training, None where nothing was trained or set aside."""

    epoch: float
    loss: float | None
    """Mean over the training batches since the last look."""
    dev_loss: float | None
    dev_score: float | None


@dataclass(frozen=True)
class Recovery:
    """How a recovery went; the model is in the state of `history[kept]`."""

    metric: str
    learning_rate: float
    batch_size: int
    trained: int
    """Examples trained on."""
    set_aside: int
    kept: int
    history: tuple[Check, ...]


def recover(
    model: nn.Module,
    examples: Sequence[Example],
    *,
    epochs: int,
    learning_rate: float,
    batch_size: int = 32,
    metric: str,
    positive: int = 1,
    seed: int,
    device: torch.device,
    step: Step = silent,
) -> Recovery:
    """Fine-tune `model` in place and leave it, on `device` and in eval mode, in the best state for all that is known.

    That is the last one that is not worse than the best by more than one standard error, on the examples set aside:
    late states have the small learning rate, and few examples cannot tell close ones apart (after the one-standard-
    error rule of Breiman et al., Classification and Regression Trees, 1984, section 3.4.3). Training stops early after
    `PATIENCE` looks without a better one. The state before the training does not compete: the checkpoint was trained on
    the examples set aside as well, which flatters it.

    Args:
        examples: training examples; evaluation data has no place here.
        metric: of the task; of question answering, whose texts are not compared here, spans of tokens are scored.
        positive: label that F1 is of.

    Raises:
        PGBError: the loss is no longer finite.
    """
    count = min(MOST_SET_ASIDE, round(SET_ASIDE * len(examples)))
    if count < LEAST_SET_ASIDE:
        count = 0
    positions = set(stratified_positions(_strata(examples), count, seed))
    aside = [example for position, example in enumerate(examples) if position in positions]
    trained = [example for position, example in enumerate(examples) if position not in positions]
    total = epochs * math.ceil(len(trained) / batch_size)
    score = partial(likelihood_of(model).score, metric, positive=positive)
    watcher = _Watcher(model.to(device), aside, score, epochs, total, step)
    watcher.look(0.0)
    finetune(
        model,
        trained,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        seed=seed,
        device=device,
        step=step,
        watch=watcher,
    )
    model.load_state_dict(watcher.state)
    return Recovery(metric, learning_rate, batch_size, len(trained), len(aside), watcher.kept, tuple(watcher.history))


def _strata(examples: Sequence[Example]) -> list[int] | list[float]:
    """What examples are set aside by: labels or values; of answers, whether there is one in the window."""
    return [int(any(e.label)) if isinstance(e.label, tuple) else e.label for e in examples]


class _Watcher:
    """Looks at the model `CHECKS` times per epoch, keeps the state that `recover` describes, says when to stop."""

    def __init__(
        self, model: nn.Module, aside: Sequence[Example], score: Score, epochs: int, total: int, step: Step
    ) -> None:
        self.model, self.aside, self.score, self.step = model, aside, score, step
        self.done, self.total = 0, total
        looks = range(1, CHECKS * epochs + 1)
        self.epoch_at = {round(n * total / (CHECKS * epochs)): n / CHECKS for n in looks}
        self.history: list[Check] = []
        self.best = self.kept = 0
        self.state: dict[str, torch.Tensor] = {}
        self._points_at_best = torch.zeros(0)
        self.likelihood = likelihood_of(model)
        self._losses: list[float] = []

    def __call__(self, done: int, loss: float) -> bool:
        self.done = done
        self._losses.append(loss)
        if done in self.epoch_at:
            self.look(self.epoch_at[done])
        return bool(self.aside) and len(self.history) - 1 - self.best >= PATIENCE

    def look(self, epoch: float) -> None:
        """Score the model as it is; training goes on as if this had not been."""
        loss = sum(self._losses) / len(self._losses) if self._losses else None
        self._losses.clear()
        dev_loss = score = None
        points = torch.zeros(0)
        if self.aside:
            predictions, labels = self._predictions(), labels_of(self.aside)
            real = torch.ones(predictions.shape[:2])  # padding is impossible already
            dev_loss = float(self.likelihood.loss(predictions, labels, real))
            score = self.score(predictions, labels)
            points = self.likelihood.points(predictions, labels)
        self.history.append(Check(epoch, loss, dev_loss, score))
        last = len(self.history) - 1
        if last <= 1 or self._rank(last) > self._rank(self.best):
            self.best, self._points_at_best = last, points
        lost = self._points_at_best - points
        # the standard error of that sum where the states are equal; of right and wrong ones that is McNemar's test
        if float(lost.sum()) <= float(lost.square().sum().sqrt()):
            self.kept, self.state = last, copy.deepcopy(self.model.state_dict())

    def _rank(self, look: int) -> tuple[float, float]:
        check = self.history[look]
        return check.dev_score or 0.0, -(check.dev_loss or 0.0)

    def _predictions(self) -> torch.Tensor:
        """Those for what was set aside; the model stays in the mode that it is in."""

        def step(done: int, total: int, message: str = "") -> None:
            self.step(self.done, self.total, f"scoring {done} of {total} examples set aside")

        training = self.model.training
        logits = evaluation.logits(self.model, self.aside, step=step)
        self.model.train(training)
        return torch.from_numpy(logits)


# --- training ------------------------------------------------------------------------------------------------------


def finetune(
    model: nn.Module,
    examples: Sequence[Example],
    *,
    epochs: int,
    learning_rate: float,
    batch_size: int = 32,
    seed: int,
    device: torch.device,
    step: Step = silent,
    watch: Watch | None = None,
) -> None:
    """Train all parameters of `model` on `examples` by their loss; leaves it on `device` in eval mode.

    AdamW with linear warm-up and decay and clipped gradients; bfloat16 autocast where the device is fast at it. On a
    CPU the result depends on the seed and the thread count alone. The global random state is left as it was.
    `step` is called after every batch; an exception from it (a cancel) leaves the model half trained, in eval mode.
    So is `watch`, which may end the training.

    Raises:
        PGBError: the loss is no longer finite.
    """
    total = epochs * math.ceil(len(examples) / batch_size)
    if total == 0:
        model.eval()
        return
    model.to(device)
    likelihood = likelihood_of(model)
    optimizer = torch.optim.AdamW(_parameter_groups(model), lr=learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(_rate, total=total))
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    cuda = range(torch.cuda.device_count()) if device.type == "cuda" else ()
    done = 0
    model.train()
    try:
        with torch.random.fork_rng(devices=cuda):
            torch.manual_seed(seed)  # dropout
            for epoch in range(epochs):
                for batch in batches(examples, batch_size, order="shuffled", seed=seed + epoch):
                    batch = batch.to(device)
                    with torch.autocast(device.type, torch.bfloat16, enabled=_fast_bfloat16(device)):
                        predictions = predictions_of(model(**batch.inputs)).float()
                    loss = likelihood.loss(predictions, batch.labels, batch.attention_mask)
                    if not torch.isfinite(loss):
                        raise PGBError(
                            f"fine-tuning diverged (loss {loss.item()}) in epoch {epoch + 1}; "
                            "remove fewer weights or recover without fine-tuning."
                        )
                    torch.autograd.backward(loss)
                    nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
                    optimizer.step()
                    schedule.step()
                    optimizer.zero_grad()
                    done += 1
                    step(done, total, f"epoch {epoch + 1} of {epochs}, loss {loss.item():.3f}")
                    if watch is not None and watch(done, loss.item()):
                        return
    finally:
        model.eval()
        for parameter in parameters:
            parameter.grad = None


def _rate(done: int, total: int) -> float:
    """Share of the peak learning rate after `done` of `total` steps: up to 1 and back to 0, in straight lines."""
    rising = math.ceil(WARM_UP * total)
    return (done + 1) / (rising + 1) if done < rising else (total - done) / max(total - rising, 1)


def _parameter_groups(model: nn.Module) -> list[dict[str, object]]:
    """Matrices decay; biases and LayerNorm, which have one dimension, do not."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]


def _fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 products have hardware: emulated ones are slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))

"""Stage 1, importance: second-order scores of every encoder weight, from one pass over calibration text (`fisher`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pgb_core.architectures import Sublayer
from pgb_core.batching import Batch
from pgb_core.fisher import differentiable_activations, trace
from pgb_core.formulas import compensated_importance, damped, fisher_importance
from pgb_core.layout import EXIT_NAME
from pgb_core.likelihood import likelihood_of, random_signs
from pgb_core.progress import Step, silent

FLOOR = 0.02
"""Least weight of a token, relative to the mean: keeps Gram matrices solvable."""
_GRAM_BLOCK = 192
"""Rows of a Gram matrix that are summed at once, from the diagonal on."""
_CACHED_TOKENS = 256
"""Tokens whose squares still fit a cache: summed in such pieces they take an eighth of the time."""


@dataclass(frozen=True, eq=False)
class TokenWeights:
    """How much each calibration token counts in a sublayer's least squares: (samples, L), 0 on padding.

    Every sample counts the same, and among its tokens each by the length of its gradient, |dL/dy_t|, on a small floor.
    Second order asks for the squares, but they leave some hundred of the demo's 65,536 tokens to fit to, of texts that
    the model finds hard; this generalizes better. In the last layer only the first token reaches the loss, so it is
    nearly alone there.
    """

    entry: Tensor
    exit: Tensor


@dataclass(frozen=True, eq=False)
class SublayerStatistics:
    """What one pass over the calibration text says of a sublayer; weighted means over its real tokens, float32.

    The Gram matrices are of the inputs with a constant 1 appended, for the bias: H = sum_t w_t x_t x_t^T / sum_t w_t.
    """

    entry_gram: Tensor
    """(hidden + 1, hidden + 1)"""
    exit_gram: Tensor
    """(inner + 1, inner + 1); empty once stage 2 has used it up: all of them are larger than the model"""
    weights: TokenWeights
    entry_sensitivity: tuple[Tensor, ...]
    """(inner,) per entry matrix: q_i = mean_t (dL/dy_ti)^2"""
    exit_metric: Tensor
    """(hidden, hidden) Q = mean_t g_t g_t^T, g = dL/dy: errors of several outputs may add up or cancel"""
    fisher: tuple[Tensor, ...] | None
    """(rows, columns) per matrix, the exit last: F_ij = mean_n (dL_n/dw_ij)^2 over samples n; None unless asked for."""

    @property
    def exit_sensitivity(self) -> Tensor:
        """(hidden,)"""
        return self.exit_metric.diagonal()


class GramSum:
    """Running sum_t w_t x_t x_t^T of inputs x, a constant 1 appended, for the bias.

    The constant's row is kept apart, as products of an odd width take half as long again, and only what is not the
    mirror image of something else is summed.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        self._square = torch.zeros(size, size, device=device)
        self._sum = torch.zeros(size, device=device)
        self._weight = torch.zeros((), device=device)

    def add(self, x: Tensor, weights: Tensor) -> None:
        """Count inputs (T, size) with their weights (T,)."""
        weighted = x * weights[:, None]
        for start in range(0, x.shape[1], _GRAM_BLOCK):
            rows = slice(start, start + _GRAM_BLOCK)
            self._square[rows, start:].addmm_(weighted[:, rows].T, x[:, start:])
        self._sum += weighted.sum(dim=0)
        self._weight += weights.sum()

    def total(self) -> Tensor:
        """(size + 1, size + 1), the constant last."""
        size = len(self._square)
        gram = self._square.new_empty(size + 1, size + 1)
        gram[:-1, :-1] = self._square.triu() + self._square.triu(1).T
        gram[-1, :-1] = gram[:-1, -1] = self._sum
        gram[-1, -1] = self._weight
        return gram

    def mean(self) -> Tensor:
        """The total over the sum of the weights."""
        return self.total() / self._weight


class _Sums:
    """Running sums of one sublayer."""

    def __init__(self, sub: Sublayer, samples: int, length: int, fisher: bool) -> None:
        device, shape = sub.exit.weight.device, sub.shape
        self.entry_gram, self.exit_gram = GramSum(shape.hidden, device), GramSum(shape.inner, device)
        self.sensitivity = [torch.zeros(m.out_features, device=device) for m in sub.entries]
        self.metric = torch.zeros(shape.hidden, shape.hidden, device=device)
        self.weights = TokenWeights(*torch.zeros(2, samples, length, device=device))
        self.fisher = [torch.zeros_like(m.weight) for m in (*sub.entries, sub.exit)] if fisher else None

    def add(self, inputs: Sequence[Tensor], gradients: Sequence[Tensor], batch: Batch, exit_every: int) -> None:
        """`inputs`: of the entries and of the exit, (B, L, .); `gradients` of all outputs."""
        real, samples = batch.attention_mask.bool(), batch.indices.to(inputs[0].device)
        entry_weights = token_weights(gradients[:-1], real)
        exit_weights = token_weights(gradients[-1:], real)
        self.weights.entry[samples, : real.shape[1]] = entry_weights
        self.weights.exit[samples, : real.shape[1]] = exit_weights
        self.entry_gram.add(_among(inputs[0], real), entry_weights[real])
        thinned = real & (samples % exit_every == 0)[:, None]
        self.exit_gram.add(_among(inputs[1], thinned), exit_weights[thinned])
        for total, gradient in zip(self.sensitivity, gradients, strict=False):
            for piece in _among(gradient, real).split(_CACHED_TOKENS):
                total += piece.square().sum(dim=0)
        last = _among(gradients[-1], real)
        self.metric.addmm_(last.T, last)
        if self.fisher is not None:
            sources = [inputs[0]] * (len(gradients) - 1) + [inputs[1]]
            keep = real.unsqueeze(-1)
            for fisher, x, gradient in zip(self.fisher, sources, gradients, strict=True):
                for xs, gs in zip((x * keep).split(4), (gradient * keep).split(4), strict=True):
                    fisher += torch.bmm(gs.transpose(1, 2), xs).square_().sum(dim=0)  # per sample, then squared

    def means(self, tokens: int, samples: int) -> SublayerStatistics:
        return SublayerStatistics(
            self.entry_gram.mean(),
            self.exit_gram.mean(),
            self.weights,
            tuple(total / tokens for total in self.sensitivity),
            self.metric / tokens,
            None if self.fisher is None else tuple(total / samples for total in self.fisher),
        )


def _among(x: Tensor, tokens: Tensor) -> Tensor:
    """(B, L, .) -> (T, .), of the tokens where (B, L) is true; copied only if there are others."""
    return x.flatten(0, 1) if bool(tokens.all()) else x[tokens]


def token_weights(gradients: Sequence[Tensor], real: Tensor) -> Tensor:
    """(B, L) weights of the tokens (`TokenWeights`) from the gradients (B, L, .) of the outputs that are fitted."""
    lengths = torch.stack([torch.linalg.vector_norm(g, dim=-1) for g in gradients])
    length = torch.linalg.vector_norm(lengths, dim=0) * real
    share = length / length.sum(dim=1, keepdim=True).clamp_min(torch.finfo(length.dtype).tiny)
    floored: Tensor = share + FLOOR * real / real.sum(dim=1, keepdim=True)
    return floored


def collect_statistics(
    model: nn.Module,
    sublayers: Sequence[Sublayer],
    batches: Sequence[Batch],
    samples: int,
    *,
    exit_every: int = 1,
    fisher: bool = False,
    seed: int = 0,
    step: Step = silent,
) -> list[SublayerStatistics]:
    """One forward and one backward pass over `samples` calibration samples, in batches of any size and order.

    Only activations are differentiated, so the backward pass costs half of training's.

    Args:
        exit_every: one in so many samples counts towards the exits' Gram matrices, which cost as much as the forward
            pass and need only several times as many tokens as they have rows.

    Returns:
        One entry per sublayer, in their order.
    """
    length = max(batch.input_ids.shape[1] for batch in batches)
    sums = [_Sums(sub, samples, length, fisher) for sub in sublayers]
    device = sublayers[0].exit.weight.device
    likelihood, (signs,) = likelihood_of(model), random_signs(model, batches, samples, seed)
    tokens, done = 0, 0
    with differentiable_activations(model):
        for batch in batches:
            batch = batch.to(device)
            traces, predictions = trace(model, sublayers, batch)
            outputs = [y for _, ys in traces for y in ys]
            chosen = signs[batch.indices].to(device)
            direction = likelihood.random_direction(predictions.detach(), chosen, batch.attention_mask)
            gradients = list(torch.autograd.grad(predictions, outputs, grad_outputs=direction))
            with torch.no_grad():
                for total, (inputs, ys) in zip(sums, traces, strict=True):
                    total.add([x.detach() for x in inputs], [gradients.pop(0) for _ in ys], batch, exit_every)
            tokens += int(batch.attention_mask.sum())
            done += len(batch.indices)
            step(done, samples, f"sample {done} of {samples}")
    return [sums.pop(0).means(tokens, samples) for _ in sublayers]  # one after another: they are larger than the model


# --- scores from the statistics ------------------------------------------------------------------------------------


def matrix_importance(sub: Sublayer, statistics: SublayerStatistics, kind: str) -> dict[str, Tensor]:
    """(rows, columns) importance of every matrix of a sublayer, by name: `kind` is `compensated` or `fisher`.

    Raises:
        ValueError: `fisher` is asked for, but was not collected.
    """
    modules = dict(zip(sub.shape.matrices, (*sub.entries, sub.exit), strict=True))
    if kind == "fisher":
        if statistics.fisher is None:
            raise ValueError("The Fisher diagonal was not collected.")
        pairs = zip(modules.items(), statistics.fisher, strict=True)
        return {name: fisher_importance(module.weight.detach(), fisher) for (name, module), fisher in pairs}
    sensitivity = dict(zip(modules, (*statistics.entry_sensitivity, statistics.exit_sensitivity), strict=True))
    variance = {
        name: inverse_diagonal(statistics.exit_gram if name == EXIT_NAME else statistics.entry_gram)
        for name in (next(iter(modules)), EXIT_NAME)  # the entries read the same inputs
    }
    return {
        name: compensated_importance(
            module.weight.detach(), sensitivity[name], variance.get(name, variance[next(iter(modules))])
        )
        for name, module in modules.items()
    }


def inverse_diagonal(gram: Tensor) -> Tensor:
    """(M,) of a (M + 1, M + 1) Gram matrix whose last row and column belong to the constant: diagonal of H^-1."""
    return inverse(gram).diagonal()[:-1].to(gram.dtype)


def inverse(gram: Tensor) -> Tensor:
    """Inverse of a damped Gram matrix; float64 on a CPU, float32 on a GPU, where float64 is slow."""
    return torch.cholesky_inverse(torch.linalg.cholesky(damped(gram.to(solve_dtype(gram.device)))))


def solve_dtype(device: torch.device) -> torch.dtype:
    """Float64 where it costs little, float32 on a GPU."""
    return torch.float32 if device.type == "cuda" else torch.float64


def elimination_order(
    weight: Tensor, gram: Tensor, metric: Tensor, width: int, *, updates: int = 32, step: Step = silent
) -> Tensor:
    """The units in the order in which they are least missed, the first to go first.

    Removing the inputs J of the exit matrix, while its other weights make up for it, costs
    1/2 tr(Q w_J ([H^-1]_JJ)^-1 w_J^T). After each removal W and H^-1 are downdated (block-wise Gaussian
    elimination, as in Frantar and Alistarh, OBC, 2022), never inverted anew.

    Args:
        weight: (hidden, units * width) of the exit matrix.
        gram: (units * width + 1, ...) of its inputs.
        metric: (hidden, hidden), Q: what errors of the outputs cost, `SublayerStatistics.exit_metric`.
        updates: the scores are updated after every 1/`updates` of the units left, at least one by one at the end.

    Returns:
        (units,) unit indices.
    """
    dtype = solve_dtype(gram.device)
    variance = inverse(gram)  # (M + 1, M + 1), of the units that are left
    values, vectors = torch.linalg.eigh(metric.to(dtype))
    root = (vectors * values.clamp_min(0).sqrt()).T  # Q = root^T root
    weighted = torch.cat([root @ weight.to(dtype), root.new_zeros(len(root), 1)], dim=1)  # (hidden, M + 1)
    units = weight.shape[1] // width
    left = torch.arange(units, device=weight.device)
    order: list[Tensor] = []
    while len(left):
        scores = _unit_scores(variance[:-1, :-1], weighted[:, :-1], width)
        go = scores.argsort(stable=True)[: max(1, len(left) // updates)]
        order.append(left[go])
        gone = torch.zeros(len(left), dtype=torch.bool, device=left.device)
        gone[go] = True
        removed = torch.cat([gone.repeat_interleave(width), gone.new_zeros(1)])
        out, stay = removed.nonzero().squeeze(1), (~removed).nonzero().squeeze(1)
        rows = variance.index_select(0, out)
        gain = torch.linalg.solve(rows.index_select(1, out), rows.index_select(1, stay))  # (removed, left)
        weighted = weighted.index_select(1, stay) - weighted.index_select(1, out) @ gain
        variance = variance.index_select(0, stay).index_select(1, stay) - rows.index_select(1, stay).T @ gain
        left = left[~gone]
        step(units - len(left), units, f"{units - len(left)} of {units} units ordered")
    return torch.cat(order)


def _unit_scores(variance: Tensor, weighted: Tensor, width: int) -> Tensor:
    """(units,) w_J ([H^-1]_JJ)^-1 w_J^T summed over the outputs, for each unit's inputs J.

    Args:
        variance: (units * width, units * width), H^-1.
        weighted: (hidden, units * width), the root of Q times W.
    """
    if width == 1:  # neurons: as below, without a thousand systems of one equation
        return weighted.square().sum(dim=0) / variance.diagonal()
    own = variance.unflatten(0, (-1, width)).unflatten(2, (-1, width))
    own = own.diagonal(dim1=0, dim2=2).permute(2, 0, 1)  # (units, width, width)
    columns = weighted.T.unflatten(0, (-1, width))  # (units, width, hidden)
    scores: Tensor = (torch.linalg.solve(own, columns) * columns).sum(dim=(1, 2))
    return scores

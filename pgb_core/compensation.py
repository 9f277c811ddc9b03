"""Stage 4, compensation: the kept weights are refitted by least squares, bottom-up, to stand in for the removed ones.

A linear layer gets the weights that give its targets from its inputs (`least_squares.ridge`, towards the weights that
it has), group by group over the group's inputs and the bias; zeros inside a group stay zeros. Inputs come from the
already pruned model below, targets from the dense model: the dense output for the entry matrices; for the exit the
dense output plus the dense residual minus the pruned one, which corrects what has drifted below. Tokens count by how
much the loss listens to them (`TokenWeights`). A dropped sublayer keeps a bias, the same refit with no inputs. Our
reading of PGB's weight compensation (arXiv 2502.03984).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from pgb_core.architectures import Sublayer, attention_mask, embed
from pgb_core.batching import Batch
from pgb_core.grouped import PrunedSublayer, cut, on, stacked_entry
from pgb_core.importance import GramSum, TokenWeights
from pgb_core.layout import Block, Layout
from pgb_core.least_squares import ridge
from pgb_core.memory import release
from pgb_core.pgb_blocks import Constant
from pgb_core.progress import Step, silent


@dataclass(frozen=True, eq=False)
class States:
    """One batch on its way through both models: what the next sublayer reads in each.

    `dense` and `pruned` are parts of one large tensor each, written over as the batches advance: all calibration text
    in pieces that come and go would take twice the memory, as the C library keeps the gaps between them.
    """

    dense: Tensor
    """(B, L, hidden)"""
    pruned: Tensor
    """(B, L, hidden); `dense` itself while both models agree"""
    real: Tensor
    """(B, L) boolean, true on real tokens"""
    samples: Tensor
    """(B,) which calibration samples these are"""
    mask: Tensor | None
    """For `Sublayer.mix`."""

    def on_real(self, x: Tensor) -> Tensor:
        """(B, L, .) -> (T, .), real tokens only; copied only if there are others."""
        return x.flatten(0, 1) if self.mask is None else x[self.real]

    def weights_of(self, weights: Tensor) -> Tensor:
        """(T,) weights of the real tokens among those of all samples, (samples, L)."""
        return self.on_real(weights[self.samples, : self.real.shape[1]])


@torch.no_grad()
def first_states(model: nn.Module, batches: Sequence[Batch]) -> list[States]:
    """The states that the first sublayer reads: both models still agree."""
    device = next(model.parameters()).device
    states: list[States] = []
    pieces: list[Tensor] = []
    for batch in (batch.to(device) for batch in batches):
        x = embed(model, batch.inputs)
        if not pieces:
            pieces = _pieces([other.attention_mask.shape for other in batches], x)
        x = pieces[len(states)].copy_(x)
        real = batch.attention_mask.bool()
        states.append(States(x, x, real, batch.indices.to(device), attention_mask(batch.attention_mask)))
    return states


def _pieces(shapes: Sequence[torch.Size], like: Tensor) -> list[Tensor]:
    """One uninitialized tensor, cut into (*shape, hidden) for each of `shapes`; `like` has hidden columns."""
    whole = like.new_empty(sum(shape.numel() for shape in shapes), like.shape[-1])
    parts = whole.split([shape.numel() for shape in shapes])
    return [piece.view(*shape, -1) for piece, shape in zip(parts, shapes, strict=True)]


def _apart(states: Sequence[States]) -> list[States]:
    """`states` with a tensor of its own for the pruned model, where both still share one."""
    if not states or states[0].pruned is not states[0].dense:
        return list(states)
    pieces = _pieces([state.real.shape for state in states], states[0].dense)
    return [replace(state, pruned=piece.copy_(state.dense)) for state, piece in zip(states, pieces, strict=True)]


@torch.no_grad()
def compensate(
    model: nn.Module,
    sublayers: Sequence[Sublayer],
    layouts: Sequence[Layout],
    weights: Sequence[TokenWeights],
    batches: Sequence[Batch],
    *,
    step: Step = silent,
) -> list[PrunedSublayer]:
    """Refit every sublayer in turn, each to the inputs that the refitted ones below it give.

    Below the first removed weight both models agree and there is nothing to refit.
    """
    release()
    states = first_states(model, batches)
    refitted: list[PrunedSublayer] = []
    drifted = False
    for i, (sub, layout, tokens) in enumerate(zip(sublayers, layouts, weights, strict=True)):
        pruned = cut(sub, layout)
        drifted = drifted or not layout.untouched

        def inner(done: int, total: int, message: str = "", i: int = i, sub: Sublayer = sub) -> None:
            step(i * total + done, len(sublayers) * total, f"refitting the {sub.name}")

        if drifted:
            states = refit(sub, pruned, states, tokens, step=inner)
            advance_pruned(sub, pruned, states, step=inner)
        else:
            states = advance(sub, pruned, states, step=inner)
        release()
        refitted.append(pruned)
    return refitted


@torch.no_grad()
def refit(
    sub: Sublayer, pruned: PrunedSublayer, states: Sequence[States], weights: TokenWeights, *, step: Step = silent
) -> list[States]:
    """Refit one sublayer in place: the entry matrices, then, on what they give, the exit.

    Returns:
        `states`, written over: `dense` is what the next sublayer reads, `pruned` is still what this one does.
    """
    states = _apart(states)
    if pruned.entry is not None:
        gram, cross = entry_sums(sub, states, weights.entry, step)
        refit_entry(sub, pruned, gram, cross)
    sums = ExitSums(pruned.layout, sub.exit.weight.device)
    for n, state in enumerate(states, start=1):
        given = state.dense + sub.exit(sub.hidden(state.dense, state.mask))
        hidden = pruned.hidden(state.pruned, state.mask)
        sums.add(state.on_real(hidden), state.on_real(given - state.pruned), state.weights_of(weights.exit))
        state.dense.copy_(sub.norm(given))
        step(len(states) + n, 3 * len(states))
    refit_exit(sub, pruned, sums)
    return states


@torch.no_grad()
def advance(sub: Sublayer, pruned: PrunedSublayer, states: Sequence[States], *, step: Step = silent) -> list[States]:
    """What the next sublayer reads: `states`, written over."""
    if not pruned.layout.untouched:
        states = _apart(states)
    for n, state in enumerate(states, start=1):
        if state.pruned is not state.dense:
            advance_pruned(sub, pruned, [state])
        state.dense.copy_(sub.norm(state.dense + sub.exit(sub.hidden(state.dense, state.mask))))
        step(2 * len(states) + n, 3 * len(states))  # before it comes the refit
    return list(states)


@torch.no_grad()
def advance_pruned(sub: Sublayer, pruned: PrunedSublayer, states: Sequence[States], *, step: Step = silent) -> None:
    """As `advance`, of states that `refit` returned."""
    for n, state in enumerate(states, start=1):
        state.pruned.copy_(sub.norm(state.pruned + pruned(state.pruned, state.mask)))
        step(2 * len(states) + n, 3 * len(states))


# --- sums over tokens ----------------------------------------------------------------------------------------------


def entry_sums(sub: Sublayer, states: Sequence[States], weights: Tensor, step: Step = silent) -> tuple[Tensor, Tensor]:
    """(hidden + 1, hidden + 1) weighted sums over tokens of x' x'^T and x x'^T: x dense, x' pruned, with a constant."""
    hidden, device = sub.shape.hidden, sub.exit.weight.device
    gram, product = GramSum(hidden, device), torch.zeros(hidden, hidden, device=device)
    total = torch.zeros(hidden, device=device)
    for n, state in enumerate(states):
        dense, pruned, counted = state.on_real(state.dense), state.on_real(state.pruned), state.weights_of(weights)
        gram.add(pruned, counted)
        product.addmm_(dense.T, pruned * counted[:, None])
        total += counted @ dense
        step(n, 3 * len(states))
    square = gram.total()
    cross = square.clone()  # the constant's row is the same
    cross[:-1, :-1], cross[:-1, -1] = product, total
    return square, cross


class ExitSums:
    """Weighted sums over tokens for the refit of an exit: per group, over the inputs that it reads and a constant."""

    def __init__(self, layout: Layout, device: torch.device) -> None:
        plan = layout.exit_linear()
        self.inputs = [len(block.columns) for block in plan.blocks]
        self.outputs = [len(block.rows) for block in plan.blocks]
        self.gather = None if plan.gather is None else torch.from_numpy(plan.gather).to(device)
        self.order = torch.from_numpy(plan.order).to(device)
        """(hidden,) outputs in the order of the groups, those in no group last"""
        self._grams = [GramSum(k, device) for k in self.inputs]
        self._products = [torch.zeros(r, k, device=device) for r, k in zip(self.outputs, self.inputs, strict=True)]
        self.total = torch.zeros(layout.shape.hidden, device=device)
        """(hidden,) of y, in `order`"""
        self.weight = torch.zeros((), device=device)

    def add(self, hidden: Tensor, target: Tensor, weights: Tensor) -> None:
        """Count (T, kept inner) inputs, as the exit reads them, and their (T, hidden) targets in the original order."""
        target = target.index_select(1, self.order) * weights[:, None]
        self.total += target.sum(dim=0)
        self.weight += weights.sum()
        if not self.inputs:
            return
        if self.gather is not None:
            hidden = hidden.index_select(1, self.gather)
        rest = len(self.order) - sum(self.outputs)
        pieces = zip(hidden.split(self.inputs, dim=1), target.split([*self.outputs, rest], dim=1), strict=False)
        for gram, product, (z, y) in zip(self._grams, self._products, pieces, strict=True):
            gram.add(z, weights)
            product.addmm_(y.T, z)

    @property
    def grams(self) -> list[Tensor]:
        """(k + 1, k + 1) per group, of z z^T"""
        return [gram.total() for gram in self._grams]

    @property
    def crosses(self) -> list[Tensor]:
        """(r, k + 1) per group, of y z^T"""
        sums = self.total.split([*self.outputs, len(self.order) - sum(self.outputs)])
        return [torch.cat([p, y[:, None]], dim=1) for p, y in zip(self._products, sums, strict=False)]


# --- solving -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def refit_entry(sub: Sublayer, pruned: PrunedSublayer, gram: Tensor, cross: Tensor) -> None:
    """Refit the entry matrices in place, group by group, to the dense outputs: B = [W b] (x x'^T)."""
    if pruned.entry is None:
        return
    weight, bias = stacked_entry(sub)
    for linear, plan in zip(pruned.entry.linears, pruned.layout.entry_linears(), strict=True):
        biases: list[Tensor] = []
        for held, block in zip(linear.weights, plan.blocks, strict=True):
            rows, inputs = on(block.rows, weight), _with_last(on(block.columns, weight), len(gram) - 1)
            dense = torch.cat([weight[rows], bias[rows, None]], dim=1)  # (r, hidden + 1)
            solution = _fit(block, dense @ cross[:, inputs], gram[inputs][:, inputs], dense[:, inputs])
            held.copy_(solution[:, :-1])
            biases.append(solution[:, -1])
        linear.bias.copy_(torch.cat(biases))


@torch.no_grad()
def refit_exit(sub: Sublayer, pruned: PrunedSublayer, sums: ExitSums) -> None:
    """Refit the exit in place, group by group; outputs in no group get their mean."""
    mean = sums.total / sums.weight
    if isinstance(pruned.exit, Constant):
        pruned.exit.bias.copy_(mean)
        return
    biases: list[Tensor] = []
    plan = pruned.layout.exit_linear()
    for held, block, gram, cross in zip(pruned.exit.weights, plan.blocks, sums.grams, sums.crosses, strict=True):
        rows, columns = on(block.rows, cross), on(block.columns, cross)
        current = torch.cat([sub.exit.weight[rows][:, columns], sub.exit.bias[rows, None]], dim=1)
        solution = _fit(block, cross, gram, current)
        held.copy_(solution[:, :-1])
        biases.append(solution[:, -1])
    pruned.exit.bias.copy_(torch.cat([*biases, mean[sum(sums.outputs) :]]))


def _fit(block: Block, cross: Tensor, gram: Tensor, current: Tensor) -> Tensor:
    return ridge(cross, gram, current, None if block.support is None else on(block.support, gram))


def _with_last(index: Tensor, last: int) -> Tensor:
    return torch.cat([index, index.new_tensor([last])])

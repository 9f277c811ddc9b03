"""Stage 2, permutation and grouping: gather the important weights of a matrix into G blocks.

Given scores S >= 0 of shape (units, columns), find G disjoint sets of units and G disjoint sets of columns, of
prescribed sizes, such that the sum of S inside the blocks is greatest. With the columns' groups fixed, placing the
units is a transportation problem, and the other way round; so we alternate two exact solutions until nothing moves,
from several starts, and keep the best. PGB (Lim, Lee, Choi, arXiv 2502.03984) fixes the goal; how it is reached is our
reading.

Several matrices that share their units (query, key, value and output by heads; both feed-forward matrices by neurons)
are grouped together: their scores stand side by side in S, and each *section* of columns is shared out by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pgb_core.layout import IntArray

FloatArray = NDArray[np.float64]

STARTS = ("greedy", "spectral", "random")


@dataclass(frozen=True, eq=False)
class Grouping:
    """`units` (u,) and `columns` (c,) hold the group of each index, 0..G-1; `kept` is the score inside the blocks."""

    units: IntArray
    columns: IntArray
    kept: float


def group(
    scores: FloatArray,
    shares: Sequence[float],
    *,
    sections: Sequence[int] | None = None,
    starts: Sequence[str] = STARTS,
    columns: IntArray | None = None,
    seed: int = 0,
    rounds: int = 30,
) -> Grouping:
    """Share out the units and the columns of `scores` among groups.

    Args:
        scores: (units, columns), non-negative.
        shares: (G,) of the units and of the columns that each group gets, adding up to 1; see `equal_shares`.
        sections: widths of the consecutive column sections that are shared out separately; default one section.
        starts: which of `STARTS` to try.
        columns: (columns,) a further start, the columns' groups of a similar problem.
        rounds: most alternations per start.

    Raises:
        ValueError: more groups than units or columns of a section.
    """
    sections = sections or [scores.shape[1]]
    if not 1 <= len(shares) <= min(scores.shape[0], *sections):
        raise ValueError(
            f"{len(shares)} groups do not fit {scores.shape[0]} units and sections of {min(sections)} columns."
        )
    first = [columns] if columns is not None else []
    first += [start_columns(name, scores, shares, sections, seed) for name in starts]
    candidates = [_alternate(scores, shares, sections, start, rounds) for start in first]
    return max(candidates, key=lambda grouping: grouping.kept)


def blocks(scores: FloatArray, grouping: Grouping) -> list[tuple[IntArray, IntArray]]:
    """(units, columns) of each group, the most important group first, in each the most important units and columns."""
    found: list[tuple[float, IntArray, IntArray]] = []
    for g in range(int(grouping.units.max()) + 1):
        units, columns = np.flatnonzero(grouping.units == g), np.flatnonzero(grouping.columns == g)
        block = scores[np.ix_(units, columns)]
        units = units[np.argsort(-block.sum(axis=1), kind="stable")]
        columns = columns[np.argsort(-block.sum(axis=0), kind="stable")]
        found.append((float(block.sum()), units, columns))
    return [(units, columns) for _, units, columns in sorted(found, key=lambda entry: -entry[0])]


def equal_shares(groups: int) -> tuple[float, ...]:
    """(groups,) equal shares.

    >>> equal_shares(2)
    (0.5, 0.5)
    """
    return (1 / groups,) * groups


def sizes(total: int, shares: Sequence[float]) -> IntArray:
    """(G,) whole sizes that add up to `total`: each at least 1, else off its share by less than one.

    >>> sizes(10, (0.75, 0.25)).tolist()
    [8, 2]
    """
    exact = np.asarray(shares) * total
    found: IntArray = np.maximum(np.floor(exact + 1e-9).astype(np.int64), 1)
    while (missing := total - int(found.sum())) != 0:  # the largest remainders first
        place = np.argmax(exact - found) if missing > 0 else np.argmin(np.where(found > 1, exact - found, np.inf))
        found[place] += np.sign(missing)
    return found


# --- the transportation problem ------------------------------------------------------------------------------------


def assign(scores: FloatArray, capacities: IntArray) -> IntArray:
    """Give each row to one group so that the sum of `scores[i, group of i]` is greatest and every group is full.

    Exact. Group prices are first set by coordinate ascent on the dual, so that few rows are left over; these move along
    shortest augmenting paths in the graph of groups, where the edge g -> h costs what the cheapest row of g loses in h.
    Any assignment to the best group at some prices is optimal for the sizes it happens to have, and an augmentation
    along a shortest path keeps that (successive shortest paths; Ahuja, Magnanti, Orlin, Network Flows, 9.7).

    Args:
        scores: (n, G).
        capacities: (G,), adding up to at most n; the remaining rows are in no group.

    Returns:
        (n,) group of each row, or -1.

    Raises:
        ValueError: the capacities add up to more than n.
    """
    n, groups = scores.shape
    rest = n - int(capacities.sum())
    if rest < 0:
        raise ValueError(f"Capacities add up to {int(capacities.sum())}, but there are only {n} rows.")
    if rest:  # "no group" is one more group, where a row scores nothing
        placed = assign(np.column_stack([scores, np.zeros(n)]), np.append(capacities, rest))
        placed[placed == groups] = -1
        return placed
    if groups == 1:
        return np.zeros(n, dtype=np.int64)

    labels: IntArray = np.argmax(scores - _prices(scores, capacities), axis=1)
    excess = np.bincount(labels, minlength=groups) - capacities
    loss = np.full((groups, groups), np.inf)
    cheapest = np.zeros((groups, groups), dtype=np.int64)
    stale = set(range(groups))
    while (excess > 0).any():
        for g in stale:
            rows = np.flatnonzero(labels == g)
            if len(rows) == 0:
                loss[g] = np.inf
                continue
            losses = scores[rows, g, None] - scores[rows]  # (rows of g, G)
            best = losses.argmin(axis=0)
            loss[g], cheapest[g] = losses[best, np.arange(groups)], rows[best]
        path = _shortest_path(loss, excess > 0, excess < 0)
        for g, h in zip(path, path[1:], strict=False):
            labels[cheapest[g, h]] = h
        excess[path[0]] -= 1
        excess[path[-1]] += 1
        stale = set(path)
    return labels


def _prices(scores: FloatArray, capacities: IntArray, sweeps: int = 6) -> FloatArray:
    """(G,) prices at which nearly `capacities[g]` rows prefer group g: set one group's price at a time, exactly."""
    n, groups = scores.shape
    prices = np.zeros(groups)
    gains = np.ascontiguousarray(scores.T)  # (G, n): numpy is several times faster along the long axis
    net = gains.copy()  # less the prices
    for _ in range(sweeps if groups > 2 else 1):
        for g in range(groups):
            net[g] = -np.inf  # what a row gains by going to g for nothing, instead of to the best other group:
            margins = gains[g] - net.max(axis=0)  # (n,)
            size = int(capacities[g])
            places = [place for place in (n - size - 1, n - size) if 0 <= place < n]
            margins.partition(places)  # the `size` rows that gain most come last
            low = margins[n - size - 1] if size < n else margins.min() - 1.0
            high = margins[n - size] if size > 0 else margins.max() + 1.0
            prices[g] = (low + high) / 2
            net[g] = gains[g] - prices[g]
    return prices


def _shortest_path(loss: FloatArray, sources: NDArray[np.bool_], targets: NDArray[np.bool_]) -> list[int]:
    """Groups on the cheapest path from any source to any target (Bellman-Ford: losses may be negative)."""
    groups = len(loss)
    distance = np.where(sources, 0.0, np.inf)
    previous = np.full(groups, -1)
    for _ in range(groups):
        through = distance[:, None] + loss
        best = through.argmin(axis=0)
        shortest = through[best, np.arange(groups)]
        # a margin against cycles of zero loss that rounding makes negative
        shorter = shortest + 1e-12 * np.abs(shortest) < distance
        if not shorter.any():
            break
        distance = np.where(shorter, shortest, distance)
        previous = np.where(shorter, best, previous)
    node = int(np.where(targets, distance, np.inf).argmin())
    path = [node]
    while previous[node] >= 0 and len(path) <= groups:
        node = int(previous[node])
        path.append(node)
    return path[::-1]


# --- alternation ---------------------------------------------------------------------------------------------------


def _alternate(
    scores: FloatArray, shares: Sequence[float], sections: Sequence[int], columns: IntArray, rounds: int
) -> Grouping:
    """Units for the columns, columns for the units, until the kept score no longer grows."""
    groups = len(shares)
    best = Grouping(np.zeros(len(scores), dtype=np.int64), columns, -np.inf)
    for _ in range(rounds):
        units = assign(scores @ one_hot(columns, groups), sizes(len(scores), shares))
        value = scores.T @ one_hot(units, groups)  # (columns, G)
        columns = _share_out(value, shares, sections)
        kept = float(value[np.arange(len(columns)), columns].sum())
        if kept <= best.kept * (1 + 1e-9):
            break
        best = Grouping(units, columns, kept)
    return best


def _share_out(value: FloatArray, shares: Sequence[float], sections: Sequence[int]) -> IntArray:
    """(columns,) groups of all columns, each section by itself, by their (columns, G) values."""
    parts = np.split(value, np.cumsum(sections)[:-1])
    return np.concatenate([assign(part, sizes(len(part), shares)) for part in parts])


def one_hot(labels: IntArray, groups: int) -> FloatArray:
    """(n, G) indicator of each group; a row of zeros for -1."""
    indicator: FloatArray = (labels[:, None] == np.arange(groups)).astype(np.float64)
    return indicator


# --- starts: each gives the columns' groups ------------------------------------------------------------------------


def start_columns(
    name: str, scores: FloatArray, shares: Sequence[float], sections: Sequence[int], seed: int = 0
) -> IntArray:
    """(columns,) groups of the columns from which the alternation begins; `name` is one of `STARTS`."""
    return _START[name](scores, shares, sections, np.random.default_rng(seed))


def _random(scores: FloatArray, shares: Sequence[float], sections: Sequence[int], rng: np.random.Generator) -> IntArray:
    parts = [rng.permutation(np.repeat(np.arange(len(shares)), sizes(size, shares))) for size in sections]
    return np.concatenate(parts)


def _greedy(scores: FloatArray, shares: Sequence[float], sections: Sequence[int], rng: np.random.Generator) -> IntArray:
    """Group sort (after Zhao and Luk, arXiv 1811.09341): sort columns by their sum over a group's rows and rows by
    their sum over the group's columns, in turn; peel the group off; repeat with what is left.
    """
    labels = np.full(scores.shape[1], -1, dtype=np.int64)
    free = np.ones(len(scores), dtype=bool)
    starts = np.cumsum([0, *sections])
    for g, size in enumerate(sizes(len(scores), shares)):
        rows = _largest(scores.sum(axis=1), free, int(size))
        chosen = np.empty(0, dtype=np.int64)
        for _ in range(5):
            total = scores[rows].sum(axis=0)
            chosen = np.concatenate(
                [
                    a + _largest(total[a:b], labels[a:b] < 0, int(sizes(b - a, shares)[g]))
                    for a, b in zip(starts, starts[1:], strict=False)
                ]
            )
            rows = _largest(scores[:, chosen].sum(axis=1), free, int(size))
        labels[chosen] = g
        free[rows] = False
    return labels


def _largest(value: FloatArray, allowed: NDArray[np.bool_], count: int) -> IntArray:
    order = np.argsort(-np.where(allowed, value, -np.inf), kind="stable")
    return order[:count]


def _spectral(
    scores: FloatArray, shares: Sequence[float], sections: Sequence[int], rng: np.random.Generator
) -> IntArray:
    """Co-clustering (Dhillon, KDD 2001): the leading singular vectors of the normalized scores tell columns that share
    rows; the clusters, which may be of any size, then get their prescribed sizes by `assign`.
    """
    from sklearn.cluster import KMeans

    u = 1 / np.sqrt(scores.sum(axis=1) + 1e-12 * scores.sum() + 1e-300)
    v = 1 / np.sqrt(scores.sum(axis=0) + 1e-12 * scores.sum() + 1e-300)
    normalized = u[:, None] * scores * v
    _, vectors = np.linalg.eigh(_smaller_gram(normalized))
    groups = len(shares)
    lead = vectors[:, ::-1][:, 1 : groups + 1]
    if normalized.shape[0] < normalized.shape[1]:
        lead = normalized.T @ lead  # left singular vectors to right ones, up to scale
    lead = v[:, None] * lead
    lead = lead / (np.linalg.norm(lead, axis=0) + 1e-300)
    kmeans = KMeans(groups, n_init=1, random_state=int(rng.integers(2**31))).fit(lead)
    distance = kmeans.transform(lead) ** 2  # (columns, G)
    return _share_out(-distance, shares, sections)


def _smaller_gram(x: FloatArray) -> FloatArray:
    return x @ x.T if x.shape[0] < x.shape[1] else x.T @ x


_START: dict[str, Callable[[FloatArray, Sequence[float], Sequence[int], np.random.Generator], IntArray]] = {
    "greedy": _greedy,
    "spectral": _spectral,
    "random": _random,
}

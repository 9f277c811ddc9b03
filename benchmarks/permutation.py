"""Permutation quality: the importance that our grouping keeps, against each start alone and against an upper bound.

    python -m benchmarks.permutation [--quick] [--tries] [--out benchmarks/results/permutation.json]

Real matrices are the importance of the demo checkpoints' weights (`planning.score` on 128 samples): query, intermediate
and both outputs of some layers, and what a tied grouping sees, `options.unit_scores`. Planted ones have G blocks that
are `contrast` times as important as the rest, times noise; 3072 x 768 is BERT-base's feed-forward.

A start alone is its columns with the rows assigned to them once, exactly (which flatters it). The upper bound is the
smallest of several that hold for every grouping (`upper_bound`). Shares are of the whole importance; times are seconds
of one thread. `--tries` measures what did not get in: more random starts, perturbed restarts, a smoothed start.
Prints means over the matrices of a kind; OUT holds every one. Matrices that OUT has are not measured again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from pgb_core.grouping import STARTS, FloatArray, Grouping, assign, equal_shares, group, one_hot, sizes, start_columns

GROUPS = (2, 4, 6, 12)
TASKS = ("bbc-news", "tweets")
LAYERS = (0, 3, 5)
CALIBRATION = 128
CONTRASTS = (10.0, 3.0, 1.5, 1.0)


@dataclass(frozen=True, eq=False)
class Matrix:
    """Scores to be grouped; `kind` is what the table averages over, `groups` the numbers of groups to try."""

    kind: str
    name: str
    scores: FloatArray
    sections: tuple[int, ...]
    groups: tuple[int, ...] = GROUPS


# --- matrices ------------------------------------------------------------------------------------------------------


def real_matrices(task: str, layers: Sequence[int]) -> Iterator[Matrix]:
    """The importance of the demo checkpoint's matrices, and of its units."""
    from pgb_core.options import unit_scores
    from pgb_core.planning import score
    from pgb_core.progress import silent
    from pgb_core.shared import calibration_of, load
    from pgb_core.spec import PruneSpec

    spec = PruneSpec("demo", task, 0.5, calibration_samples=CALIBRATION, device="cpu")
    loaded = load(spec, silent)
    scores = score(loaded.model, calibration_of(spec, loaded))
    for sub, importance in zip(scores.sublayers, scores.importance, strict=True):
        if sub.layer not in layers:
            continue
        half = sub.shape.kind.replace("_", "-")
        name = f"{task}, layer {sub.layer + 1}"
        for matrix in ("query", "intermediate", "output"):
            if matrix in importance:
                values = importance[matrix].double().cpu().numpy()
                kind = f"{half} {matrix} {values.shape[0]} x {values.shape[1]}"
                yield Matrix(kind, name, values, (values.shape[1],))
        units = unit_scores(sub.shape, importance)
        yield Matrix(f"{half} units {units.shape[0]} x {units.shape[1]}", name, units, (sub.shape.hidden,) * 2)


def planted_matrices(shape: tuple[int, int], contrasts: Sequence[float]) -> Iterator[Matrix]:
    """Blocks planted under heavy-tailed noise (log-normal, standard deviation 1 of the logarithm)."""
    rng = np.random.default_rng(0)
    for contrast in contrasts:
        for groups in GROUPS:
            rows, columns = (rng.permutation(np.repeat(np.arange(groups), size // groups)) for size in shape)
            scores = np.where(rows[:, None] == columns, contrast, 1.0) * rng.lognormal(0, 1, shape)
            kind = f"planted, contrast {contrast:g}, {shape[0]} x {shape[1]}"
            yield Matrix(kind, f"{groups} blocks", scores, (shape[1],), (groups,))


# --- upper bounds --------------------------------------------------------------------------------------------------


def upper_bound(scores: FloatArray, groups: int, sections: Sequence[int]) -> float:
    """No grouping into `groups` equal groups keeps more.

    With S = A + B, a bound on A plus one on B bounds S. What is above a threshold is bounded by the number of blocks a
    row and a column can be in (`degree_bound`), the bulk below by its singular values (`spectral_bound`); the best of
    some thresholds counts.
    """
    thresholds = [0.0, *np.quantile(scores, (0.5, 0.9, 0.97, 0.99, 0.999)), float(scores.max())]
    return min(
        spectral_bound(np.minimum(scores, t), groups) + degree_bound(np.maximum(scores - t, 0), groups, sections)
        for t in thresholds
    )


def spectral_bound(scores: FloatArray, groups: int) -> float:
    """Sum of S over G, plus sqrt(n m) times the G - 1 largest singular values of the centred S, for n x m blocks.

    The indicators of the groups, their mean taken off, are orthogonal but for one direction, of length sqrt(n) and
    sqrt(m); then von Neumann's trace inequality.
    """
    rows, columns = scores.shape
    centred = scores - scores.mean(axis=0) - scores.mean(axis=1, keepdims=True) + scores.mean()
    gram = centred @ centred.T if rows < columns else centred.T @ centred
    largest = np.sqrt(np.maximum(np.linalg.eigvalsh(gram)[::-1][: groups - 1], 0))
    return float(scores.sum() / groups + np.sqrt(rows * columns) / groups * largest.sum())


def degree_bound(scores: FloatArray, groups: int, sections: Sequence[int], steps: int = 25) -> float:
    """The most that a choice of weights holds, 1/G of each row's (in every section) and of each column's.

    By Lagrange multipliers, prices of the columns, each row is left to take its best: a bound at any prices; these are
    improved by subgradient steps. The same with rows and columns exchanged, for one section.
    """
    if not scores.any():
        return 0.0
    best = _priced_rows(scores, groups, sections, steps)
    return min(best, _priced_rows(scores.T, groups, [len(scores)], steps)) if len(sections) == 1 else best


def _priced_rows(scores: FloatArray, groups: int, sections: Sequence[int], steps: int) -> float:
    capacity = len(scores) / groups
    prices, best = np.zeros(scores.shape[1]), np.inf
    edges = np.cumsum([0, *sections])
    for step in range(steps):
        value = np.maximum(scores - prices, 0)
        bound, taken = capacity * prices.sum(), np.zeros(len(prices))
        for a, b in zip(edges, edges[1:], strict=False):
            quota = (b - a) // groups
            part = value[:, a:b]
            least = np.partition(part, b - a - quota, axis=1)[:, b - a - quota, None]
            chosen = (part >= least) & (part > 0)
            bound += float(np.partition(part, b - a - quota, axis=1)[:, b - a - quota :].sum())
            taken[a:b] = chosen.sum(axis=0)
        best = min(best, bound)
        excess = taken - capacity
        excess[(prices == 0) & (excess < 0)] = 0
        if not excess.any():
            break
        size = 0.3 * best / (1 + step) / float((excess**2).sum())  # Polyak's step, towards a part of the bound
        prices = np.maximum(prices + size * excess, 0)
    return best


# --- what else could be done ---------------------------------------------------------------------------------------


def more_random_starts(scores: FloatArray, shares: Sequence[float], sections: Sequence[int]) -> Grouping:
    """The default's starts and seven more random ones."""
    found = [group(scores, shares, sections=sections)]
    found += [group(scores, shares, sections=sections, starts=["random"], seed=seed) for seed in range(1, 8)]
    return max(found, key=lambda grouping: grouping.kept)


def perturbed(scores: FloatArray, shares: Sequence[float], sections: Sequence[int]) -> Grouping:
    """The default's result with a fifth of the columns shuffled within their section, alternated anew, five times."""
    rng = np.random.default_rng(0)
    best = group(scores, shares, sections=sections)
    edges = np.cumsum([0, *sections])
    for _ in range(5):
        columns = best.columns.copy()
        for a, b in zip(edges, edges[1:], strict=False):
            some = a + rng.choice(b - a, (b - a) // 5, replace=False)
            columns[some] = columns[rng.permutation(some)]
        best = max(
            best, group(scores, shares, sections=sections, starts=(), columns=columns), key=lambda found: found.kept
        )
    return best


def smoothed(scores: FloatArray, shares: Sequence[float], sections: Sequence[int]) -> Grouping:
    """The default, and a start from the grouping of the square roots, then of their powers of 3/2."""
    columns = group(np.sqrt(scores), shares, sections=sections, starts=["spectral"]).columns
    columns = group(scores**0.75, shares, sections=sections, starts=(), columns=columns).columns
    return group(scores, shares, sections=sections, columns=columns)


TRIES: dict[str, Callable[[FloatArray, Sequence[float], Sequence[int]], Grouping]] = {
    "8 random starts": more_random_starts,
    "perturbed": perturbed,
    "smoothed": smoothed,
}


# --- measuring -----------------------------------------------------------------------------------------------------


def measure(matrix: Matrix, groups: int, tries: bool) -> dict[str, Any]:
    """Kept shares and CPU seconds by name."""
    scores, sections, shares = matrix.scores, matrix.sections, equal_shares(groups)
    total = float(scores.sum())
    kept: dict[str, float] = {"bound": upper_bound(scores, groups, sections) / total}
    seconds: dict[str, float] = {}

    def timed(name: str, function: Callable[[], float]) -> None:
        started = time.process_time()
        kept[name] = function() / total
        seconds[name] = time.process_time() - started

    def alone(start: str) -> float:
        columns = start_columns(start, scores, shares, sections)
        value = scores @ one_hot(columns, groups)
        return float(value[np.arange(len(scores)), assign(value, sizes(len(scores), shares))].sum())

    for start in STARTS:
        timed(start, lambda start=start: alone(start))
        timed(f"{start} +", lambda start=start: group(scores, shares, sections=sections, starts=[start]).kept)
    timed("ours", lambda: group(scores, shares, sections=sections).kept)
    for name, function in TRIES.items() if tries else ():
        timed(name, lambda function=function: function(scores, shares, sections).kept)
    return {"kept": kept, "seconds": seconds}


def table(found: dict[str, dict[str, Any]]) -> list[list[str]]:
    """Rows of means over the matrices of a kind, the head first; a time in brackets behind each share."""
    names = list(dict.fromkeys(name for entry in found.values() for name in entry["kept"]))
    rows = [["scores", "G", *names]]
    for kind, groups in dict.fromkeys((entry["kind"], entry["groups"]) for entry in found.values()):
        entries = [e for e in found.values() if (e["kind"], e["groups"]) == (kind, groups)]
        cells = []
        for name in names:
            kept = [e["kept"][name] for e in entries if name in e["kept"]]
            seconds = [e["seconds"][name] for e in entries if name in e["seconds"]]
            time_ = f" ({np.mean(seconds):.2f} s)" if seconds else ""
            cells.append(f"{np.mean(kept):.2%}{time_}" if kept else "")
        rows.append([kind, str(groups), *cells])
    return rows


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """`rows`, the first the head, as a Markdown table."""
    lines = ["| " + " | ".join(cells) + " |" for cells in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])


def matrices(quick: bool) -> Iterator[Matrix]:
    """All that are measured; with `quick` those of one layer and one task, and planted ones of half the size."""
    yield from planted_matrices((384, 384), CONTRASTS)
    if not quick:
        yield from planted_matrices((3072, 768), (3.0, 1.0))
    for task in TASKS[: 1 if quick else None]:
        yield from real_matrices(task, LAYERS[1 : 2 if quick else None] if quick else LAYERS)


def main() -> None:
    """Measure what OUT lacks, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="one layer of one task, and small planted matrices")
    parser.add_argument("--tries", action="store_true", help="measure improvements that did not get in, too")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/permutation.json"))
    given = parser.parse_args()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, Any]] = json.loads(given.out.read_text(encoding="utf-8")) if given.out.exists() else {}
    with threadpool_limits(limits=1):
        for matrix in matrices(given.quick):
            for groups in matrix.groups:
                key = f"{matrix.kind}; {matrix.name}; {groups} groups" + "; tries" * given.tries
                if key in found:
                    continue
                found[key] = {"kind": matrix.kind, "groups": groups, **measure(matrix, groups, given.tries)}
                given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(markdown(table(found)))


if __name__ == "__main__":
    main()

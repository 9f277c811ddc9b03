"""Arguments that several commands of the command line have in common, and the types of their values."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pgb_core.spec import BUDGETS, DEVICES, IMPORTANCES, METHODS


def add_data_arguments(sub: argparse.ArgumentParser, *, evaluates: bool = True, several: bool = False) -> None:
    """What is loaded: checkpoint, task, files, and how much of the evaluation split where there is one to score.

    Of checkpoints and tasks there may be `several`: then the arguments are lists.
    """
    from pgb_core.tasks import TASKS

    many: dict[str, Any] = {"nargs": "+", "action": "extend"} if several else {}
    hint = "; several: each of them" if several else ""
    sub.add_argument("--checkpoint", required=True, help=f"'demo', a folder or a Hub id owner/name{hint}", **many)
    sub.add_argument("--task", required=True, choices=TASKS, help=f"the dataset and its metric{hint}", **many)
    sub.add_argument("--train-file", help="CSV, Parquet or JSONL with columns text[,text_pair],label (task csv)")
    sub.add_argument("--eval-file", help="the same to evaluate on; without it a fifth of the training file is held out")
    sub.add_argument("--text-column", metavar="NAME", help="column of the file with the text (default: text)")
    sub.add_argument(
        "--pair-column",
        metavar="NAME",
        help="column with a second text (default: text_pair, if there is one; an empty name: none)",
    )
    sub.add_argument("--label-column", metavar="NAME", help="column with the label (default: label)")
    sub.add_argument(
        "--label-map",
        metavar="VALUE=LABEL",
        action="append",
        default=[],
        help="which of the checkpoint's labels a value of the label column stands for, where it is not its name; may "
        "be repeated",
    )
    if evaluates:
        sub.add_argument("--eval-samples", type=positive, help="evaluation examples to use (default: all)")
    sub.add_argument("--max-length", type=positive, help="tokens per sequence (default: the task's)")
    add_device(sub)


def add_seed(sub: argparse.ArgumentParser) -> None:
    """The one seed of a run."""
    sub.add_argument("--seed", type=int, default=0, help="seed of everything random (default: 0)")


def add_scoring_arguments(sub: argparse.ArgumentParser) -> None:
    """How weights are scored, beside the data."""
    scores = "; ".join(f"{name}: {sentence}" for name, sentence in IMPORTANCES.items())
    sub.add_argument(
        "--importance", choices=IMPORTANCES, default="compensated", help=f"{scores} (default: %(default)s)"
    )
    sub.add_argument(
        "--calibration-samples", type=int, default=1024, help="training samples to look at (default: 1024)"
    )


def add_pruning_arguments(sub: argparse.ArgumentParser) -> None:
    """What a run and all the runs of a sweep take, beside their data."""
    add_scoring_arguments(sub)
    units = "; ".join(f"{name}: {sentence}" for name, sentence in BUDGETS.items())
    sub.add_argument("--budget", choices=BUDGETS, default="weights", help=f"{units} (default: %(default)s)")
    sub.add_argument("--min-groups", type=positive, help="fewest groups of a grouped sublayer, at least 2")
    sub.add_argument("--max-groups", type=positive, help="most groups of a grouped sublayer")
    sub.add_argument(
        "--pin",
        dest="pins",
        metavar="SUBLAYER[:N]",
        action="append",
        default=[],
        help="never drop a sublayer (0.attention), or keep at least N of its heads or neurons (3.feed_forward:64); "
        "layers count from 0; may be repeated",
    )
    sub.add_argument("--latency", action=argparse.BooleanOptionalAction, default=True, help="measure latency, or not")
    sub.add_argument(
        "--latency-grid",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="measure latency for batches of 1, 8 and 32, lengths 32, 128 and 384",
    )
    sub.add_argument("--queued", action="store_true", help=argparse.SUPPRESS)  # --out was made by jobs.submit


def add_sweep_arguments(sub: argparse.ArgumentParser) -> None:
    """The values of each field in which the points of a sweep differ."""
    sub.add_argument(
        "--sparsities", type=list_of(float, "number"), required=True, metavar="S[,S...]", help="targets, in [0, 1)"
    )
    sub.add_argument(
        "--methods",
        type=list_of(str, "name"),
        default=("pgb",),
        metavar="M[,M...]",
        help=f"of {', '.join(METHODS)} (default: pgb)",
    )
    sub.add_argument(
        "--recover-epochs",
        type=list_of(int, "whole number"),
        default=(0,),
        metavar="N[,N...]",
        help="epochs of re-finetuning; 0,2 makes every point without and with it (default: 0)",
    )
    sub.add_argument(
        "--seeds", type=list_of(int, "whole number"), default=(0,), metavar="N[,N...]", help="seeds (default: 0)"
    )
    sub.add_argument("--out", type=Path, required=True, help="folder to write; a sweep in it is taken up again")
    sub.add_argument("--shard", metavar="I/N", help="make the I-th of N parts only, on this machine; from 1/N to N/N")
    sub.add_argument("--part", type=Path, help=argparse.SUPPRESS)  # made by jobs.submit_sweep, for one that helps


def add_worker_arguments(sub: argparse.ArgumentParser) -> None:
    """What a worker is told."""
    sub.add_argument(
        "--device", choices=DEVICES, default="auto", help="where to compute runs that leave it open (default: auto)"
    )
    sub.add_argument("--jobs", type=positive, help="runs at once (default: PGB_MAX_RUNNING_JOBS)")
    sub.add_argument("--lock", type=int, help=argparse.SUPPRESS)  # by embedded.attend


def add_device(sub: argparse.ArgumentParser) -> None:
    """Where to compute."""
    sub.add_argument("--device", choices=DEVICES, default="auto", help="where to compute (default: auto)")


def positive(text: str) -> int:
    """A whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def list_of(kind: Callable[[str], Any], noun: str) -> Callable[[str], tuple[Any, ...]]:
    """The type of an argument that is several values with commas between them."""

    def parse(text: str) -> tuple[Any, ...]:
        return tuple(kind(part.strip()) for part in text.split(","))

    parse.__name__ = noun  # as for `positive`
    return parse


def positives(text: str) -> list[int]:
    """Several of them, with commas between."""
    return [positive(part) for part in text.split(",")]


positive.__name__ = positives.__name__ = (
    "whole number"  # argparse calls a value that does not parse an "invalid <name> value"
)

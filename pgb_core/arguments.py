"""What the commands of the command line are told: their arguments and the types of their values."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from pgb_core import __version__
from pgb_core.export import FORMATS
from pgb_core.spec import BUDGETS, DEVICES, IMPORTANCES, METHODS, RUNTIMES

USER_ERROR = 2
"""Exit code of what a user can cause."""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, like all others."""

    def error(self, message: str) -> NoReturn:
        self.exit(USER_ERROR, f"pgb: {message} (help: {self.prog} --help)\n")


def make_parser(commands: Mapping[str, Callable[..., object]]) -> argparse.ArgumentParser:
    """The parser of `commands`, whose functions are `args.run`."""
    parser = _Parser(prog="python -m pgb_core", description="Prune BERT by permutation and grouping (PGB).")
    parser.add_argument("--version", action="version", version=f"pgb_core {__version__}")
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, run in commands.items():
        sentence, add = _COMMANDS[name]
        sub = subparsers.add_parser(name, help=sentence, description=sentence, allow_abbrev=False)
        sub.add_argument("--json", action="store_true", help="print one JSON document on stdout and nothing else")
        sub.set_defaults(run=run)
        add(sub)
    return parser


# --- the commands --------------------------------------------------------------------------------------------------


def _add_demo(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--task", default="bbc-news", help="task to fine-tune it on (default: %(default)s)")


def _add_prune(sub: argparse.ArgumentParser) -> None:
    _add_data(sub)
    _add_seed(sub)
    sub.add_argument("--sparsity", type=float, required=True, help="share of the encoder weights to remove, in [0, 1)")
    sub.add_argument("--out", type=Path, required=True, help="run folder to write")
    methods = "; ".join(f"{name}: {sentence}" for name, sentence in METHODS.items())
    sub.add_argument("--method", choices=METHODS, default="pgb", help=f"{methods} (default: %(default)s)")
    sub.add_argument(
        "--recover-epochs", type=int, default=0, help="epochs of re-finetuning after the refit (default: 0)"
    )
    _add_pruning(sub)


def _add_sweep(sub: argparse.ArgumentParser) -> None:
    _add_data(sub, several=True)
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
    _add_pruning(sub)


def _add_score(sub: argparse.ArgumentParser) -> None:
    _add_data(sub, evaluates=False)
    _add_seed(sub)
    _add_scoring(sub)
    sub.add_argument(
        "--latency",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="measure the latency table as well, or not",
    )
    sub.add_argument("--again", action="store_true", help="score and measure anew what is there already")
    sub.add_argument("--out", type=Path, help=argparse.SUPPRESS)  # made by jobs.submit
    sub.add_argument("--queued", action="store_true", help=argparse.SUPPRESS)


def _add_finetune(sub: argparse.ArgumentParser) -> None:
    _add_data(sub, evaluates=False)
    _add_seed(sub)
    sub.add_argument("--epochs", type=positive, default=3, help="epochs of training (default: %(default)s)")
    sub.add_argument("--learning-rate", type=float, help="peak of the learning rate (default: by the hidden size)")
    sub.add_argument("--out", type=Path, required=True, help="folder to write, a new one")
    sub.add_argument("--run", dest="job", type=Path, help=argparse.SUPPRESS)  # made by jobs.submit_finetune
    sub.add_argument("--queued", action="store_true", help=argparse.SUPPRESS)


def _add_evaluate(sub: argparse.ArgumentParser) -> None:
    _add_data(sub)
    _add_seed(sub)


def _add_latency(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--checkpoint", required=True, help="'demo', a folder or a Hub id owner/name")
    sub.add_argument("--against", help="dense checkpoint to compare with (default: itself, which shows the noise)")
    sub.add_argument("--task", default="bbc-news", help="which demo checkpoint 'demo' means (default: %(default)s)")
    for flag, default, what in (("--batch", 8, "sequences at a time"), ("--length", 128, "tokens per sequence")):
        text = f"{what}, one number or several (default: {default})"
        sub.add_argument(flag, type=positives, metavar="N[,N...]", default=[default], help=text)
    sub.add_argument("--threads", type=positive, help="CPU threads (default: all cores)")
    sub.add_argument("--runtime", choices=RUNTIMES, default="torch", help="what runs the models (default: %(default)s)")
    _add_device(sub)


def _add_export(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--run", dest="source", type=Path, required=True, help="a run folder, or the folder of a model")
    formats = "; ".join(f"{name}: {sentence}" for name, sentence in FORMATS.items())
    sub.add_argument("--format", choices=FORMATS, required=True, help=formats)
    sub.add_argument("--out", type=Path, required=True, help="folder to write, new or empty")


def _add_worker(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--device", choices=DEVICES, default="auto", help="where to compute runs that leave it open (default: auto)"
    )
    sub.add_argument("--jobs", type=positive, help="runs at once (default: PGB_MAX_RUNNING_JOBS)")
    sub.add_argument("--lock", type=int, help=argparse.SUPPRESS)  # by embedded.attend


def _add_runs(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("action", nargs="?", choices=("list", "show", "delete"), default="list")
    sub.add_argument("id", nargs="?", help="the run to show or delete")


_COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "demo": ("Fetch and fine-tune the demo checkpoint once; prints its folder.", _add_demo),
    "prune": ("Prune a checkpoint and measure what came out.", _add_prune),
    "sweep": ("Prune checkpoints to many targets by many methods; what they share is done once.", _add_sweep),
    "score": ("Score a checkpoint once, so that the What if page can try any target on it.", _add_score),
    "finetune": ("Train an encoder with a new head on a task; what comes out can be pruned.", _add_finetune),
    "evaluate": ("Score a dense or pruned checkpoint; prints the score as JSON.", _add_evaluate),
    "latency": ("Measure the latency of a dense or pruned checkpoint.", _add_latency),
    "export": ("Write the model of a run as a folder that works without this package.", _add_export),
    "worker": ("Compute the runs that wait in the runs folder, until Ctrl-C.", _add_worker),
    "runs": ("List, show or delete the runs that the dashboard keeps.", _add_runs),
}


# --- what several of them have in common ---------------------------------------------------------------------------


def _add_data(sub: argparse.ArgumentParser, *, evaluates: bool = True, several: bool = False) -> None:
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
    _add_device(sub)


def _add_seed(sub: argparse.ArgumentParser) -> None:
    """The one seed of a run."""
    sub.add_argument("--seed", type=int, default=0, help="seed of everything random (default: 0)")


def _add_scoring(sub: argparse.ArgumentParser) -> None:
    """How weights are scored, beside the data."""
    scores = "; ".join(f"{name}: {sentence}" for name, sentence in IMPORTANCES.items())
    sub.add_argument(
        "--importance", choices=IMPORTANCES, default="compensated", help=f"{scores} (default: %(default)s)"
    )
    sub.add_argument(
        "--calibration-samples", type=int, default=1024, help="training samples to look at (default: 1024)"
    )


def _add_pruning(sub: argparse.ArgumentParser) -> None:
    """What a run and all the runs of a sweep take, beside their data."""
    _add_scoring(sub)
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


def _add_device(sub: argparse.ArgumentParser) -> None:
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

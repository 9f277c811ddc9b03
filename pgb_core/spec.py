"""PruneSpec: what to prune, how far and with what. Validated once, when it is made; no stage checks it again."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from pgb_core.constraints import Constraints, Pin
from pgb_core.data_files import Columns
from pgb_core.errors import SpecError
from pgb_core.settings import get_settings

METHODS: dict[str, str] = {
    "pgb": "Permutation and grouping: heads and neurons are gathered into groups that each read and write only "
    "a part of the hidden state.",
    "pgb-mixed": "As pgb, but heads and neurons may also be kept whole: the better of groups and of classical "
    "structured pruning, sublayer by sublayer.",
    "structured": "Classical structured pruning with the same scores, prices and refit: whole heads and neurons, "
    "no groups.",
    "pgb-paper": "PGB as its summaries tell it: every matrix is permuted on its own into equal groups "
    "(Lim et al., 2025).",
    "magnitude": "Zeros where the weights are smallest, wherever they are: nothing gets faster (Han et al., 2015).",
    "heads-neurons": "Heads and neurons with the lowest Fisher scores go, then our refit (Michel et al., 2019).",
    "kwon": "Mask search by Fisher information, rearranged, and mask tuning (Kwon et al., 2022).",
    "kprune": "Bottom-up, with new scores for each sublayer and its output fitted anew (Park et al., 2024).",
}
"""Methods by name, each with the sentence that `--help` and the app show."""
BASELINES = ("magnitude", "heads-neurons", "kwon", "kprune")
"""Methods of others that we are compared with. They choose by rules of their own and know no constraints."""

DEVICES = ("auto", "cpu", "cuda")
RUNTIMES = ("torch", "onnxruntime")
"""What may run the models whose latency is measured."""
IMPORTANCES: dict[str, str] = {
    "compensated": "Optimal-brain-surgeon score of a weight, after the other weights have made up for its loss.",
    "fisher": "Fisher score of a weight, with the other weights held fixed.",
}
BUDGETS: dict[str, str] = {
    "weights": "Share of the encoder's weights to remove.",
    "flops": "Share of the encoder's FLOPs to remove, for one sequence of 128 tokens.",
}
"""What the sparsity is a share of."""


@dataclass(frozen=True)
class PruneSpec:
    """One pruning run.

    >>> PruneSpec(checkpoint="demo", task="bbc-news", sparsity=0.5).density
    0.5

    Raises:
        SpecError: a value is out of range; the message names the field and the allowed range.
    """

    checkpoint: str
    """`demo`, a folder, or a Hub id `owner/name`."""
    task: str
    """A name of `tasks.TASKS`, for instance `bbc-news`, `csv` or `sst2`."""
    sparsity: float
    """Share of the encoder weights (or of what `budget` says) to remove, in [0, 1)."""
    method: str = "pgb"
    importance: str = "compensated"
    recover_epochs: int = 0
    """Epochs of ordinary re-finetuning after the refit; 0 skips recovery."""
    seed: int = 0
    device: str = "auto"
    train_file: str | None = None
    eval_file: str | None = None
    text_column: str | None = None
    """Column of a file with the text; None: `text`."""
    pair_column: str | None = None
    """Column with a second text; None: `text_pair`, if there is one; empty: none."""
    label_column: str | None = None
    """Column with the label; None: `label`."""
    label_map: tuple[str, ...] = ()
    """What values of the label column stand for, where that is not their name: `VALUE=LABEL`."""
    calibration_samples: int = 1024
    eval_samples: int | None = None
    """Evaluation examples to use; None takes all of them."""
    max_length: int | None = None
    """Tokens per sequence; None takes the task's own default."""
    latency: bool = True
    """Whether to measure the latency of the dense and the pruned model, for 8 sequences of 128 tokens."""
    latency_grid: bool = False
    """Whether to measure it for batches of 1, 8 and 32 sequences of 32, 128 and 384 tokens."""
    budget: str = "weights"
    """`weights` or `flops`: what the sparsity is a share of."""
    min_groups: int | None = None
    """Fewest groups of a grouped sublayer; dropped, untouched and rectangular ones are not grouped."""
    max_groups: int | None = None
    """Most groups of a grouped sublayer."""
    pins: tuple[str, ...] = ()
    """Sublayers that are never dropped (`0.attention`) or keep so many heads or neurons (`3.attention:4`)."""

    def __post_init__(self) -> None:
        limits = get_settings()
        check_evaluation(
            checkpoint=self.checkpoint,
            task=self.task,
            train_file=self.train_file,
            eval_file=self.eval_file,
            eval_samples=self.eval_samples,
            max_length=self.max_length,
            device=self.device,
            seed=self.seed,
            columns=self.columns,
        )
        _require(
            0.0 <= self.sparsity < 1.0, f"sparsity {self.sparsity} is not in [0, 1); 0.5 removes half the weights."
        )
        _require(self.method in METHODS, f"unknown method {self.method!r}; choose one of {', '.join(METHODS)}.")
        _require(
            self.importance in IMPORTANCES,
            f"unknown importance {self.importance!r}; choose one of {', '.join(IMPORTANCES)}.",
        )
        _in_range("recover epochs", self.recover_epochs, 0, limits.max_recover_epochs, "PGB_MAX_RECOVER_EPOCHS")
        _require(self.budget in BUDGETS, f"unknown budget {self.budget!r}; choose one of {', '.join(BUDGETS)}.")
        low, high = self.min_groups, self.max_groups
        _require(low is None or low >= 2, f"min groups {low} must be at least 2; one group is no grouping.")
        _require(high is None or high >= (low or 2), f"max groups {high} must be at least {low or 2}.")
        object.__setattr__(self, "label_map", tuple(self.label_map))
        # one form for all: JSON has lists, and a pin can be written in several ways
        object.__setattr__(self, "pins", tuple(str(Pin.parse(text)) for text in self.pins))
        if self.method in BASELINES:
            given = low is not None or high is not None or bool(self.pins)
            _require(not given, f"method {self.method} knows neither pins nor limits on groups; leave them out.")
            _require(
                self.method != "magnitude" or self.budget == "weights",
                "zeros leave the FLOPs as they are; use budget weights with method magnitude.",
            )
        samples, most = self.calibration_samples, limits.max_calibration_samples
        _in_range("calibration samples", samples, 8, most, "PGB_MAX_CALIBRATION_SAMPLES")

    @property
    def density(self) -> float:
        """Share of the encoder weights to keep."""
        return 1.0 - self.sparsity

    @property
    def columns(self) -> Columns:
        """What the columns of the files hold."""
        return Columns(self.text_column, self.pair_column, self.label_column, tuple(self.label_map))

    @property
    def constraints(self) -> Constraints:
        """What every choice of options must meet."""
        return Constraints(self.min_groups, self.max_groups, tuple(Pin.parse(text) for text in self.pins))

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return {**asdict(self), "pins": list(self.pins), "label_map": list(self.label_map)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PruneSpec:
        """The spec in `values`; keys that are not fields of a spec (what a run recorded beside it) are ignored."""
        names = {item.name for item in fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in names})


def check_evaluation(
    *,
    checkpoint: str,
    task: str,
    train_file: str | None,
    eval_file: str | None,
    eval_samples: int | None,
    max_length: int | None,
    device: str,
    seed: int,
    columns: Columns | None = None,
) -> None:
    """What scoring a checkpoint on a task takes, on its own (`evaluate`) and within a run.

    Raises:
        SpecError: a value is out of range; the message names it and the allowed range.
    """
    _require(bool(checkpoint.strip()), "checkpoint is empty; give 'demo', a folder or a Hub id.")
    _require(device in DEVICES, f"unknown device {device!r}; choose one of {', '.join(DEVICES)}.")
    _require(0 <= seed < 2**31, f"seed {seed} is not in 0..2147483647.")
    if eval_samples is not None:
        _require(eval_samples >= 1, f"eval samples {eval_samples} must be at least 1.")
    if max_length is not None:
        _in_range("max length", max_length, 8, get_settings().max_length, "PGB_MAX_LENGTH")
    if task == "csv":
        _require(train_file is not None, "task csv needs --train-file with columns text[,text_pair],label.")
    else:
        _require(
            train_file is None and eval_file is None,
            f"--train-file and --eval-file belong to task csv, not to {task!r}.",
        )
        _require(
            columns in (None, Columns()),
            f"names of columns and --label-map belong to files of task csv, not to {task!r}.",
        )


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise SpecError(message)


def _in_range(name: str, value: int, low: int, high: int, setting: str) -> None:
    """`high` is what the server's `setting` allows."""
    advice = "." if value < low else f"; take fewer, or raise {setting}."
    _require(low <= value <= high, f"{name} {value} is not in {low}..{high}{advice}")

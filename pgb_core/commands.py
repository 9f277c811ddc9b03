"""Command lines of the processes that runs are: from a spec, or from the folder of a run that waits."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

from pgb_core import store
from pgb_core.finetune_spec import FinetuneSpec
from pgb_core.settings import get_settings
from pgb_core.spec import PruneSpec
from pgb_core.sweep_spec import AXES, SweepSpec, read_sweep

_PACKAGE_PARENT = Path(__file__).resolve().parent.parent
SCORE_FIELDS = (
    *("checkpoint", "task", "importance", "seed", "device", "train_file", "eval_file"),
    *("text_column", "pair_column", "label_column", "label_map"),
    *("calibration_samples", "max_length", "latency"),
)
"""Fields of a spec that decide what a scoring finds; `latency`: whether it measures the latency table as well."""


def prune_arguments(spec: PruneSpec) -> list[str]:
    """`spec` as arguments of `python -m pgb_core prune`.

    >>> prune_arguments(PruneSpec("demo", "bbc-news", 0.5))[:3]
    ['--checkpoint=demo', '--task=bbc-news', '--sparsity=0.5']
    """
    return _arguments(spec, [item.name for item in fields(spec)])


def score_arguments(spec: PruneSpec) -> list[str]:
    """What of `spec` a scoring depends on, as arguments of `python -m pgb_core score`."""
    return _arguments(spec, SCORE_FIELDS)


def sweep_arguments(spec: SweepSpec) -> list[str]:
    """`spec` as arguments of `python -m pgb_core sweep`.

    >>> sweep_arguments(SweepSpec(PruneSpec("demo", "bbc-news", 0.5), (0.5, 0.75)))[:2]
    ['--sparsities=0.5,0.75', '--methods=pgb']
    """
    names = ("sparsities", "methods", "recover_epochs", "seeds")
    lists = [f"--{name.replace('_', '-')}={','.join(map(str, getattr(spec, name)))}" for name in names]
    lists += [f"--checkpoint={name}" for name in spec.checkpoints] + [f"--task={name}" for name in spec.tasks]
    return lists + _arguments(spec.base, [item.name for item in fields(spec.base) if item.name not in AXES])


def _arguments(spec: PruneSpec | FinetuneSpec, names: Iterable[str]) -> list[str]:
    arguments = []
    for name in names:
        flag, value = name.replace("_", "-"), getattr(spec, name)
        if isinstance(value, bool):
            arguments.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, tuple):  # `pins`, `label_map`: one `--pin`, one `--label-map` for each
            arguments += [f"--{flag.removesuffix('s')}={entry}" for entry in value]
        elif value is not None:
            arguments.append(f"--{flag}={value}")
    return arguments


def command_of(run_dir: Path, device: str = "auto") -> list[str]:
    """The command line of the process that does what was submitted as the run in `run_dir`.

    Args:
        device: where to compute a run that leaves it open.

    Raises:
        PGBError: the folder's files are damaged, or what was asked for is more than this machine allows.
    """
    job = store.recorded_status(run_dir).job
    asked: PruneSpec | FinetuneSpec
    if job == "sweep":
        spec = read_sweep(run_dir).spec
        asked, command = spec.base, ["sweep", *sweep_arguments(spec), f"--out={run_dir}"]
    elif job == "part":
        values = store.read_json(run_dir / "spec.json")
        folder = run_dir.with_name(values["sweep"])
        spec = read_sweep(folder).spec
        own = [f"--out={folder}", f"--part={run_dir}", f"--shard={values['shard']}"]
        asked, command = spec.base, ["sweep", *sweep_arguments(spec), *own]
    elif job == "finetune":
        values = store.read_json(run_dir / "spec.json")
        asked = FinetuneSpec.from_dict(values)
        arguments = _arguments(asked, [item.name for item in fields(asked)])
        command = ["finetune", *arguments, f"--out={get_settings().models_dir / values['name']}", f"--run={run_dir}"]
    else:
        asked = PruneSpec.from_dict(store.read_json(run_dir / "spec.json"))
        arguments = prune_arguments(asked) if job == "prune" else score_arguments(asked)
        command = [job, *arguments, f"--out={run_dir}"]
    here = [f"--device={device}"] if asked.device == "auto" else []  # the last one counts
    return [sys.executable, "-m", "pgb_core", *command, *here, "--queued"]


def child_environment() -> dict[str, str]:
    """The environment of a process that is to find this package, wherever it is started, and to speak at once."""
    path = os.pathsep.join(filter(None, [str(_PACKAGE_PARENT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}

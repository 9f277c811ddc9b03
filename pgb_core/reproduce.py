"""How a run can be made again: as a command line and as Python, with what the result depends on beside the settings."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from pgb_core import hub
from pgb_core.commands import prune_arguments
from pgb_core.spec import PruneSpec

OUT = "runs/again"
_REQUIRED = ("--checkpoint=", "--task=", "--sparsity=", "--train-file=")
_FILES = {"train_file": "train", "eval_file": "eval"}


def command(recorded: Mapping[str, Any]) -> str:
    """The command line that makes the run of the resolved spec `recorded` again; every field not its default is named.

    Files of the user stand there as train.csv and eval.csv, a checkpoint's folder by its name: where they lay is not
    told, and an upload is not kept.

    Raises:
        SpecError: the spec is outside of what this server allows now.
    """
    spec = portable(recorded)
    usual = prune_arguments(PruneSpec(spec.checkpoint, spec.task, spec.sparsity, train_file=spec.train_file))
    arguments = [entry for entry in prune_arguments(spec) if entry.startswith(_REQUIRED) or entry not in usual]
    threads = [f"PGB_THREADS={recorded['threads']}"] if recorded.get("threads") else []
    return shlex.join([*threads, "python", "-m", "pgb_core", "prune", *arguments, f"--out={OUT}"])


def snippet(recorded: Mapping[str, Any]) -> str:
    """The same in Python, as a script that says at its end whether it began with the same weights.

    Raises:
        SpecError: the spec is outside of what this server allows now.
    """
    spec = portable(recorded)
    defaults = {item.name: item.default for item in fields(PruneSpec)}
    values = {item.name: getattr(spec, item.name) for item in fields(PruneSpec)}
    given = {name: value for name, value in values.items() if value != defaults[name]}
    arguments = "".join(f"    {name}={value!r},\n" for name, value in given.items())
    threads = f'os.environ["PGB_THREADS"] = "{recorded["threads"]}"\n' if recorded.get("threads") else ""
    return (
        f"import json\nimport os\nfrom pathlib import Path\n\nfrom pgb_core import PruneSpec, prune\n\n{threads}"
        f'spec = PruneSpec(\n{arguments})\nresult = prune(spec, out="{OUT}")\n\n'
        f'found = json.loads(Path("{OUT}/spec.json").read_text())["fingerprint"]\n'
        f"if found != {str(recorded.get('fingerprint', ''))!r}:\n"
        '    print("These are other weights than the run began with.")\n'
        'print(result["score"])\n'
    )


def conditions(recorded: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the result depends on beside the settings: weights, revision, files, device, threads and versions."""
    spec = portable(recorded)
    versions = recorded.get("versions") or {}
    device = " ".join(filter(None, (recorded.get("device_name") or spec.device, recorded.get("dtype"))))
    files = [name for name in (spec.train_file, spec.eval_file) if name]
    rows = [
        ("weights, SHA-256 of model.safetensors", recorded.get("fingerprint") or "not recorded"),
        ("revision on the Hub", recorded.get("revision") or "none, not from the Hub"),
        ("computed on", device + (f", {recorded['threads']} threads" if recorded.get("threads") else "")),
        ("versions", ", ".join(f"{name} {value}" for name, value in versions.items()) or "not recorded"),
    ]
    if files:
        rows.append(("your files", f"put your own in place of {' and '.join(files)}: the server does not keep them"))
    return rows


def portable(recorded: Mapping[str, Any]) -> PruneSpec:
    """The spec without paths of the machine that it ran on, and with the revision of a model of the Hub.

    Raises:
        SpecError: it is outside of what this server allows now.
    """
    values = dict(recorded)
    name = str(values["checkpoint"])
    if Path(name.removeprefix(hub.PREFIX)).is_absolute():
        values["checkpoint"] = Path(name).name
    elif recorded.get("revision") and "@" not in name:
        values["checkpoint"] = f"{name}@{recorded['revision']}"
    for key, stem in _FILES.items():
        if values.get(key):
            values[key] = stem + (Path(values[key]).suffix or ".csv")
    return PruneSpec.from_dict(values)

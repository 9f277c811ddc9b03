"""Make the sample runs that are shipped with the package, from finished runs of the demo.

    python -m benchmarks.make_samples RUN_FOLDER ... [--machine "2 cores of an AMD EPYC"] [--out pgb_core/samples]

A sample has the spec, the result, the option tables and the layout of its run, and its answers where they are few; no
model, no log, no path of the machine that made it. Importance is kept for two matrices of one layer, in a few steps of
a logarithmic scale, in a file that samples of equal importance share. What was in the folder before is replaced. Prints
the size of each sample.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file, save

from pgb_core import answers, disk, files, matrices, store
from pgb_core.store import Run

MATRICES = (("attention", "query"), ("feed_forward", "intermediate"))
"""Kind and name of the matrices whose importance is kept, in the layer that has groups in most runs."""
ANSWERS_BYTES = 50_000
"""Answers to single examples are kept, so that samples can be compared by them, where they are not more than this."""
SECRETS = ("checkpoint_path", "train_file", "eval_file")
"""What a spec says of the machine that the run was made on; without them readers take what is shared by all."""


def main(argv: Sequence[str] | None = None) -> None:
    """Write the samples and say how large they are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs of the demo")
    parser.add_argument("--machine", default=this_machine(), help="what they were measured on (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=store.SAMPLES)
    args = parser.parse_args(argv)
    runs = [store.read_run(path) for path in args.runs]
    for run in runs:
        refuse_unsuitable(run)
    shutil.rmtree(args.out, ignore_errors=True)
    args.out.mkdir(parents=True)
    layers = {key: busiest_layer([run for run in runs if family(run) == key]) for key in map(family, runs)}
    for run in runs:
        folder = write_sample(run, args.out, args.machine, layers[family(run)])
        print(f"{folder.name}: {disk.below(folder):,} bytes, {run.spec['task']}, {run.spec['method']}")
    print(f"{disk.below(args.out):,} bytes in all")


def this_machine() -> str:
    """This machine in words: its cores and its processor."""
    processor = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        if found := re.search(r"^model name\s*: (.+)$", text, re.MULTILINE):
            processor = found[1].strip()
    return f"{os.cpu_count()} cores of an {processor}"


def refuse_unsuitable(run: Run) -> None:
    """Exit unless `run` is one that anybody can repeat from the package alone."""
    if run.status.state != "done" or run.spec["checkpoint"] != "demo" or run.spec.get("train_file"):
        raise SystemExit(f"{run.path} is not a finished run of the demo.")


def family(run: Run) -> tuple[str, ...]:
    """What runs of equal importance have in common."""
    return tuple(str(run.spec[key]) for key in ("fingerprint", "task", "importance", "seed", "calibration_samples"))


def busiest_layer(runs: Sequence[Run]) -> int:
    """The layer whose halves are in groups in most of the runs, the first of equals."""
    grouped: Counter[int] = Counter()
    for run in runs:
        for sublayer in (run.result or {})["sublayers"]:
            grouped[sublayer["layer"]] += sublayer["matrices"][0]["groups"] > 1
    return max(sorted(grouped), key=grouped.__getitem__)


def write_sample(run: Run, out: Path, machine: str, layer: int) -> Path:
    """Write the sample of `run` below `out`; returns its folder."""
    path = out / sample_id(run)
    path.mkdir()
    times = {key: getattr(run.status, key) for key in ("created", "started", "finished")}
    for name, value in (
        ("spec", {key: value for key, value in run.spec.items() if key not in SECRETS}),
        ("status", {"state": "done", "fraction": 1.0, **times}),
        ("result", run.result),
        ("sample", {"schema": 1, "machine": machine, "importance": write_importance(run, out, layer)}),
    ):
        (path / f"{name}.json").write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    for name in ("options.json", "layout.json", "layout.safetensors"):
        if (run.path / name).exists():  # a method with rules of its own has no options
            files.pack(path / name, (run.path / name).read_bytes())
    said = run.path / answers.FILE
    if said.exists() and said.stat().st_size <= ANSWERS_BYTES:
        shutil.copyfile(said, path / answers.FILE)
    return path


def sample_id(run: Run) -> str:
    """An id like that of any run; the same for the same result, whatever the folder is called."""
    content = hashlib.sha256((run.path / "result.json").read_bytes()).hexdigest()
    return store.run_id(run.status.created, content[:6])


def write_importance(run: Run, out: Path, layer: int) -> str:
    """Write the importance of `MATRICES` in `layer`, unless it is there; returns the name of the file."""
    scores = load_file(run.path / "importance.safetensors")
    names = [f"{layer}.{kind}.{name}" for kind, name in MATRICES]
    levels: dict[str, Any] = {name: matrices.to_levels(scores[name]) for name in names}
    content = save(levels)
    name = f"importance-{hashlib.sha256(content).hexdigest()[:12]}.safetensors"
    files.pack(out / name, content)
    return name


if __name__ == "__main__":
    main()

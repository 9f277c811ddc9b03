"""The points of `benchmarks.accuracy`: what one is, where it lies, and whether it still holds.

A point is a small JSON file, written at once, with the answer to every example, so that any two points of a task can be
compared in pairs later.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import json
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgb_core import store
from pgb_core.batching import Example

SCHEMA = 1
ROOT = Path(__file__).resolve().parent.parent
ONE_SHOT_CODE = ("planning",)
RECOVERY_CODE = ("planning", "recovery")
"""Modules of pgb_core that, with all of it that they import, decide a point."""
DATA_CODE = ("tasks",)
"""Modules that only decide the data, which have a digest of their own."""
DENSE = "dense"
EPOCHS = 2
"""Of recovery."""


@dataclass(frozen=True, order=True)
class Key:
    """Which point: `sparsity` is the target; the dense model has 0, trained on or not (`recovered`)."""

    task: str
    method: str
    sparsity: float = 0.0
    recovered: bool = False

    @property
    def file(self) -> str:
        """Name of the point's file in the folder of its task."""
        target = "" if self.method == DENSE else f"-{self.sparsity:g}"
        return f"{self.method}{target}{'-recovered' if self.recovered else ''}.json"

    @property
    def reference(self) -> bool:
        """Whether this is the dense model as it was, which all others are compared with."""
        return self.method == DENSE and not self.recovered

    def __str__(self) -> str:
        target = "" if self.method == DENSE else f" {self.sparsity:g}"
        return f"{self.task} {self.method}{target}{' recovered' if self.recovered else ''}"


@dataclass(frozen=True)
class Origin:
    """What a point was made of. Points of one task are comparable when checkpoint and data are the same."""

    checkpoint: str
    """SHA-256 of the dense weights."""
    data: str
    """SHA-256 of the tokens and labels of all examples."""
    code: str
    """Of the modules that decide the point."""
    versions: dict[str, str]
    commit: str | None = None
    device: str = "cpu"
    threads: int = 0

    def comparable(self, other: Origin) -> bool:
        """Whether both were measured on the same examples with the same dense model."""
        return (self.checkpoint, self.data) == (other.checkpoint, other.data)

    def same_code(self, other: Origin) -> bool:
        """Whether the same code and libraries made both."""
        return (self.code, self.versions) == (other.code, other.versions)


@dataclass(frozen=True, eq=False)
class Point:
    """One measured model. `failure` says why there is none: then nothing else is known."""

    key: Key
    origin: Origin
    correct: NDArray[np.bool_]
    """(N,) whether the model is right on each example."""
    achieved: float = 0.0
    """Share of the encoder weights that is gone."""
    sublayers: int = 0
    grouped: int = 0
    dropped: int = 0
    loss: float | None = None
    """What the option tables predict, in units of the task's loss; None for methods without one."""
    divergence: float = 0.0
    """Mean KL divergence of the predictions from the dense model's, in nats."""
    seconds: dict[str, float] = field(default_factory=dict)
    """`scores` and `tables`, shared by the points of a task, `pruning` and `recovery`, its own, and `evaluation`."""
    logits: NDArray[np.float32] | None = None
    """(N, labels), of the dense model only."""
    failure: str | None = None

    @property
    def score(self) -> float:
        """Share of right answers."""
        return float(self.correct.mean()) if len(self.correct) else float("nan")

    @property
    def own_seconds(self) -> float:
        """What this point took on top of what it shares with others, without its evaluation."""
        return sum(self.seconds.get(name, 0.0) for name in ("pruning", "recovery"))

    @property
    def shared_seconds(self) -> float:
        """What the points of a task take once: the scores and, for methods that choose from them, the option tables."""
        return sum(self.seconds.get(name, 0.0) for name in ("scores", "tables"))


# --- as files ------------------------------------------------------------------------------------------------------


def write(folder: Path, point: Point) -> Path:
    """Write the point's file below `folder`, atomically; returns its path."""
    values: dict[str, Any] = {
        "schema": SCHEMA,
        **asdict(point.key),
        "score": point.score if not point.failure else None,
    }
    values |= {name: getattr(point, name) for name in _PLAIN}
    values |= {"samples": len(point.correct), "correct": pack(point.correct), "origin": asdict(point.origin)}
    if point.logits is not None:
        values["logits"] = base64.b64encode(point.logits.astype("<f4").tobytes()).decode("ascii")
    path = folder / point.key.task / point.key.file
    path.parent.mkdir(parents=True, exist_ok=True)
    store.write_json(path, values)
    return path


def read(path: Path) -> Point | None:
    """The point in the file at `path`; None where there is none that can be read."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["schema"] != SCHEMA:
            return None
        key = Key(values["task"], values["method"], values["sparsity"], values["recovered"])
        correct = unpack(values["correct"], values["samples"])
        logits = None
        if key.reference:
            logits = np.frombuffer(base64.b64decode(values["logits"]), dtype="<f4").reshape(len(correct), -1)
        plain = {name: values[name] for name in _PLAIN}
        return Point(key, Origin(**values["origin"]), correct, logits=logits, **plain)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read_all(folder: Path) -> list[Point]:
    """All points below `folder`, in the order of their keys."""
    found = (read(path) for path in sorted(folder.glob("*/*.json")))
    return sorted((point for point in found if point is not None), key=lambda point: point.key)


def pack(answers: NDArray[np.bool_]) -> str:
    """(N,) truth values as text, eight to a byte."""
    return base64.b64encode(np.packbits(answers).tobytes()).decode("ascii")


def unpack(text: str, count: int) -> NDArray[np.bool_]:
    """The `count` truth values that `pack` made `text` of.

    Raises:
        ValueError: the text is of another count.
    """
    packed = np.frombuffer(base64.b64decode(text, validate=True), dtype=np.uint8)
    if len(packed) != -(-count // 8):
        raise ValueError(f"{len(packed)} bytes do not hold {count} answers")
    return np.unpackbits(packed, count=count).astype(bool)


_PLAIN = ("achieved", "sublayers", "grouped", "dropped", "loss", "divergence", "seconds", "failure")


# --- what made them ------------------------------------------------------------------------------------------------


def data_digest(*parts: Sequence[Example]) -> str:
    """SHA-256 of tokenized examples, in their order."""
    digest = hashlib.sha256()
    for part in parts:
        for example in part:
            digest.update(repr((example.input_ids, example.token_type_ids, example.label)).encode())
        digest.update(b"|")
    return digest.hexdigest()


def code_digest(modules: Iterable[str], constants: str = "", package: Path = ROOT / "pgb_core") -> str:
    """SHA-256 of `constants`, of `modules` of a package and of all that they import of it, but for `DATA_CODE`.

    Comments, docstrings and layout do not count.
    """
    pending, seen = sorted(modules), dict[str, str]()
    while pending:
        name = pending.pop()
        path = _source(package, name)
        if name in seen or name in DATA_CODE or path is None:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        pending += _imports(tree, package.name)
        seen[name] = ast.dump(_Bare().visit(tree))
    return hashlib.sha256(json.dumps([constants, sorted(seen.items())]).encode()).hexdigest()


def commit() -> str | None:
    """The git commit of this code, marked when it was changed since; None where git does not know."""
    try:
        command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _source(package: Path, name: str) -> Path | None:
    """The file of module `name` (dots for subpackages); None where it is a function or class of a module."""
    path = package.joinpath(*name.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def _imports(tree: ast.AST, package: str) -> list[str]:
    """What `tree` imports of `package`, without the package's name."""
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [name.removeprefix(f"{package}.") for name in names if name.startswith(f"{package}.")]


class _Bare(ast.NodeTransformer):
    """Takes out expressions that do nothing: docstrings."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        return None if isinstance(node.value, ast.Constant) else node

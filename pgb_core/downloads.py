"""What of a run can be taken along: its result, its tables as CSV, its figures and its model as zip files.

Every function makes the bytes when it is called; `model_bytes` says beforehand how many those of the model are.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

from pgb_core import matrices, store, what_if
from pgb_core.errors import RunError
from pgb_core.figures import export, matrix, network, options, predictions, recovery, scores
from pgb_core.store import Run


def result_json(run: Run) -> bytes:
    """The result of a finished run, as it lies in its folder."""
    return (json.dumps(run.result, indent=1, allow_nan=False) + "\n").encode()


def to_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """`rows` under the names of their keys, in UTF-8 with the mark that spreadsheets need."""
    return export.csv_text(rows, {key: key for key in (rows[0] if rows else ())}).encode("utf-8-sig")


def layers_csv(run: Run) -> bytes:
    """What is left of every sublayer."""
    if run.result is None:
        return to_csv([])
    return to_csv(
        [
            {
                "layer": entry["layer"] + 1,
                "kind": entry["kind"],
                "kept": found.summary,
                "units": found.units,
                "units_kept": found.kept_units,
                "groups": len(found.group_units),
                "dropped": entry["dropped"],
                "density": entry["density"],
                "kept_importance": entry["kept_importance"],
            }
            for entry, found in zip(run.result["sublayers"], network.sublayers(run.result), strict=True)
        ]
    )


def scores_csv(run: Run) -> bytes:
    """The score after each step with its standard error."""
    return to_csv([] if run.result is None else scores.score_table(run.result["score"]))


def model_bytes(run: Run) -> int:
    """Bytes of the files of the pruned model, about those of its zip file; 0 where there is no model."""
    return sum(path.stat().st_size for path in run.model_dir.glob("*")) if run.model_dir.is_dir() else 0


def model_zip(run: Run) -> io.BytesIO:
    """The folder of the pruned model as a zip file, copied from disk in small pieces; weights do not compress.

    Raises:
        RunError: there is no model, or it has been deleted meanwhile.
    """
    archive = io.BytesIO()
    paths = sorted(run.model_dir.glob("*"))
    if not paths:
        raise RunError(f"Run {run.id} has no model.")
    try:
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
            for path in paths:
                file.write(path, f"{run.id}/{path.name}")
    except OSError as error:
        raise RunError(f"The model of run {run.id} has been deleted meanwhile.") from error
    return archive


def figures_zip(run: Run, title: str) -> io.BytesIO:
    """The figures of a finished run as web pages that need no network; `title` is plain text."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in export.pages(title, figures_of(run)):
            file.writestr(f"{run.id}-figures/{name}", content)
    return archive


def figures_of(run: Run) -> dict[str, tuple[str, Any]]:
    """The figures of a finished run by a short name, each with what it shows."""
    if run.result is None:
        return {}
    result, sublayers = run.result, network.sublayers(run.result)
    found: dict[str, tuple[str, Any]] = {
        "scores": ("Score of the dense model and after each step", scores.score_chart(result["score"]))
    }
    if len(result.get("predictions") or {}) > 1:
        found["predictions"] = ("Predicted loss of each method", predictions.prediction_chart(result))
    if result.get("recovery"):
        found["recovery"] = ("Recovery", recovery.recovery_chart(result["recovery"]))
    found["network"] = ("What is left of every sublayer", network.picture(sublayers, None, []))
    return found | _options_of(run, sublayers) | _matrices_of(run)


def _options_of(run: Run, sublayers: Sequence[network.Sublayer]) -> dict[str, tuple[str, Any]]:
    try:
        tables = store.read_options(run)
    except RunError:  # a method with rules of its own
        return {}
    ratings = what_if.rate(tables, run.spec["method"], run.spec.get("budget", "weights"))
    return {
        f"options-{s.layer + 1}-{s.kind}": (f"Options of {s.title.lower()}", options.option_chart(table, rating))
        for s, table, rating in zip(sublayers, tables, ratings, strict=True)
    }


def _matrices_of(run: Run) -> dict[str, tuple[str, Any]]:
    """The stages of the first attention and the first feed-forward matrix that has groups, by importance."""
    found: dict[str, tuple[str, Any]] = {}
    seen: set[str] = set()
    readable = matrices.readable(run)
    for (layer, kind, name), layout in matrices.read_layouts(run).items():
        if kind in seen or len(layout.row_groups) < 2 or (layer, kind, name) not in readable:
            continue
        seen.add(kind)
        view = matrices.read_matrix(run, layer, kind, name)
        for stage, title in matrix.STAGES.items():
            figure = matrix.overview(view, stage, "importance")
            caption = f"Layer {layer + 1} {network.KIND_TITLES[kind]}, {name}, by importance: {title.lower()}"
            found[f"matrix-{layer + 1}-{kind}-{name}-{stage}"] = (caption, figure)
    return found

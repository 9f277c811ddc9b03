"""The model card of an exported model: README.md as the Hugging Face Hub reads it, a YAML header and Markdown.

It says what was measured, what is left of every sublayer, how to load the model and what not to expect of it. Nothing
here computes anything, and nothing of the machine's paths gets into it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgb_core import console
from pgb_core.demo import BASE_LICENSE, BASE_MODEL
from pgb_core.hub import PREFIX
from pgb_core.inspection import CheckpointInfo
from pgb_core.spec import METHODS

PAPER = "[PGB](https://arxiv.org/abs/2502.03984) (permutation and grouping for BERT; Lim, Lee, Choi; JAIR 85, 2026)"
_STAGES = {
    "dense": "dense original",
    "masked": "weights removed, nothing else done",
    "compensated": "kept weights refitted by least squares",
    "recovered": "fine-tuned again",
}
_LOAD = {
    "safetensors": """\
```python
from transformers import AutoModelForSequenceClassification, AutoTokenizer

folder = "path/to/this/folder"
model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)  # reads the same config.json
logits = model(**tokenizer(["a text", "another one"], padding=True, truncation=True, return_tensors="pt")).logits
```

torch and transformers (version 5) are all it needs. `trust_remote_code=True` runs `modeling_pgb_bert.py` of this
folder, which is short: read it first. The `pgb_core` package reads the same folder through `pgb.json` and runs nothing
in it: `pgb_core.load_pruned(folder)`.

Forward signature and outputs are those of `BertForSequenceClassification`, hidden states included. Attentions need
`attn_implementation="eager"`: each layer gives those of the heads that it kept, a dropped one a tensor of no heads.""",
    "onnx": """\
```python
import onnxruntime
from transformers import AutoTokenizer

folder = "path/to/this/folder"
tokenizer = AutoTokenizer.from_pretrained(folder)
session = onnxruntime.InferenceSession(f"{folder}/model.onnx")
inputs = tokenizer(
    ["a text", "another one"], padding=True, truncation=True, return_token_type_ids=True, return_tensors="np"
)
(logits,) = session.run(["logits"], dict(inputs))
```

Any batch size and any length up to the number of positions; float32. The logits were compared with torch's when the
graph was written. `config.json` names the labels and gives the sizes of the dense original; the weights are in the
graph alone.""",
}


@dataclass(frozen=True)
class Facts:
    """What a card tells. `spec` and `result` are those of the run that made the model, None where none is known."""

    format: str
    info: CheckpointInfo
    kept: Sequence[tuple[str, str]]
    """What is left of the attention and of the feed-forward of each layer, in words; nothing for a dense model."""
    spec: Mapping[str, Any] | None
    result: Mapping[str, Any] | None


def model_card(facts: Facts) -> str:
    """README.md for the folder of an exported model."""
    sections = [_header(facts), _summary(facts)]
    if facts.spec is not None and facts.result is not None:
        sections.append(_measured(facts.format, facts.spec, facts.result))
    if facts.kept:
        sections.append(_kept(facts.kept))
    sections += [f"## How to load it\n\n{_LOAD[facts.format]}", _limits(facts), _origin(facts)]
    return "\n\n".join(section for section in sections if section) + "\n"


def _header(facts: Facts) -> str:
    tags = ["bert", *(["pruning", "pgb"] if facts.kept else []), *(["onnx"] if facts.format == "onnx" else [])]
    values: dict[str, object] = {
        "library_name": "onnx" if facts.format == "onnx" else "transformers",
        "pipeline_tag": "text-classification",
    }
    base, known_license = _base(facts.spec)
    values |= {"base_model": base} if base else {}
    values |= {"license": known_license} if known_license else {}
    lines = (f"{key}: {json.dumps(value)}" for key, value in {**values, "tags": tags}.items())  # JSON is YAML
    return "\n".join(("---", *lines, "---"))


def _base(spec: Mapping[str, Any] | None) -> tuple[str | None, str | None]:
    """The model on the Hub that this one was made of, and its license, as far as they are known."""
    source = spec and spec.get("checkpoint_source")
    if spec is not None and source == "hub":
        return str(spec["checkpoint"]).removeprefix(PREFIX), None
    return (BASE_MODEL, BASE_LICENSE) if source == "demo" else (None, None)


def _summary(facts: Facts) -> str:
    labels = ", ".join(_code(label) for label in facts.info.labels[:20])
    more = f" and {len(facts.info.labels) - 20} more" if len(facts.info.labels) > 20 else ""
    size = (
        f"{facts.info.layers} layers, hidden size {facts.info.hidden}, {facts.info.parameters / 1e6:.1f} M parameters"
    )
    if not facts.kept:
        return f"# A BERT classifier\n\nA text classifier ({size}). Labels: {labels}{more}."
    if facts.spec is None or facts.result is None:
        made = "pruned by permutation and grouping or by a method that it was compared with; which one is not recorded"
    else:
        removed = facts.result["sparsity"]["achieved"]
        method = facts.spec["method"]
        made = f"from whose encoder {removed:.1%} of the weights were removed by method `{method}`: {METHODS[method]}"
    return f"# A pruned BERT classifier\n\nA text classifier ({size}), {made.rstrip('.')}.\n\nLabels: {labels}{more}."


def _measured(format_: str, spec: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    score, parameters, flops, sizes = (result[key] for key in ("score", "parameters", "flops", "bytes"))
    errors = score.get("standard_error") or {}
    stages = [stage for stage in _STAGES if score.get(stage) is not None]
    rows = [
        (f"**{_STAGES[stage]}: this model**" if stage == stages[-1] else _STAGES[stage])
        + f" | {score[stage]:.4f} | {'' if errors.get(stage) is None else format(errors[stage], '.4f')}"
        for stage in stages
    ]
    compared = (
        ("parameters", parameters["dense"], parameters["pruned"]),
        ("parameters in the encoder's matrices", parameters["encoder_dense"], parameters["encoder_pruned"]),
        (f"FLOPs, {flops['batch']} x {flops['length']} tokens", flops["dense"], flops["pruned"]),
        ("bytes of `model.safetensors`", sizes["dense"], sizes["pruned"]),
    )
    lines = [
        "## What was measured",
        "",
        f"On {score['samples']} held-out examples of task `{spec['task']}`, none of which was used to make the model;",
        f"seed {spec['seed']}. Differences of less than about two standard errors are noise.",
        "",
        f"| model | {score['metric']} | standard error |",
        "| --- | --- | --- |",
        *(f"| {row} |" for row in rows),
        "",
        "| | dense | pruned | share |",
        "| --- | --- | --- | --- |",
        *(f"| {name} | {dense:,.0f} | {pruned:,.0f} | {pruned / dense:.1%} |" for name, dense, pruned in compared),
    ]
    if result["latency"] is not None:
        where = ", measured in torch, not with this graph" if format_ == "onnx" else ""
        lines += ["", f"Latency of a forward pass{where}: {console.describe_latency(result['latency'])}."]
    return "\n".join(lines)


def _kept(kept: Sequence[tuple[str, str]]) -> str:
    rows = (f"| {n} | {attention} | {feed_forward} |" for n, (attention, feed_forward) in enumerate(kept, start=1))
    head = ("## What is left of the encoder", "", "| layer | attention | feed-forward |", "| --- | --- | --- |")
    return "\n".join((*head, *rows))


def _limits(facts: Facts) -> str:
    lines = [
        "## Limits",
        "",
        f"- It classifies texts of up to {facts.info.max_positions} tokens into the labels above, nothing else.",
    ]
    if facts.kept:
        judged = "is not known here" if facts.result is None else "was judged by one score on one task"
        lines += [
            f"- What pruning cost {judged}. It may cost more on rare labels and on other kinds of text: measure yours.",
            "- Embeddings and head keep their sizes, so the file shrinks less than the encoder.",
        ]
    return "\n".join(lines)


def _origin(facts: Facts) -> str:
    lines = []
    if facts.kept:
        lines.append(f"Pruned after {PAPER}; the formulas that its summaries leave open are the tool's own reading.")
    if facts.spec is not None:
        lines.append(_checkpoint(facts.spec))
    if facts.result is not None:
        versions = ", ".join(f"{key} {facts.result['environment'][key]}" for key in ("python", "torch", "transformers"))
        lines.append(f"Made with {versions}.")
    return "## Where it comes from\n\n" + "\n".join(lines) if lines else ""


def _checkpoint(spec: Mapping[str, Any]) -> str:
    base, known_license = _base(spec)
    if spec.get("checkpoint_source") == "demo":
        return (
            f"The original was fine-tuned from `{base}` on the text of task `{spec['task']}`; the license above "
            f"({known_license}) is that of `{base}`, and says nothing of the rights in that text."
        )
    if base is not None:
        return f"The original is {_code(base)} at revision `{spec['revision']}`; its license is to be found there."
    return f"The original was a folder called {_code(Path(spec['checkpoint']).name)}."


def _code(text: str) -> str:
    """`text` in one line, as code: nothing in it is taken for Markdown or HTML."""
    return f"`{' '.join(text.replace('`', chr(39)).split())}`".replace("|", "\\|")

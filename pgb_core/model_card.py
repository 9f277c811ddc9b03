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
from pgb_core.families import FAMILIES, HEAD_TITLES, Head, auto_map, class_name, portable_files
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
_LOAD_FOLDER = """\
```python
from transformers import {auto}, AutoTokenizer

folder = "path/to/this/folder"
model = {auto}.from_pretrained(folder, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)  # reads the same config.json
{outputs} = model(**tokenizer({texts}, padding=True, truncation=True, return_tensors="pt")){last}
```

torch and transformers (version 5) are all it needs. `trust_remote_code=True` runs `{file}` of this
folder and the two files that it imports, which are short: read them first. The `pgb_core` package reads the same folder
through `pgb.json` and runs nothing in it: `pgb_core.load_pruned(folder)`.

Forward signature and outputs are those of `{dense}`, hidden states included. Attentions need
`attn_implementation="eager"`: each layer gives those of the heads that it kept, a dropped one a tensor of no heads."""
_LOAD_GRAPH = """\
```python
import onnxruntime
from transformers import AutoTokenizer

folder = "path/to/this/folder"
tokenizer = AutoTokenizer.from_pretrained(folder)
session = onnxruntime.InferenceSession(f"{{folder}}/model.onnx")
inputs = tokenizer(
    {texts}, padding=True, truncation=True, return_token_type_ids={typed}, return_tensors="np"
)
{outputs} = session.run({names}, dict(inputs))
```

Any batch size and any length up to the number of positions; float32. The logits were compared with torch's when the
graph was written. `config.json` names the labels and gives the sizes of the dense original; the weights are in the
graph alone."""
_TEXTS = '["a text", "another one"]'
_QUESTION = '["a question"], ["the paragraph that it is about"]'
_PIPELINES: Mapping[Head, str] = {
    "classification": "text-classification",
    "regression": "text-classification",
    "question_answering": "question-answering",
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
    sections += [f"## How to load it\n\n{_how_to_load(facts)}", _limits(facts), _origin(facts)]
    return "\n\n".join(section for section in sections if section) + "\n"


def _header(facts: Facts) -> str:
    tags = [
        facts.info.family,
        *(["pruning", "pgb"] if facts.kept else []),
        *(["onnx"] if facts.format == "onnx" else []),
    ]
    values: dict[str, object] = {
        "library_name": "onnx" if facts.format == "onnx" else "transformers",
        "pipeline_tag": _PIPELINES[facts.info.head],
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
    title, what = FAMILIES[facts.info.family].title, HEAD_TITLES[facts.info.head]
    size = (
        f"{facts.info.layers} layers, hidden size {facts.info.hidden}, {facts.info.parameters / 1e6:.1f} M parameters"
    )
    if not facts.kept:
        return f"# A {title} {what}\n\n{_answers(facts.info)} ({size}).{_labels(facts.info)}"
    if facts.spec is None or facts.result is None:
        made = "pruned by permutation and grouping or by a method that it was compared with; which one is not recorded"
    else:
        removed = facts.result["sparsity"]["achieved"]
        method = facts.spec["method"]
        made = f"from whose encoder {removed:.1%} of the weights were removed by method `{method}`: {METHODS[method]}"
    return f"# A pruned {title} {what}\n\n{_answers(facts.info)} ({size}), {made.rstrip('.')}.{_labels(facts.info)}"


def _answers(info: CheckpointInfo) -> str:
    return {
        "classification": "A text classifier",
        "regression": "A model that gives a text, or a pair of texts, a number",
        "question_answering": "A model that says where in a text the answer to a question starts and ends",
    }[info.head]


def _labels(info: CheckpointInfo) -> str:
    """A paragraph with the labels of a classifier; nothing for what has none."""
    if info.head != "classification":
        return ""
    labels = ", ".join(_code(label) for label in info.labels[:20])
    more = f" and {len(info.labels) - 20} more" if len(info.labels) > 20 else ""
    return f"\n\nLabels: {labels}{more}."


def _how_to_load(facts: Facts) -> str:
    """Code that runs, for the family, the head and the format."""
    info, answers = facts.info, facts.info.head == "question_answering"
    texts = _QUESTION if answers else _TEXTS
    if facts.format == "onnx":
        names = ["start_logits", "end_logits"] if answers else ["logits"]
        outputs = ", ".join(names) if answers else "(logits,)"
        return _LOAD_GRAPH.format(texts=texts, typed=info.token_types > 1, outputs=outputs, names=json.dumps(names))
    return _LOAD_FOLDER.format(
        auto=next(name for name in auto_map(info.family, info.head) if name != "AutoConfig"),
        texts=texts,
        outputs="answers" if answers else "logits",
        last="  # start_logits and end_logits" if answers else ".logits",
        file=portable_files(info.family)[0],
        dense=class_name(info.family, info.head),
    )


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
        f"- {_limit(facts.info)} of up to {facts.info.max_positions} tokens, nothing else.",
    ]
    if facts.kept:
        judged = "is not known here" if facts.result is None else "was judged by one score on one task"
        lines += [
            f"- What pruning cost {judged}. It may cost more on rare labels and on other kinds of text: measure yours.",
            "- Embeddings and head keep their sizes, so the file shrinks less than the encoder.",
        ]
    return "\n".join(lines)


def _limit(info: CheckpointInfo) -> str:
    return {
        "classification": "It tells the labels above of texts",
        "regression": "It gives the number that it was trained to give for texts",
        "question_answering": "It finds answers that are words of the text, in questions and texts",
    }[info.head]


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

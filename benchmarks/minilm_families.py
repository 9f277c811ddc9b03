"""MiniLM's weights as a DistilBERT and as a RoBERTa: real encoders of both families where no hub can be reached.

    python -m benchmarks.minilm_families [--task bbc-news] [--sparsity 0.5] [--models DIR] [--runs DIR]

No package index has a published DistilBERT or RoBERTa, but the demo's BERT fits into their classes: DistilBERT has no
token types, so the row of type 0 goes into the positions; RoBERTa counts positions from the padding's index on, so
their table moves down by one row. Hidden states are BERT's, up to the rounding of one sum for DistilBERT. These are
not the published models of those families, which were trained otherwise.

Each is written to the models folder DIR, as `minilm-FAMILY`, fine-tuned on the task as the demo is, into
`minilm-FAMILY-TASK`, and pruned into the runs folder. What is there already is not made again. Prints a table.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertModel, DistilBertConfig, DistilBertModel, RobertaConfig, RobertaModel

from pgb_core import card, checkpoints, demo
from pgb_core.corpora import CORPORA
from pgb_core.finetune_spec import FinetuneSpec
from pgb_core.finetuning import finetune_checkpoint
from pgb_core.progress import Progress
from pgb_core.pruner import prune
from pgb_core.settings import get_settings
from pgb_core.spec import PruneSpec

_DISTILBERT_NAMES = {
    "encoder.layer.": "transformer.layer.",
    "attention.self.query": "attention.q_lin",
    "attention.self.key": "attention.k_lin",
    "attention.self.value": "attention.v_lin",
    "attention.output.dense": "attention.out_lin",
    "attention.output.LayerNorm": "sa_layer_norm",
    "intermediate.dense": "ffn.lin1",
    "output.dense": "ffn.lin2",
    "output.LayerNorm": "output_layer_norm",
}
"""Parts of BERT's tensor names; longer ones go before those that they contain."""
_POSITIONS = "embeddings.position_embeddings.weight"
_TYPES = "embeddings.token_type_embeddings.weight"


# --- the same weights in another family ----------------------------------------------------------------------------


def to_distilbert(bert: BertModel) -> DistilBertModel:
    """The same encoder for texts of token type 0.

    Raises:
        ValueError: its LayerNorm adds another epsilon than DistilBERT's, which is fixed.
    """
    config = bert.config
    if config.layer_norm_eps != 1e-12:
        raise ValueError(f"DistilBERT's layer_norm_eps is 1e-12, not {config.layer_norm_eps}")
    tensors = {_distilbert_name(name): tensor for name, tensor in _encoder_tensors(bert).items() if name != _TYPES}
    tensors[_POSITIONS] = tensors[_POSITIONS] + bert.state_dict()[_TYPES][0]
    sizes = DistilBertConfig(
        vocab_size=config.vocab_size,
        max_position_embeddings=config.max_position_embeddings,
        n_layers=config.num_hidden_layers,
        n_heads=config.num_attention_heads,
        dim=config.hidden_size,
        hidden_dim=config.intermediate_size,
        activation=config.hidden_act,
        pad_token_id=config.pad_token_id,
    )
    return _filled(DistilBertModel(sizes), tensors)


def to_roberta(bert: BertModel) -> RobertaModel:
    """The same encoder for texts whose only tokens with the padding's index, 0, are at their end."""
    config, tensors = bert.config, _encoder_tensors(bert)
    positions = tensors[_POSITIONS]
    tensors[_POSITIONS] = torch.cat([torch.zeros_like(positions[:1]), positions])
    sizes = RobertaConfig(
        vocab_size=config.vocab_size,
        max_position_embeddings=len(positions) + 1,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        hidden_act=config.hidden_act,
        type_vocab_size=config.type_vocab_size,
        layer_norm_eps=config.layer_norm_eps,
        pad_token_id=0,
    )
    return _filled(RobertaModel(sizes, add_pooling_layer=False), tensors)


FAMILIES: Mapping[str, Callable[[BertModel], Any]] = {"distilbert": to_distilbert, "roberta": to_roberta}


def _encoder_tensors(bert: BertModel) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in bert.state_dict().items() if not name.startswith("pooler.")}


def _distilbert_name(name: str) -> str:
    for part, other in _DISTILBERT_NAMES.items():
        name = name.replace(part, other)
    return name


def _filled(model: nn.Module, tensors: Mapping[str, Tensor]) -> Any:
    model.load_state_dict(tensors, strict=True)
    return model.eval()


# --- the files -----------------------------------------------------------------------------------------------------


def write_encoder(family: str, folder: Path) -> Path:
    """A raw encoder with the tokenizer of the demo, in `folder`."""
    source = demo.encoder()
    bert = BertModel.from_pretrained(source, use_safetensors=True, attn_implementation="sdpa", dtype=torch.float32)
    FAMILIES[family](bert.eval()).save_pretrained(folder)
    for name in ("tokenizer.json", "vocab.txt"):
        shutil.copyfile(source / name, folder / name)
    head = f"---\nbase_model: {demo.BASE_MODEL}\nlicense: {demo.BASE_LICENSE}\n---\n"
    text = f"\nThe weights of {demo.BASE_MODEL} in the layout of {family}: not a published {family}.\n"
    (folder / card.FILE).write_text(head + text, encoding="utf-8")
    return folder


def fine_tuned(family: str, task: str, models: Path) -> Path:
    """The classifier of that family for `task`, trained as the demo's, in `models`."""
    raw, target = models / f"minilm-{family}", models / f"minilm-{family}-{task}"
    if not raw.is_dir():
        write_encoder(family, raw)
    if not target.is_dir():
        corpus = CORPORA[task]
        spec = FinetuneSpec(str(raw), task, epochs=corpus.epochs, learning_rate=corpus.learning_rate)
        print(json.dumps(finetune_checkpoint(spec, target, on_progress=_tell)), file=sys.stderr)
    return target


def _tell(progress: Progress) -> None:
    print(f"\r{progress.fraction:4.0%} {progress.stage} {progress.message:60.60}", end="", file=sys.stderr)


def main() -> None:
    """Make what is missing, prune each, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=CORPORA, default="bbc-news")
    parser.add_argument("--sparsity", type=float, default=0.5)
    parser.add_argument("--models", type=Path, default=get_settings().models_dir)
    parser.add_argument("--runs", type=Path, default=get_settings().runs_dir)
    arguments = parser.parse_args()
    print("| family | dense | masked | compensated | standard error | removed | seconds |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for family in FAMILIES:
        checkpoint = fine_tuned(family, arguments.task, arguments.models)
        spec = PruneSpec(str(checkpoint), arguments.task, arguments.sparsity, latency=False)
        result = prune(spec, out=arguments.runs / f"minilm-{family}-{arguments.sparsity}", on_progress=_tell)
        score, title = result["score"], checkpoints.describe(checkpoint).family
        cells = [f"{score[stage]:.4f}" for stage in ("dense", "masked", "compensated")]
        cells += [f"{score['standard_error']['compensated']:.4f}", f"{result['sparsity']['achieved']:.4f}"]
        print(f"| {title} | {' | '.join(cells)} | {result['seconds']['total']:.0f} |")


if __name__ == "__main__":
    main()

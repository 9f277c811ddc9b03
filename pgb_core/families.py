"""What the files of each family of encoders look like: configuration keys, tensors, classes. Nothing here needs torch.

`architectures.py` has the same families as live modules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Head = Literal["classification", "regression", "question_answering"]
Shape = tuple[int, ...]

HEAD_TITLES: Mapping[Head, str] = {
    "classification": "sequence classifier",
    "regression": "regression of one number",
    "question_answering": "question answering model",
}
"""What a checkpoint with each kind of head is."""

PRUNED_PREFIX = "pgb_"
"""Of `model_type` in a pruned config.json: transformers then refuses the folder instead of re-initializing tensors."""
_ENDING: Mapping[str, str] = {
    "classification": "ForSequenceClassification",
    "regression": "ForSequenceClassification",
    "question_answering": "ForQuestionAnswering",
}
_SIZES: Mapping[str, int] = {
    "num_hidden_layers": 12,
    "hidden_size": 768,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "vocab_size": 30522,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
}
_LINEARS: Mapping[str, str] = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_exit": "attention.output.dense",
    "intermediate": "intermediate.dense",
    "output": "output.dense",
}


@dataclass(frozen=True)
class Family:
    """A family in files. Keys of its configuration and names of its tensors are by what BERT calls them."""

    name: str
    """`model_type`, and the prefix of the tensors of the base model."""
    title: str
    prefix: str
    """How transformers' classes of the family begin."""
    sizes: Mapping[str, int] = field(default_factory=lambda: _SIZES)
    """Defaults of transformers; a key that the family lacks is not there."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """What the configuration calls a value, where that is not BERT's name."""
    numbers: Mapping[str, float] = field(
        default_factory=lambda: {
            "hidden_dropout_prob": 0.1,
            "attention_probs_dropout_prob": 0.1,
            "layer_norm_eps": 1e-12,
        }
    )
    """Further numbers in [0, 1) with their defaults, under the family's own names."""
    pad: int = 0
    shifted: bool = False
    """Positions count from the padding's index on, so that there are fewer of them than rows in the table."""
    layers: str = "encoder.layer"
    linears: Mapping[str, str] = field(default_factory=lambda: _LINEARS)
    norms: tuple[str, str] = ("attention.output.LayerNorm", "output.LayerNorm")
    classifier: tuple[str, str] = ("pooler.dense", "classifier")
    """The two matrices of the head for sequences; one called `pooler` is in the base model."""
    pretrained: tuple[str, ...] = ("cls.",)
    """What the tensors of the heads begin with that a raw encoder was pretrained with; they are not needed."""

    def key(self, name: str) -> str:
        """What config.json calls what BERT calls `name`."""
        return self.keys.get(name, name)

    def positions(self, config: Mapping[str, Any]) -> int:
        """Most tokens of a text, of a configuration that was checked."""
        rows: int = config["max_position_embeddings"]
        return rows - config["pad_token_id"] - 1 if self.shifted else rows

    def encoder_shapes(self, config: Mapping[str, Any], pruned: bool) -> dict[str, Shape]:
        """Name and shape of every tensor of the base model without pooler, the family's name not among them.

        The linear layers of a pruned one are left out: they have the names and sizes that its manifest gives them.
        """
        hidden, inner = config[self.key("hidden_size")], config[self.key("intermediate_size")]
        shapes: dict[str, Shape] = {
            "embeddings.word_embeddings.weight": (config["vocab_size"], hidden),
            "embeddings.position_embeddings.weight": (config["max_position_embeddings"], hidden),
            "embeddings.LayerNorm.weight": (hidden,),
            "embeddings.LayerNorm.bias": (hidden,),
        }
        if "type_vocab_size" in self.sizes:
            shapes["embeddings.token_type_embeddings.weight"] = (config["type_vocab_size"], hidden)
        of_linears = {"intermediate": (inner, hidden), "output": (hidden, inner)}
        for layer in range(config[self.key("num_hidden_layers")]):
            prefix = f"{self.layers}.{layer}"
            for name, path in ({} if pruned else self.linears).items():
                shape = of_linears.get(name, (hidden, hidden))
                shapes[f"{prefix}.{path}.weight"] = shape
                shapes[f"{prefix}.{path}.bias"] = shape[:1]
            for path in self.norms:
                shapes[f"{prefix}.{path}.weight"] = shapes[f"{prefix}.{path}.bias"] = (hidden,)
        return shapes

    def head_shapes(self, head: Head, hidden: int, labels: int, prefix: str) -> dict[str, Shape]:
        """Name and shape of every tensor of the head; `prefix` is that of the base model, with its dot."""
        if head == "question_answering":
            sizes: dict[str, Shape] = {"qa_outputs": (2, hidden)}
        else:
            first, last = self.classifier
            sizes = {(prefix if first.startswith("pooler") else "") + first: (hidden, hidden), last: (labels, hidden)}
        weights = {f"{name}.weight": shape for name, shape in sizes.items()}
        return weights | {f"{name}.bias": shape[:1] for name, shape in sizes.items()}


FAMILIES: Mapping[str, Family] = {
    family.name: family
    for family in (
        Family("bert", "BERT", "Bert"),
        Family(
            "distilbert",
            "DistilBERT",
            "DistilBert",
            sizes={key: value for key, value in _SIZES.items() if key != "type_vocab_size"} | {"num_hidden_layers": 6},
            keys={
                "num_hidden_layers": "n_layers",
                "hidden_size": "dim",
                "num_attention_heads": "n_heads",
                "intermediate_size": "hidden_dim",
                "hidden_act": "activation",
            },
            numbers={"dropout": 0.1, "attention_dropout": 0.1, "seq_classif_dropout": 0.2, "qa_dropout": 0.1},
            layers="transformer.layer",
            linears={
                "query": "attention.q_lin",
                "key": "attention.k_lin",
                "value": "attention.v_lin",
                "attention_exit": "attention.out_lin",
                "intermediate": "ffn.lin1",
                "output": "ffn.lin2",
            },
            norms=("sa_layer_norm", "output_layer_norm"),
            classifier=("pre_classifier", "classifier"),
            pretrained=("vocab_transform.", "vocab_layer_norm.", "vocab_projector."),
        ),
        Family(
            "roberta",
            "RoBERTa",
            "Roberta",
            sizes={**_SIZES, "vocab_size": 50265},
            pad=1,
            shifted=True,
            classifier=("classifier.dense", "classifier.out_proj"),
            pretrained=("lm_head.",),
        ),
    )
}
"""By `model_type` of the dense models."""


def class_name(family: str, what: Head | Literal["Config", "Model"], *, pruned: bool = False) -> str:
    """Name of a class of transformers, or of the file that runs pruned models.

    >>> class_name("distilbert", "question_answering"), class_name("bert", "Config", pruned=True)
    ('DistilBertForQuestionAnswering', 'PGBBertConfig')
    """
    return f"{'PGB' if pruned else ''}{FAMILIES[family].prefix}{_ENDING.get(what, what)}"


def portable_files(family: str) -> tuple[str, ...]:
    """What runs of a pruned model; an exported folder holds copies, for others, which are never run by us."""
    return f"modeling_{PRUNED_PREFIX}{family}.py", "pgb_sublayers.py", "pgb_blocks.py"


def auto_map(family: str, head: Head) -> dict[str, str]:
    """The only `auto_map` that the config.json of a pruned model may have."""
    module = portable_files(family)[0].removesuffix(".py")
    return {
        "AutoConfig": f"{module}.{class_name(family, 'Config', pruned=True)}",
        f"AutoModel{_ENDING[head]}": f"{module}.{class_name(family, head, pruned=True)}",
    }

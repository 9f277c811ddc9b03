"""What a user without this package does with an exported folder; run with `python -I`, in a process of its own.

    python -I standalone.py INPUTS OUTPUTS FOLDER...

Writes the logits, hidden states and attentions of each folder's model for the tensors in INPUTS, as far as it reads
them, into OUTPUTS.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import ModuleType


class Blocked(MetaPathFinder):
    """Makes as if pgb_core were not there."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if fullname.partition(".")[0] == "pgb_core":
            raise ModuleNotFoundError(f"No module named {fullname!r}")


def main() -> None:
    sys.meta_path.insert(0, Blocked())
    import torch
    import transformers
    from safetensors.torch import load_file, save_file

    inputs, found = load_file(sys.argv[1]), {}
    for folder in sys.argv[3:]:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
        known = json.loads((Path(folder) / "config.json").read_text())["auto_map"]
        (auto,) = (getattr(transformers, name) for name in known if name != "AutoConfig")
        found[f"{Path(folder).name}.ids"] = torch.tensor(tokenizer("a happy day, a lovely team")["input_ids"])
        for implementation in ("sdpa", "eager"):
            model, report = auto.from_pretrained(
                folder, trust_remote_code=True, attn_implementation=implementation, output_loading_info=True
            )
            if any(report.values()):
                raise RuntimeError(f"not loaded whole: {report}")
            name = f"{Path(folder).name}.{implementation}"
            with torch.no_grad():
                read = {key: inputs[key] for key in tokenizer.model_input_names}
                outputs = model(**read, output_hidden_states=True, output_attentions=implementation == "eager")
            found |= {f"{name}.{key}": tensor for key, tensor in outputs.items() if key.endswith("logits")}
            found |= {f"{name}.hidden.{n}": state for n, state in enumerate(outputs.hidden_states)}
            found |= {f"{name}.attention.{n}": weights for n, weights in enumerate(outputs.attentions or ())}
    if any(name.partition(".")[0] == "pgb_core" for name in sys.modules):
        raise RuntimeError("pgb_core was imported")
    save_file({name: tensor.contiguous() for name, tensor in found.items()}, sys.argv[2])


if __name__ == "__main__":
    main()

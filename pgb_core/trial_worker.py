"""The helper process behind `trial.Trial`: one JSON request a line on stdin, JSON replies a line each on stdout.

    {"id": 1, "op": "classify", "models": [{"run": RUN, "model": "dense" or "pruned"}], "text": T, "text_pair": null}
    {"id": 2, "op": "texts", "run": RUN, "rows": [3, 8], "labels": [0, 1]}

A reply has the request's `id` and either `progress` (what is being done), `answer` or `error`. Only models of runs in
`settings.runs_dir`, and the checkpoints that they were made from, are ever loaded, by the loaders that a run uses. The
process ends with its stdin, and when nobody has asked for `IDLE_SECONDS`.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from pgb_core import store
from pgb_core.data_files import Columns
from pgb_core.errors import CheckpointError, RunError, explain
from pgb_core.settings import get_settings
from pgb_core.trial import MAX_CHARACTERS

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerFast

log = logging.getLogger(__name__)

IDLE_SECONDS = 600.0
MODELS = 4
"""Most models that are held; the one that was not used for longest goes first."""
ROUNDS = 7
"""In which the models take turns, for their times."""
TEXT_CHARACTERS = 600
"""Of an evaluation text that is sent to a page."""

Tell = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Held:
    """A model that is loaded, with what turns a text into its input."""

    model: nn.Module
    tokenizer: PreTrainedTokenizerFast
    max_length: int


class Worker:
    """Answers requests; holds the models and the last task's texts."""

    def __init__(self) -> None:
        self._models: OrderedDict[tuple[str, str], Held] = OrderedDict()
        self._texts: tuple[tuple[Any, ...], Any] | None = None

    def answer(self, request: Mapping[str, Any], tell: Tell) -> Any:
        """The answer to one request.

        Raises:
            PGBError: it cannot be answered; the message says why.
        """
        operations: dict[str, Callable[[Mapping[str, Any], Tell], Any]] = {
            "classify": self.classify,
            "texts": self.texts,
        }
        return operations[request["op"]](request, tell)

    def classify(self, request: Mapping[str, Any], tell: Tell) -> list[dict[str, Any]]:
        """Per model: label, probability of each label, tokens, and the milliseconds of a forward pass.

        The models take turns, a text at a time, on the CPU.
        """
        from pgb_core import answers, evaluation, latency
        from pgb_core.architectures import head_of
        from pgb_core.batching import batches, encode_texts

        text, pair = request["text"], request.get("text_pair")
        if max(len(text), len(pair or "")) > MAX_CHARACTERS:
            raise RunError(f"A text may have at most {MAX_CHARACTERS} characters.")
        device = evaluation.choose_device("cpu")
        keys = [(entry["run"], entry["model"]) for entry in request["models"]]
        held = {f"{run} {model}": self._held(run, model, tell) for run, model in keys}
        if any(head_of(each.model) != "classification" for each in held.values()):
            raise RunError("Trying a text is for classifiers; this checkpoint has another kind of head.")
        tell("asking the models")
        found, inputs = {}, {}
        for name, each in held.items():
            (example,) = encode_texts([text], None if pair is None else [pair], [0], each.tokenizer, each.max_length)
            (batch,) = batches([example], 1)
            inputs[name] = batch.to(device).inputs
            logits = evaluation.logits(each.model, [example])
            labels, shares = evaluation.labels_of(each.model), answers.softmax(logits)[0]
            found[name] = {
                "label": labels[int(logits[0].argmax())],
                "probabilities": {labels[index]: float(share) for index, share in enumerate(shares)},
                "tokens": len(example.input_ids),
                "cut": len(example.input_ids) >= each.max_length,
            }
        forwards = {name: latency.forward_of(each.model) for name, each in held.items()}
        times = latency.take_turns(
            forwards,
            inputs,
            threads=evaluation.cpu_threads(),
            rounds=ROUNDS,
            step=lambda done, total, message="": tell(message),  # it may wait for another measurement
        )
        return [{**found[name], **latency.summary(times[name])} for name in (f"{run} {model}" for run, model in keys)]

    def texts(self, request: Mapping[str, Any], tell: Tell) -> list[dict[str, str]]:
        """The evaluation texts of a run at `rows`, cut to `TEXT_CHARACTERS`.

        Raises:
            RunError: they are not the texts that the run was tested on: their labels are others.
        """
        run = store.find_run(get_settings().runs_dir, request["run"])
        split = self._split(run.spec, run.model_dir, tell)
        rows: Sequence[int] = request["rows"]
        if not all(0 <= row < len(split) for row in rows):
            raise RunError("The evaluation texts have changed since the run: there are fewer now.")
        found = split[list(rows)]
        if [int(label) for label in found["label"]] != list(request["labels"]):
            raise RunError("The evaluation texts have changed since the run: their labels are others.")
        columns = [name for name in ("text", "text_pair") if name in found]
        return [{name: found[name][n][:TEXT_CHARACTERS] for name in columns} for n in range(len(rows))]

    def _split(self, spec: Mapping[str, Any], model: Path, tell: Tell) -> Any:
        columns = Columns.of_spec(spec)
        key = *(spec.get(name) for name in ("task", "train_file", "eval_file", "seed")), columns
        if self._texts is None or self._texts[0] != key:
            from pgb_core import tasks
            from pgb_core.inspection import describe

            tell("reading the evaluation texts")
            data = tasks.load_task(
                spec["task"],
                id2label=dict(enumerate(describe(model).labels)),
                train_file=spec.get("train_file"),
                eval_file=spec.get("eval_file"),
                columns=columns,
                seed=int(spec["seed"]),
            )
            self._texts = key, data.evaluation
        return self._texts[1]

    def _held(self, run_id: str, which: str, tell: Tell) -> Held:
        run = store.find_run(get_settings().runs_dir, run_id)
        # the dense model of many runs is one
        key = (str(run.spec["fingerprint"]), "dense") if which == "dense" else (run.id, "pruned")
        if key not in self._models:
            tell(f"loading the {which} model")
            self._models[key] = _load_dense(run) if which == "dense" else _load_pruned(run)
            while len(self._models) > MODELS:
                self._models.popitem(last=False)
        self._models.move_to_end(key)
        return self._models[key]


def _load_pruned(run: store.Run) -> Held:
    from pgb_core import checkpoints
    from pgb_core.saving import load_pruned

    model, tokenizer = load_pruned(run.model_dir), checkpoints.load_tokenizer(run.model_dir)
    return Held(model, tokenizer, int(run.spec["max_length"]))


def _load_dense(run: store.Run) -> Held:
    from pgb_core import checkpoints

    path = Path(run.spec["checkpoint_path"])
    try:
        found = checkpoints.fingerprint(path)
    except (OSError, CheckpointError) as error:
        raise RunError("The checkpoint that this run began with is no longer there.") from error
    if found != run.spec["fingerprint"]:
        raise RunError("The checkpoint that this run began with has changed since.")
    return Held(checkpoints.load_model(path), checkpoints.load_tokenizer(path), int(run.spec["max_length"]))


def serve(requests: TextIO, replies: TextIO, worker: Worker, idle_seconds: float = IDLE_SECONDS) -> None:
    """Answer every request until there are no more, or end the process when none comes for `idle_seconds`."""
    while True:
        watchdog = threading.Timer(idle_seconds, os._exit, args=(0,))  # readline cannot be interrupted otherwise
        watchdog.daemon = True
        watchdog.start()
        line = requests.readline()
        watchdog.cancel()
        if not line:
            return
        _reply(json.loads(line), replies, worker)


def _reply(request: Mapping[str, Any], replies: TextIO, worker: Worker) -> None:
    def send(**reply: Any) -> None:
        replies.write(json.dumps({"id": request["id"], **reply}) + "\n")
        replies.flush()

    try:
        send(answer=worker.answer(request, lambda message: send(progress=message)))
    except Exception as error:
        if explain(error) is None:  # a fault of ours: the next question may do better all the same
            log.exception("A question could not be answered.")
        send(error=explain(error) or f"This could not be done ({type(error).__name__}); see the server's log.")


def main() -> None:
    """Serve stdin and stdout; what libraries print goes to stderr."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C in the terminal of the app ends this as well, quietly
    for name, value in (("OMP_WAIT_POLICY", "PASSIVE"), ("TOKENIZERS_PARALLELISM", "false")):
        os.environ.setdefault(name, value)
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    from pgb_core import evaluation  # noqa: F401  # what takes longest, before the first question is there

    serve(sys.stdin, replies, Worker())


if __name__ == "__main__":
    main()

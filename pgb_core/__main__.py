"""The command line: everything that the dashboard does, without it.

    python -m pgb_core prune --checkpoint demo --task bbc-news --sparsity 0.5 --out runs/first

The answer goes to stdout (with `--json` as one JSON document and nothing else), progress and errors go to stderr. What
a user can cause ends with one line and exit code 2, a cancelled run with 130.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from pgb_core import arguments, checkpoints, commands, console, ending, processes, store, sweep_spec, sweep_table
from pgb_core.data_files import Columns
from pgb_core.errors import JobCancelled, explain
from pgb_core.settings import get_settings
from pgb_core.shards import Shard
from pgb_core.spec import PruneSpec
from pgb_core.sweep_spec import SweepSpec

_CANCELLED = 130


@dataclass(frozen=True)
class Answer:
    """What a command found: `value` for programs, `text` for people."""

    value: object
    text: str


# --- the commands --------------------------------------------------------------------------------------------------


def demo(args: argparse.Namespace, printer: console.ProgressPrinter) -> Answer:
    """Prepare the demo checkpoint of a task."""
    from pgb_core.demo import prepare, summary, task_for

    folder = prepare(args.task, printer.step("demo"))
    return Answer(summary(task_for(args.task)), str(folder))


def prune(args: argparse.Namespace, printer: console.ProgressPrinter) -> Answer | None:
    """Prune a checkpoint into a run folder; a process that only helps another one has no answer."""
    if not processes.first():
        with ending.cancellable(args.out):
            from pgb_core.pruner import help_recover

            help_recover(spec_from(args), args.out)
        return None
    if not args.queued:
        store.withdraw_cancel(args.out)
    with ending.cancellable(args.out):
        try:
            spec = spec_from(args)
            checkpoints.ask_ahead(spec.checkpoint)
            from pgb_core.pruner import prune as prune_checkpoint

            result = prune_checkpoint(spec, args.out, printer.report)
        except BaseException as error:
            ending.settle(args.out, error)
            raise
    return Answer(result, f"{console.describe_result(result)}\n{args.out}")


def sweep(args: argparse.Namespace, printer: console.ProgressPrinter) -> Answer:
    """Prune a checkpoint many times, sharing the scoring pass, into a folder with a run for each point."""
    shard = None if args.shard is None else Shard.parse(args.shard)
    place = args.part or (args.out if shard is None else shard.folder(args.out))
    if not args.queued:
        store.withdraw_cancel(place)

    def told(row: Mapping[str, Any]) -> None:
        printer.close()
        print(f"pgb: {console.describe_point(row)}", file=sys.stderr)

    with ending.cancellable(place):
        try:
            spec = sweep_from(args)
            from pgb_core.sweep import sweep as sweep_checkpoint

            rows = sweep_checkpoint(
                spec,
                args.out,
                runs_dir=args.out.parent if args.queued else args.out,
                on_progress=printer.report,
                on_point=told,
                guard=ending.cancellable,
                shard=shard,
                helper=args.part,
            )
        except BaseException as error:
            ending.settle(place, error)
            raise
    text = f"{console.describe_points(rows)}\n{args.out / sweep_table.CSV_FILE}"
    return Answer({"folder": str(args.out), "points": rows}, text)


def score(args: argparse.Namespace, printer: console.ProgressPrinter) -> Answer:
    """Score a checkpoint for the What if page."""
    spec = PruneSpec(sparsity=0.0, method="pgb-mixed", **{name: getattr(args, name) for name in commands.SCORE_FIELDS})
    if args.out is None:
        checkpoints.ask_ahead(spec.checkpoint)
        from pgb_core.scoring import score_checkpoint

        found = score_checkpoint(spec, again=args.again, on_progress=printer.report)
    else:  # in the background: the page watches the folder that jobs.submit made
        with ending.cancellable(args.out):
            try:
                checkpoints.ask_ahead(spec.checkpoint)
                from pgb_core.scoring import score_checkpoint

                found = score_checkpoint(spec, again=args.again, out=args.out, on_progress=printer.report)
            except BaseException as error:
                ending.settle(args.out, error)
                raise
    return Answer(found, console.describe_scoring(found))


def finetune(args: argparse.Namespace, printer: console.ProgressPrinter) -> Answer:
    """Train an encoder with a new head on a task."""
    from pgb_core.finetune_spec import FinetuneSpec

    spec = FinetuneSpec(**{item.name: getattr(args, item.name) for item in fields(FinetuneSpec)})

    def work() -> dict[str, Any]:
        checkpoints.ask_ahead(spec.checkpoint)
        from pgb_core.finetuning import finetune_checkpoint

        return finetune_checkpoint(spec, args.out, run=args.job, on_progress=printer.report)

    if args.job is None:
        found = work()
    else:  # in the background: the page watches the folder that jobs.submit_finetune made
        with ending.cancellable(args.job):
            try:
                found = work()
            except BaseException as error:
                ending.settle(args.job, error)
                raise
    return Answer(found, console.describe_finetuned(found))


def evaluate(args: argparse.Namespace, printer: console.ProgressPrinter) -> Answer:
    """Score a dense or a pruned checkpoint."""
    checkpoints.ask_ahead(args.checkpoint)
    from pgb_core.evaluation import evaluate_checkpoint

    score = evaluate_checkpoint(
        args.checkpoint,
        args.task,
        train_file=args.train_file,
        eval_file=args.eval_file,
        columns=Columns(args.text_column, args.pair_column, args.label_column, tuple(args.label_map)),
        eval_samples=args.eval_samples,
        max_length=args.max_length,
        device=args.device,
        seed=args.seed,
        step=printer.step("evaluation"),
    )
    return Answer(score, console.to_json(score))


def latency(args: argparse.Namespace, printer: console.ProgressPrinter) -> Answer:
    """Measure the latency of one checkpoint, or of two against each other, at one shape or at several."""
    checkpoints.ask_ahead(*filter(None, (args.checkpoint, args.against)))
    from pgb_core.latency import Shape, measure_checkpoints

    measured = measure_checkpoints(
        args.checkpoint,
        against=args.against,
        task=args.task,
        shapes=[Shape(batch, length) for batch in args.batch for length in args.length],
        threads=args.threads,
        device=args.device,
        runtime=args.runtime,
        step=printer.step("latency"),
    )
    if len(measured) == 1:
        return Answer(measured[0], console.describe_latency(measured[0], itself=args.against is None))
    return Answer(measured, console.describe_latencies(measured))


def export(args: argparse.Namespace, printer: console.ProgressPrinter) -> Answer:
    """Write a pruned model to be taken along."""
    from pgb_core.export import export as export_model

    written = export_model(args.source, args.out, args.format, printer.step("export"))
    return Answer(written, console.describe_export(written))


def runs(args: argparse.Namespace, printer: console.ProgressPrinter) -> Answer:
    """List, show or delete the runs of the dashboard."""
    runs_dir = get_settings().runs_dir
    if args.action == "list":
        found = store.list_own(runs_dir)
        return Answer([_run_entry(run) for run in found], _run_table(found) or f"There are no runs in {runs_dir}.")
    if args.action == "delete":
        store.delete_run(runs_dir, args.id)
        return Answer({"deleted": args.id}, f"Deleted run {args.id}.")
    run = store.find_run(runs_dir, args.id)
    value = {**_run_entry(run), "spec": run.spec, "result": run.result}
    head = console.table([*_run_lines(run), ("folder", str(run.path))])
    return Answer(value, head if run.result is None else f"{head}\n{console.describe_result(run.result)}")


def worker(args: argparse.Namespace, printer: console.ProgressPrinter) -> Answer:
    """Supervise the runs that wait, until a signal."""
    from pgb_core.worker import serve

    served = serve(get_settings().runs_dir, args.device, args.jobs, args.lock)
    return Answer({"runs": served}, f"{served} runs supervised.")


def _run_entry(run: store.Run) -> dict[str, Any]:
    return {"id": run.id, "path": str(run.path), "status": asdict(run.status)}


def _run_lines(run: store.Run) -> list[tuple[str, ...]]:
    message = f" ({run.status.message})" if run.status.message and run.status.state != "done" else ""
    spec = run.spec
    return [
        ("run", run.id),
        ("state", f"{run.status.state}{message}"),
        ("spec", f"{spec['checkpoint']}, {spec['task']}, {spec['method']}, {spec['sparsity']:.0%} to remove"),
    ]


def _run_table(found: Sequence[store.Run]) -> str:
    if not found:
        return ""
    rows: list[tuple[str, ...]] = [("RUN", "STATE", "CHECKPOINT", "TASK", "METHOD", "SPARSITY", "SCORE")]
    for run in found:
        spec, score = run.spec, "-"
        if run.result is not None:
            scores = run.result["score"]
            score = f"{scores['compensated'] if scores['recovered'] is None else scores['recovered']:.4f}"
        sparsity = f"{spec['sparsity']:.0%}"
        rows.append((run.id, run.status.state, spec["checkpoint"], spec["task"], spec["method"], sparsity, score))
    return console.table(rows)


# --- arguments -----------------------------------------------------------------------------------------------------


def make_parser() -> argparse.ArgumentParser:
    """The parser of every command; `args.run` is the command's function."""
    commands = (demo, prune, sweep, score, finetune, evaluate, latency, export, worker, runs)
    return arguments.make_parser({command.__name__: command for command in commands})


def spec_from(args: argparse.Namespace) -> PruneSpec:
    """The spec that the arguments of `prune` describe.

    Raises:
        SpecError: a value is out of range.
    """
    return PruneSpec(**{item.name: getattr(args, item.name) for item in fields(PruneSpec)})


def sweep_from(args: argparse.Namespace) -> SweepSpec:
    """The spec that the arguments of `sweep` describe.

    Raises:
        SpecError: a value is out of range.
    """
    values = {item.name: getattr(args, item.name) for item in fields(PruneSpec) if item.name not in sweep_spec.AXES}
    lists = (args.sparsities, args.methods, args.recover_epochs, args.seeds, args.checkpoint, args.task)
    names = ("sparsity", "method", "recover_epochs", "seed", "checkpoint", "task")
    first = {name: found[0] for name, found in zip(names, lists, strict=True)}
    return SweepSpec(PruneSpec(**values, **first), *map(tuple, lists))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.run is runs and args.action != "list" and args.id is None:
        parser.error(f"runs {args.action} needs the id of a run; 'runs list' shows them")
    _set_up_libraries(logging.INFO if args.run is worker else logging.WARNING)
    printer = console.ProgressPrinter(sys.stderr)
    try:
        if args.run is not prune:
            processes.refuse_several(args.run.__name__)
        with console.only_the_answer_on_stdout():
            answer = args.run(args, printer)
    except (Exception, KeyboardInterrupt) as error:
        line = explain(error)
        if line is None:
            raise
        printer.close()
        print(f"pgb: {line}", file=sys.stderr)
        return _CANCELLED if isinstance(error, JobCancelled | KeyboardInterrupt) else arguments.USER_ERROR
    printer.close()
    if answer is None:
        return 0
    return _print(console.to_json(answer.value) if args.json else answer.text)


def _print(text: str) -> int:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # `| head` has read enough; nothing must be flushed into the pipe at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0


def _set_up_libraries(level: int) -> None:
    """Before any is loaded. They speak up from warnings on, we from `level`, on stderr; a run logs into its folder."""
    for name, value in (
        # threads that wait must not spin: beside other work on the same cores, a run is otherwise several times slower
        ("OMP_WAIT_POLICY", "PASSIVE"),
        ("TOKENIZERS_PARALLELISM", "false"),
        ("TRANSFORMERS_VERBOSITY", "error"),
        ("HF_HUB_DISABLE_PROGRESS_BARS", "1"),
        ("HF_DATASETS_DISABLE_PROGRESS_BARS", "1"),
    ):
        os.environ.setdefault(name, value)
    logging.Formatter.converter = time.gmtime
    stderr = logging.StreamHandler()
    stderr.setLevel(level)
    logging.getLogger("pgb_core").setLevel(level)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", handlers=[stderr])


if __name__ == "__main__":
    sys.exit(main())

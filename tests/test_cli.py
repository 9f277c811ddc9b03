"""The command line: one answer on stdout, one line on stderr for what a user gets wrong, the right exit code."""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pgb_core import CheckpointError, JobCancelled, JobRejected, PruneSpec, console, jobs, store, sweep_table
from pgb_core import __main__ as cli
from pgb_core.console import ProgressPrinter
from pgb_core.errors import explain
from pgb_core.progress import Progress
from pgb_core.settings import get_settings
from pgb_core.sweep_spec import SweepSpec, find_sweep, write_sweep
from tests.sample_run import make_sample_run
from tests.watching import wait_until_gone

ROOT = Path(__file__).resolve().parent.parent
PRUNE = ("prune", "--checkpoint", "demo", "--task", "bbc-news", "--sparsity", "0.5", "--out", "unused")
SWEEP = ("sweep", "--checkpoint", "demo", "--task", "bbc-news", "--sparsities", "0.5", "--out", "unused")
EVALUATE = ("evaluate", "--checkpoint", "demo", "--task", "bbc-news")


def pgb(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """`python -m pgb_core` in a process of its own."""
    command = [sys.executable, "-m", "pgb_core", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, **options)


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line on stderr with which a command was refused; nothing else was said."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("pgb: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr.removeprefix("pgb: ").strip()


# --- what a user can get wrong -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "the following arguments are required: COMMAND"),
        (("paint",), "invalid choice: 'paint'"),
        (("prune",), "the following arguments are required: --checkpoint, --task, --sparsity, --out"),
        ((*PRUNE, "--sparsity", "half"), "argument --sparsity: invalid float value: 'half'"),
        ((*PRUNE, "--sparsity", "1.5"), r"sparsity 1.5 is not in [0, 1); 0.5 removes half the weights."),
        ((*PRUNE, "--sparsity", "nan"), r"sparsity nan is not in [0, 1)"),
        ((*PRUNE, "--method", "magic"), "argument --method: invalid choice: 'magic' (choose from"),
        ((*PRUNE, "--task", "chess"), "argument --task: invalid choice: 'chess' (choose from"),
        ((*PRUNE, "--budget", "bytes"), "argument --budget: invalid choice: 'bytes' (choose from"),
        ((*PRUNE, "--min-groups", "4", "--max-groups", "3"), "max groups 3 must be at least 4."),
        ((*PRUNE, "--pin", "0.attention", "--pin", "1.heads"), "pin '1.heads' is not LAYER.attention or"),
        ((*PRUNE, "--device", "tpu"), "argument --device: invalid choice: 'tpu'"),
        ((*PRUNE, "--eval-samples", "0"), "argument --eval-samples: 0 is not at least 1"),
        ((*PRUNE, "--eval-samples", "few"), "argument --eval-samples: invalid whole number value: 'few'"),
        ((*PRUNE, "--calibration-samples", "2"), "calibration samples 2 is not in 8..8192."),
        ((*PRUNE, "--recover-epochs", "-1"), "recover epochs -1 is not in 0..20."),
        ((*PRUNE, "--task", "csv"), "task csv needs --train-file with columns text[,text_pair],label."),
        ((*PRUNE, "--train-file", "x.csv"), "--train-file and --eval-file belong to task csv, not to 'bbc-news'."),
        ((*EVALUATE, "--seed", "-1", "--eval-samples", "10"), "seed -1 is not in 0..2147483647."),
        ((*EVALUATE, "--max-length", "1"), "max length 1 is not in 8..512."),
        ((*EVALUATE, "--train-file", "x.csv"), "--train-file and --eval-file belong to task csv, not to 'bbc-news'."),
        ((*EVALUATE, "--task", "csv"), "task csv needs --train-file with columns text[,text_pair],label."),
        ((*EVALUATE, "--checkpoint", " "), "checkpoint is empty; give 'demo', a folder or a Hub id."),
        ((*PRUNE, "--recover", "2"), "unrecognized arguments: --recover 2"),
        (("latency", "--checkpoint", "demo", "--batch", "8,0"), "argument --batch: 0 is not at least 1"),
        (("sweep",), "the following arguments are required: --checkpoint, --task, --sparsities, --out"),
        ((*SWEEP, "--sparsities", "0.5,half"), "argument --sparsities: invalid number value: '0.5,half'"),
        ((*SWEEP, "--sparsities", "0.5,1.5"), "sparsity 1.5 is not in [0, 1)"),
        ((*SWEEP, "--methods", "pgb,magic"), "unknown method 'magic'"),
        ((*SWEEP, "--methods", "pgb,pgb"), "method of a sweep names a value twice."),
        ((*SWEEP, "--seeds", ""), "argument --seeds: invalid whole number value: ''"),
        ((*SWEEP, "--methods", "pgb,kwon", "--pin", "0.attention"), "method kwon knows neither pins nor limits"),
        (("runs", "show"), "runs show needs the id of a run; 'runs list' shows them"),
        (("runs", "delete"), "runs delete needs the id of a run; 'runs list' shows them"),
        (("runs", "show", "../../etc"), "There is no run '../../etc' on this server."),
        (("runs", "delete", "20250101-000000-abcdef"), "There is no run '20250101-000000-abcdef' on this server."),
        (("runs", "paint"), "argument action: invalid choice: 'paint'"),
        (("demo", "--task", "chess"), "chess"),
        (("export", "--run", "x"), "the following arguments are required: --format, --out"),
        (("export", "--run", "x", "--out", "y", "--format", "pickle"), "argument --format: invalid choice: 'pickle'"),
    ],
)
def test_a_wrong_argument_is_one_line(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = cli.main(arguments)
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    out, err = capsys.readouterr()
    assert message in refused(subprocess.CompletedProcess(arguments, code, out, err))


def test_the_same_from_a_shell_without_a_traceback(tmp_path: Path) -> None:
    done = pgb(*PRUNE[:-2], "--out", tmp_path / "run", "--sparsity", "2", "--json")
    assert refused(done) == "sparsity 2.0 is not in [0, 1); 0.5 removes half the weights."
    assert not (tmp_path / "run").exists()


def test_a_wrong_setting_is_one_line() -> None:
    done = pgb("runs", env={**os.environ, "PGB_MAX_RUNNING_JOBS": "0"})
    assert refused(done) == "PGB_MAX_RUNNING_JOBS='0' is not a whole number of at least 1; correct it or unset it."


@pytest.mark.parametrize("command", ["demo", "prune", "sweep", "evaluate", "latency", "export", "runs", "score"])
def test_help_names_every_flag(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main([command, "--help"])
    assert exit_.value.code == 0
    out, err = capsys.readouterr()
    assert "--json" in out
    assert "--queued" not in out
    assert err == ""


# --- how errors become lines and codes -----------------------------------------------------------------------------


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], int]:
    """Runs the command line with a command that raises, and returns the exit code."""

    def run(error: BaseException) -> int:
        def demo(args: argparse.Namespace, printer: ProgressPrinter) -> cli.Answer:
            printer.step("work")(1, 2, "half")
            print("chatter of a library")
            raise error

        monkeypatch.setattr(cli, "demo", demo)
        return cli.main(["demo", "--json"])

    return run


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (CheckpointError("no checkpoint\nhere"), 2, "no checkpoint here"),
        (JobCancelled("The run was cancelled."), 130, "The run was cancelled."),
        (KeyboardInterrupt(), 130, "Interrupted."),
        (MemoryError(), 2, "Not enough memory; take a smaller checkpoint"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), 2, "Not enough memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"), 2, "Not enough memory"),
        (OSError(28, "No space left on device", "/runs/x"), 2, "/runs/x: No space left on device; free some space"),
        (PermissionError(13, "Permission denied", "/runs/x"), 2, "/runs/x: Permission denied."),
        (OSError("odd"), 2, "odd."),
    ],
)
def test_an_error_is_one_line_after_the_progress(
    failing: Callable[[BaseException], int],
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    line: str,
) -> None:
    assert failing(error) == code
    out, err = capsys.readouterr()
    assert out == ""
    progress, chatter, last = err.splitlines()
    assert progress == "[ 50%] work: half"
    assert chatter == "chatter of a library"
    assert last.startswith(f"pgb: {line}")


def test_a_fault_of_the_program_is_not_hidden(failing: Callable[[BaseException], int]) -> None:
    with pytest.raises(RuntimeError, match="a fault"):
        failing(RuntimeError("a fault"))
    assert explain(RuntimeError("a fault")) is None
    assert explain(ValueError("a fault")) is None


# --- stdout belongs to the answer ----------------------------------------------------------------------------------


def test_what_libraries_and_their_children_print_goes_to_stderr() -> None:
    code = (
        "import os, subprocess, sys\n"
        "from pgb_core import __main__ as cli\n"
        "def demo(args, printer):\n"
        "    print('python')\n"
        "    os.write(1, b'native\\n')\n"
        "    subprocess.run(['echo', 'child'], check=True)\n"
        "    return cli.Answer({'a': 1}, 'text')\n"
        "cli.demo = demo\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", code, "demo"]
    done = subprocess.run([*command, "--json"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout) == {"a": 1}
    assert sorted(done.stderr.split()) == ["child", "native", "python"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "text\n"


def test_a_reader_that_has_read_enough_is_no_error() -> None:
    for _ in range(3):
        make_sample_run(get_settings().runs_dir)
    command = f"{sys.executable!r} -m pgb_core runs --json | true"
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""


def test_no_answer_holds_a_nan() -> None:
    with pytest.raises(ValueError, match="JSON"):
        console.to_json({"score": float("nan")})


# --- progress ------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_in_a_file_is_a_line_a_second_at_most() -> None:
    now, stream = [0.0], io.StringIO()
    printer = ProgressPrinter(stream, clock=lambda: now[0])
    step = printer.step("work")
    for piece in range(31):
        now[0] = 100 + piece / 10
        step(piece, 30, f"piece {piece}")
    printer.close()
    assert stream.getvalue().splitlines() == [
        "[  0%] work: piece 0",
        "[ 33%] work: piece 10",
        "[ 67%] work: piece 20",
        "[100%] work: piece 30",
    ]


def test_progress_on_a_terminal_is_one_line_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    now, stream = [100.0], Terminal()
    printer = ProgressPrinter(stream, clock=lambda: now[0])
    printer.report(Progress("importance", 0.5, 0.25, "batch 3 of 6 of a very long message", 61.0))
    now[0] += 1
    printer.report(Progress("budget", 0.0, 0.5, "", None))
    printer.close()
    printer.close()
    assert stream.getvalue() == "\r\x1b[2K[ 25%] importance: batch 3 of\r\x1b[2K[ 50%] budget\n"


# --- runs ----------------------------------------------------------------------------------------------------------


def test_runs_list_show_delete() -> None:
    runs_dir = get_settings().runs_dir
    assert pgb("runs").stdout == f"There are no runs in {runs_dir}.\n"
    assert json.loads(pgb("runs", "list", "--json").stdout) == []

    path = make_sample_run(runs_dir, sparsity=0.5, recovered=True)
    result = store.read_json(path / "result.json")
    header, row = pgb("runs", "list").stdout.splitlines()
    assert header.split() == ["RUN", "STATE", "CHECKPOINT", "TASK", "METHOD", "SPARSITY", "SCORE"]
    assert row.split() == [path.name, "done", "demo", "bbc-news", "pgb", "50%", f"{result['score']['recovered']:.4f}"]
    (entry,) = json.loads(pgb("runs", "list", "--json").stdout)
    assert (entry["id"], entry["path"], entry["status"]["state"]) == (path.name, str(path), "done")

    shown = json.loads(pgb("runs", "show", path.name, "--json").stdout)
    assert shown["result"] == result
    assert shown["spec"]["sparsity"] == 0.5
    text = pgb("runs", "show", path.name).stdout
    assert "demo, bbc-news, pgb, 50% to remove" in text
    assert f"recovered {result['score']['recovered']:.4f}" in text

    assert json.loads(pgb("runs", "delete", path.name, "--json").stdout) == {"deleted": path.name}
    assert not path.exists()


def test_a_failed_run_is_shown_with_its_reason() -> None:
    path = make_sample_run(get_settings().runs_dir)
    (path / "result.json").unlink()
    store.write_status(path, store.Status("failed", message="The disk is full."))
    done = pgb("runs", "show", path.name)
    assert done.returncode == 0
    assert "failed (The disk is full.)" in done.stdout
    assert pgb("runs", "list").stdout.splitlines()[1].split()[-1] == "-"


# --- results in words ----------------------------------------------------------------------------------------------


def test_a_result_in_words(tmp_path: Path) -> None:
    result = store.read_json(make_sample_run(tmp_path) / "result.json")
    lines = dict(line.split(maxsplit=1) for line in console.describe_result(result).splitlines())
    assert lines["removed"].endswith("of the encoder weights (asked for 50.00%)")
    assert f"dense {result['score']['dense']:.4f} ±" in lines["accuracy"]
    assert "recovered" not in lines["accuracy"]
    assert f"{result['latency']['speedup']:.2f}x as fast" in lines["latency"]
    assert "latency" not in console.describe_result({**result, "latency": None})
    pgb_loss, mixed_loss = (result["predictions"][name]["loss"] for name in ("pgb", "pgb-mixed"))
    predicted = f"pgb {pgb_loss:.3g}, pgb-mixed {mixed_loss:.3g}, structured out of reach"
    assert lines["predicted"] == f"loss by the option tables: {predicted}"
    in_flops = console.describe_result({**result, "budget": {"unit": "flops", "achieved": 0.512}})
    assert "51.20% of the encoder's FLOPs (asked for 50.00%), " in in_flops
    for without in ({}, {"pgb-paper": result["predictions"]["pgb"]}):
        assert "option tables" not in console.describe_result({**result, "predictions": without})


def test_latency_in_words() -> None:
    times = {"dense": {"median_ms": 12.34}, "pruned": {"median_ms": 6.17}, "speedup": 2.0, "ideal_speedup": 2.5}
    latency = {**times, "batch": 8, "length": 128, "threads": 2, "device": "cpu"}
    place = "batch 8 of 128 tokens, cpu, 2 threads"
    assert console.describe_latency(latency) == f"dense 12.3 ms, pruned 6.2 ms, 2.00x as fast (ideal 2.50x); {place}"
    assert console.describe_latency(latency, itself=True) == f"12.3 ms, measured again 6.2 ms; {place}"
    assert console.describe_latency({**latency, "threads": 1}).endswith("1 thread")


# --- the real thing, on a tiny checkpoint --------------------------------------------------------------------------


@pytest.mark.timeout(300)
def test_prune_evaluate_latency(
    tiny_checkpoint: Path, tiny_csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a run"
    data = ("--task", "csv", "--train-file", tiny_csv, "--max-length", "32")
    options = ("--sparsity", "0.5", "--calibration-samples", "64", "--recover-epochs", "1", "--device", "cpu")
    done = pgb("prune", "--checkpoint", tiny_checkpoint, *data, *options, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result == store.read_json(out / "result.json")
    assert result["method"] == "pgb"
    assert result["sparsity"]["target"] == 0.5
    assert result["parameters"]["pruned"] < result["parameters"]["dense"]
    assert set(result["score"]) >= {"metric", "dense", "masked", "compensated", "recovered", "samples"}
    assert result["latency"]["speedup"] > 0
    assert re.search(r"\[ *\d+%\] loading: ", done.stderr)  # progress; how many lines depends on the machine

    run = store.read_run(out)
    assert run.status.state == "done"
    assert PruneSpec.from_dict(run.spec).sparsity == 0.5

    def answer(*arguments: str | Path) -> str:
        assert cli.main([str(argument) for argument in arguments]) == 0
        return capsys.readouterr().out

    for folder, expected in ((tiny_checkpoint, "dense"), (out / "model", "recovered")):
        score = json.loads(answer("evaluate", "--checkpoint", folder, *data, "--device", "cpu", "--json"))
        assert {"metric", "score", "samples", "standard_error", "task", "checkpoint"} <= set(score)
        assert score["score"] == pytest.approx(result["score"][expected])
        assert score["samples"] == result["score"]["samples"]

    sizes = ("--batch", "2", "--length", "16", "--threads", "1", "--device", "cpu")
    against = ("latency", "--checkpoint", out / "model", "--against", tiny_checkpoint, *sizes)
    latency = json.loads(answer(*against, "--json"))
    assert (latency["batch"], latency["length"], latency["threads"]) == (2, 16, 1)
    assert latency["dense"]["median_ms"] > 0
    assert latency["pruned"]["median_ms"] > 0
    assert "as fast" in answer(*against)
    several = answer(*against, "--batch", "1,2").splitlines()  # the last one counts
    assert [line.split()[:2] for line in several] == [["batch", "tokens"], ["1", "16"], ["2", "16"]]
    assert "measured again" in answer("latency", "--checkpoint", tiny_checkpoint, *sizes)


@pytest.mark.parametrize("command", ["prune", "evaluate"])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [("checkpoint", "nowhere"), ("train_file", "nowhere.csv"), ("column", "label"), ("label", "purple")],
)
def test_a_wrong_file_is_one_line(
    tiny_checkpoint: Path,
    tiny_csv: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    wrong: str,
    message: str,
) -> None:
    checkpoint, train = tiny_checkpoint, tiny_csv
    if wrong == "checkpoint":
        checkpoint = tmp_path / "nowhere"
    elif wrong == "train_file":
        train = tmp_path / "nowhere.csv"
    else:
        train = tmp_path / "wrong.csv"
        header = "text,color" if wrong == "column" else "text,label"
        train.write_text("\n".join([header, *(f"a text,{'purple' if n % 2 else 'negative'}" for n in range(20))]))
    arguments: list[str | Path] = ["--checkpoint", checkpoint, "--task", "csv", "--train-file", train]
    if command == "prune":
        arguments += ["--sparsity", "0.5", "--out", tmp_path / "run", "--no-latency"]
    code = cli.main([command, *map(str, arguments), "--json"])
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if not line.startswith("[")]  # after the progress
    assert message in refused(subprocess.CompletedProcess(arguments, code, out, "".join(f"{line}\n" for line in lines)))
    if (tmp_path / "run").exists():
        assert store.read_status(tmp_path / "run").state == "failed"


@pytest.mark.timeout(300)
def test_a_run_in_the_background_is_the_same_command(
    tiny_checkpoint: Path, tiny_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"train_file": str(tiny_csv), "max_length": 32}
    spec = PruneSpec(str(tiny_checkpoint), "csv", 0.5, **files, calibration_samples=64, latency=False, device="cpu")
    run_dir = get_settings().runs_dir / jobs.submit(spec)
    result = jobs.result(run_dir, 240)
    run = store.read_run(run_dir)
    assert run.result == result
    assert PruneSpec.from_dict(run.spec) == spec
    assert wait_until_gone(store.recorded_status(run_dir))
    assert "accuracy" in store.log_file(run_dir).read_text()  # the table, printed when the run is done


def test_a_sweep_prints_its_points_and_writes_them_as_a_table(
    tiny_checkpoint: Path, tiny_csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--checkpoint", str(tiny_checkpoint), "--task", "csv", "--train-file", str(tiny_csv)]
    size = ["--calibration-samples", "64", "--eval-samples", "40", "--no-latency", "--out", str(tmp_path / "sweep")]
    arguments = ["sweep", *files, *size, "--sparsities", "0.4,0.7", "--methods", "magnitude"]
    assert cli.main([*arguments, "--json"]) == 0
    out, err = capsys.readouterr()
    answer = json.loads(out)
    assert [(p["sparsity"], p["state"]) for p in answer["points"]] == [(0.4, "done"), (0.7, "done")]
    assert err.count("pgb: tiny, csv, magnitude, ") == 2  # each as soon as it is there
    for point in answer["points"]:
        run = store.read_run(Path(answer["folder"]) / point["run"])
        assert run.result is not None
        assert run.result["score"]["compensated"] == point["score"]
    assert cli.main(arguments) == 0  # nothing is left to do
    out, err = capsys.readouterr()
    assert out.count("magnitude") == 2
    assert out.splitlines()[-1] == str(tmp_path / "sweep" / "points.csv")
    assert "pgb: tiny" not in err


@pytest.mark.timeout(600)
def test_a_sweep_in_the_background_can_be_cancelled_and_goes_on(
    tiny_checkpoint: Path, tiny_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGB_CANCEL_GRACE_SECONDS", "20")  # it is to unwind by itself, however busy the machine
    base = PruneSpec(str(tiny_checkpoint), "csv", 0.5, train_file=str(tiny_csv), calibration_samples=64, device="cpu")
    runs_dir = get_settings().runs_dir
    spec = SweepSpec(replace(base, latency=False), (0.4, 0.7), ("magnitude",), (0, 20))
    sweep = find_sweep(runs_dir, jobs.submit_sweep(spec))
    wait_for_recovery(sweep.path)  # of the third point: those without come first
    assert jobs.queue_position(sweep.path) == 0
    jobs.cancel(sweep.path)
    assert sweep.status().state == "cancelled"
    assert [sweep.state(point) for point in sweep.points] == ["done", "done", "cancelled", None]
    before = [(sweep.folder(point) / "result.json").stat().st_mtime_ns for point in sweep.points[:2]]
    shorter = write_sweep(sweep.path, replace(spec, recover_epochs=(0, 1)), runs_dir)
    jobs.resume_sweep(shorter)
    with pytest.raises(JobRejected, match="still running"):
        jobs.resume_sweep(shorter)
    deadline = time.monotonic() + 300
    while shorter.status().active and time.monotonic() < deadline:
        time.sleep(0.2)
    assert shorter.status().state == "done", store.log_file(sweep.path).read_text()
    assert [row["state"] for row in sweep_table.rows(shorter)].count("done") == 4
    assert [(sweep.folder(point) / "result.json").stat().st_mtime_ns for point in sweep.points[:2]] == before
    assert len(store.list_runs(runs_dir)) == 5  # the cancelled one too; the sweep itself is no run


@pytest.mark.timeout(300)
def test_ctrl_c_ends_a_run_in_one_line(tiny_checkpoint: Path, tiny_csv: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = ["--checkpoint", tiny_checkpoint, "--task", "csv", "--train-file", tiny_csv, "--sparsity", "0.5"]
    command = [sys.executable, "-m", "pgb_core", "prune", *arguments, "--recover-epochs", "20", "--out", out]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for_recovery(out)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=10)
    assert process.returncode == 130
    assert stdout == ""
    assert stderr.splitlines()[-1] == "pgb: The run was cancelled."
    assert "Traceback" not in stderr
    assert_cancelled(out)


@pytest.mark.timeout(300)
def test_a_cancelled_background_run_stops_by_itself_in_time(tiny_checkpoint: Path, tiny_csv: Path) -> None:
    spec = PruneSpec(str(tiny_checkpoint), "csv", 0.5, train_file=str(tiny_csv), recover_epochs=20, device="cpu")
    run_dir = get_settings().runs_dir / jobs.submit(spec)
    wait_for_recovery(run_dir)
    jobs.cancel(run_dir)
    assert_cancelled(run_dir)


def wait_for_recovery(run_dir: Path) -> None:
    deadline = time.monotonic() + 200
    while not (run_dir / "status.json").exists() or store.read_status(run_dir).stage != "recovery":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def assert_cancelled(run_dir: Path) -> None:
    """The run has unwound by itself (a killed one says "Cancelled.") and left nothing half-written."""
    status = store.read_status(run_dir)
    assert (status.state, status.message) == ("cancelled", "The run was cancelled.")
    assert not (run_dir / "result.json").exists()
    assert not list(run_dir.rglob("*.safetensors"))

"""A read-only server: the library refuses whatever would start, change or take in something."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from pgb_core import PruneSpec, demo_mode, jobs, prune, store
from pgb_core.demo_mode import ReadOnlyError
from pgb_core.errors import JobRejected, RunError
from pgb_core.finetune_spec import FinetuneSpec
from pgb_core.label import Label
from pgb_core.settings import get_settings
from pgb_core.sweep_spec import SweepSpec, read_sweep, write_sweep
from pgb_core.trial import Trial
from tests.sample_run import make_sample_run, write_running
from ui import uploads

SPEC = PruneSpec("demo", "bbc-news", 0.5)


def resume(run: Path) -> None:
    jobs.resume_sweep(read_sweep(run.with_name("20250101-000000-abcdef")))


WHAT: dict[str, Callable[[Path], object]] = {
    "a run": lambda run: jobs.submit(SPEC),
    "a scoring": lambda run: jobs.submit(SPEC, "score"),
    "a sweep": lambda run: jobs.submit_sweep(SweepSpec(SPEC, (0.5,))),
    "the rest of a sweep": resume,
    "a fine-tuning": lambda run: jobs.submit_finetune(FinetuneSpec("owner/encoder", "bbc-news"), "mine"),
    "a run from the command line": lambda run: prune(SPEC, run.with_name("mine")),
    "a name": lambda run: store.write_label(run.parent, run.name, Label("mine")),
    "a deletion": lambda run: store.delete_run(run.parent, run.name),
    "a cancel": lambda run: jobs.cancel(write_running(run.parent)),
    "a table": lambda run: uploads.keep(io.BytesIO(b"text,label"), "a.csv"),
    "a checkpoint": lambda run: uploads.keep_checkpoint([("config.json", io.BytesIO(b"{}"))]),
    "a text to try": lambda run: Trial(["false"]).ask({"op": "classify"}),
    "a helper for texts to try": lambda run: Trial(["false"]).warm(),
}


@pytest.mark.parametrize("what", WHAT)
def test_a_read_only_server_refuses(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_sample_run(get_settings().runs_dir)
    sweep = write_sweep(run.with_name("20250101-000000-abcdef"), SweepSpec(SPEC, (0.5,)), run.parent)
    store.write_status(sweep.path, store.Status("failed", job="sweep"))
    active = write_running(run.parent)
    monkeypatch.setattr("tests.test_demo_mode.write_running", lambda _: active)
    before = {path: path.stat().st_mtime_ns for path in run.parent.rglob("*") if path.suffix != ".lock"}
    monkeypatch.setenv("PGB_DEMO_MODE", "1")
    with pytest.raises(ReadOnlyError, match="read-only demo"):
        WHAT[what](run)
    after = {path: path.stat().st_mtime_ns for path in run.parent.rglob("*") if path.suffix != ".lock"}
    assert after == before
    assert not get_settings().uploads_dir.exists()


def test_a_refusal_is_what_every_caller_expects(monkeypatch: pytest.MonkeyPatch) -> None:
    demo_mode.refuse()
    monkeypatch.setenv("PGB_DEMO_MODE", "1")
    for expected in (RunError, JobRejected):
        with pytest.raises(expected, match="Unset PGB_DEMO_MODE"):
            demo_mode.refuse()

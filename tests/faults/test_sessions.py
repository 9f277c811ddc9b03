"""Many visitors who come and go while runs are computed: the server stays quick and gives the memory back."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import pytest

from pgb_core import PruneSpec, jobs, store
from pgb_core.settings import get_settings
from tests.browser.conftest import started_server
from tests.faults.conftest import Outcome
from tests.faults.visitor import Visitor
from tests.sample_run import MINILM, make_sample_run
from tests.tiny import make_tiny_csv
from ui.frame import PAGES

SESSIONS, SECONDS = 50, 300.0
KEPT_SECONDS = 125.0
"""Streamlit keeps the session of a closed tab for two minutes."""
LOOK_SECONDS = 40.0
"""How long a visitor looks at a page, on average."""
SLOWEST_SECONDS, WITHIN = 2.0, 0.10


def tour(address: str, times: list[float], rng: np.random.Generator, end: float, shown: Sequence[Path]) -> None:
    """Visitors one after another, each of whom sees a few pages of the first or the last run, until `end`."""
    while time.monotonic() < end:
        with Visitor(address) as visitor:
            for page in rng.permutation(list(PAGES))[:3]:
                if time.monotonic() >= end:  # or all of them would rush through their last pages at once
                    break
                times.append(visitor.visit(str(page), f"run={shown[-rng.integers(2)].name}"))
                visitor.stay(min(rng.uniform(0.5, 1.5) * LOOK_SECONDS, max(0.0, end - time.monotonic())))


def every_page(address: str) -> None:
    with Visitor(address) as visitor:
        for page in PAGES:
            visitor.visit(page)


def settled(address: str, process: psutil.Process) -> float:
    """Bytes of the server when the sessions have gone: those that are too old go when the next one ends."""
    time.sleep(KEPT_SECONDS)
    for _ in range(2):
        every_page(address)
        time.sleep(5)
    return float(process.memory_info().rss)


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_fifty_sessions_open_and_close_for_five_minutes_during_a_run(
    tmp_path: Path, tiny_checkpoint: Path, outcome: Outcome
) -> None:
    runs_dir = get_settings().runs_dir
    made = [make_sample_run(runs_dir, shape=MINILM)]
    table = make_tiny_csv(tmp_path / "table.csv", rows=2000)
    spec = PruneSpec(str(tiny_checkpoint), "csv", 0.5, train_file=str(table), device="cpu", recover_epochs=20)
    times: list[float] = []
    with started_server(tmp_path) as (address, server):
        process = psutil.Process(server.pid)
        for _ in range(5):
            every_page(address)
        before = settled(address, process)
        end = time.monotonic() + SECONDS
        visitors = [
            threading.Thread(
                target=tour,
                args=(address, times, np.random.default_rng(number), end, made),
            )
            for number in range(SESSIONS)
        ]
        made.append(runs_dir / jobs.submit(spec))
        for visitor in visitors:
            visitor.start()
            time.sleep(LOOK_SECONDS / SESSIONS)
        while time.monotonic() < end:  # one run follows another
            if not store.read_status(made[-1]).active:
                made.append(runs_dir / jobs.submit(spec))
            time.sleep(0.5)
        for visitor in visitors:
            visitor.join()
        for run_dir in made[1:]:
            assert jobs.result(run_dir, 240)["score"]["recovered"] is not None
        after = settled(address, process)
        assert server.poll() is None
    slow = float(np.percentile(times, 95))
    outcome(
        f"{len(times)} pages, p95 {slow:.2f} s; {len(made) - 1} runs done; {before / 1e6:.0f} MB before, "
        f"{after / 1e6:.0f} MB after"
    )
    assert len(times) > 3 * SESSIONS
    assert slow < SLOWEST_SECONDS
    assert after <= (1 + WITHIN) * before

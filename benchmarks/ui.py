"""What the dashboard costs: time and payload of each page, memory of sessions, and how quickly What if follows.

    python -m benchmarks.ui [--parts pages slider memory] [--moves 60] [--sessions 20] [--wait 150] [--shape minilm]

Starts the real server on a free port, with made up runs of the given shape and a made up scored record of the shape of
BERT-base, and visits it with Chromium. *Pages*: seconds from the request to the last chart, cold (the first visit of
the page on this server), by a new session and, from the click on its link, in a session that has seen it (medians of
three), and what came over the websocket; beside them, a script that draws one bar chart: what Streamlit and Plotly take
by themselves. *Slider*: from the key press to the frame in which the bars of the network
have changed. *Memory*: of the server process before sessions are opened, with all open, and after Streamlit has given
them up. Prints Markdown.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which

import numpy as np
import psutil
from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.permutation import markdown
from benchmarks.synthetic_record import make_record
from tests.sample_run import MINILM, SampleShape, make_sample_run
from ui.frame import PAGES

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync", "--no-first-run")
SHAPES = {"tiny": SampleShape(), "minilm": MINILM, "base": SampleShape(12, 768, 12, 3072)}
PATIENCE_MS = 120_000
VISITS = 3
WITHIN = 0.10
"""How much more memory than before there may be when the sessions are gone."""

BARE = """
import plotly.graph_objects as go
import streamlit as st
st.title("A bar")
st.plotly_chart(go.Figure(go.Bar(y=[1])))
"""
FOLLOW = """() => {
  const bars = () => [...document.querySelectorAll('.st-key-what_if_network .bars path')]
    .map(path => path.getAttribute('d')).join();
  window.moved = new Promise(done => {
    const before = bars();
    let began = null;
    addEventListener('keydown', () => { began = performance.now(); }, {once: true, capture: true});
    const look = () => {
      if (began !== null && bars() !== before) return done(performance.now() - began);
      if (began !== null && performance.now() - began > 20000) return done(null);
      requestAnimationFrame(look);
    };
    look();
  });
}"""


STEADY = """() => {
  const app = document.querySelector('[data-testid=stApp]');
  const charts = [...document.querySelectorAll('[data-testid=stPlotlyChart]')];
  const done = app && app.dataset.testScriptState === 'notRunning' && document.querySelector('h1')
    && !document.querySelector('[data-testid=stSkeleton]') && charts.every(chart => chart.querySelector('.main-svg'));
  if (!done) { window.since = null; return false; }
  window.since ??= performance.now();
  return performance.now() - window.since > 1000 && window.since;
}"""
"""Milliseconds after the request at which the page had been drawn, told once nothing has moved for a second."""

# --- the server ----------------------------------------------------------------------------------------------------


@contextmanager
def server(folder: Path, script: Path = ROOT / "app.py") -> Iterator[tuple[str, psutil.Process]]:
    """Address and process of a server of its own that nobody has visited."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(script), f"--server.port={port}"]
    environment = {**os.environ, "PGB_RUNS_DIR": str(folder / "runs"), "PGB_MODELS_DIR": str(folder / "models")}
    with (folder / "server.txt").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=environment)
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_for(f"{address}/_stcore/health", process)
            yield address, psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(20)


def _wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        try:
            with urllib.request.urlopen(address, timeout=2):  # noqa: S310
                return
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.2)
    raise SystemExit("the server did not start")


def drawn(page: Page) -> float:
    """Wait until the script has run and every chart is drawn; seconds from the request until then."""
    found = page.wait_for_function(STEADY, timeout=PATIENCE_MS)
    return float(found.json_value()) / 1000


# --- the parts -----------------------------------------------------------------------------------------------------


def visit(browser: Browser, address: str, title: str) -> tuple[float, float, int, int]:
    """One visit by a new session: seconds to the page, seconds back to it from another page of the same session, bytes
    over the websocket until it was first drawn, number of charts.
    """
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    sizes: list[int] = []
    page.on("websocket", lambda socket: socket.on("framereceived", lambda payload: sizes.append(len(payload))))
    page.goto(address, timeout=PATIENCE_MS)
    seconds, size, charts = drawn(page), sum(sizes), page.locator(".js-plotly-plot").count()
    follow(page, next(other for other, _ in PAGES.values() if other != title))
    again = follow(page, title)
    page.close()
    return seconds, again, size, charts


def follow(page: Page, title: str) -> float:
    """Click the link to a page at the top; seconds until that page is drawn."""
    link = page.get_by_role("navigation").get_by_role("link", name=title, exact=True)
    began = float(link.evaluate("link => { window.since = null; link.click(); return performance.now() }"))
    page.wait_for_url(f"**{link.get_attribute('href') or ''}*")
    return drawn(page) - began / 1000


def bare(browser: Browser, folder: Path) -> tuple[float, float]:
    """Seconds to a page that draws one chart: the first visit of its server, and the median of later ones."""
    script = folder / "bare.py"
    script.write_text(BARE, encoding="utf-8")
    times = []
    with server(folder, script) as (address, _):
        for _ in range(1 + VISITS):
            page = browser.new_page(viewport={"width": 1400, "height": 900})
            page.goto(address, timeout=PATIENCE_MS)
            times.append(drawn(page))
            page.close()
    return times[0], float(np.median(times[1:]))


def pages(browser: Browser, address: str, folder: Path) -> str:
    """Render time and payload of every page."""
    cold, new = bare(browser, folder)
    rows = [["page", "cold s", "new session s", "same session s", "payload MB", "charts"]]
    rows.append(["one bar chart, without the app", f"{cold:.2f}", f"{new:.2f}", "", "", "1"])
    for name, (title, _) in PAGES.items():
        cold, _, size, charts = visit(browser, f"{address}/{name}", title)
        later = [visit(browser, f"{address}/{name}", title)[:2] for _ in range(VISITS)]
        new, same = np.median(np.array(later), axis=0)
        rows.append([title, f"{cold:.2f}", f"{new:.2f}", f"{same:.2f}", f"{size / 1e6:.2f}", str(charts)])
    return markdown(rows)


def slider(browser: Browser, address: str, record: str, moves: int) -> str:
    """Slider to figure on the record of the shape of BERT-base."""
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.goto(f"{address}/what_if?record={record}&method=pgb-mixed&target=30", timeout=PATIENCE_MS)
    page.wait_for_selector(".st-key-what_if_network .bars path", timeout=PATIENCE_MS)
    drawn(page)
    handle = page.get_by_role("slider").first
    handle.focus()
    times = []
    for n in range(moves):
        page.evaluate(FOLLOW)
        page.keyboard.press("ArrowRight" if n % 60 < 30 else "ArrowLeft")
        times.append(page.evaluate("() => window.moved"))
        page.wait_for_timeout(300)
    page.close()
    found = np.array([ms for ms in times if ms is not None])
    if not len(found):
        return "no move changed the figure"
    median, p95 = np.percentile(found, [50, 95])
    rows = [["moves", "median ms", "p95 ms", "without a change"]]
    rows.append([str(len(found)), f"{median:.0f}", f"{p95:.0f}", str(moves - len(found))])
    return markdown(rows)


def memory(browser: Browser, address: str, process: psutil.Process, sessions: int, wait: float) -> str:
    """Memory of the server before, with and after so many sessions, each on every page.

    Streamlit lets go of the sessions that are too old when the next one ends, so two visitors come at last.
    """

    def resident() -> float:
        return process.memory_info().rss / 1e6

    def tour() -> Page:
        page = browser.new_page()
        for name in PAGES:
            page.goto(f"{address}/{name}", timeout=PATIENCE_MS)
            drawn(page)
        return page

    tour().close()  # what is loaded and cached once is not what a session costs
    time.sleep(wait)
    before = resident()
    tabs = [tour() for _ in range(sessions)]
    opened = resident()
    for tab in tabs:
        tab.close()
    time.sleep(wait)
    for _ in range(2):
        tour().close()
        time.sleep(5)
    after = resident()
    verdict = "yes" if after <= (1 + WITHIN) * before else "NO"
    rows = [["sessions", "before MB", "open MB", f"after {wait:.0f} s MB", f"back within {WITHIN:.0%}"]]
    rows.append([str(sessions), f"{before:.0f}", f"{opened:.0f}", f"{after:.0f}", verdict])
    return markdown(rows)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--parts", nargs="+", choices=("pages", "slider", "memory"), default=["pages", "slider", "memory"]
    )
    parser.add_argument("--moves", type=int, default=60)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--wait", type=float, default=150, help="seconds; Streamlit keeps a session for 120")
    parser.add_argument("--shape", choices=SHAPES, default="minilm", help="of the runs that the pages show")
    given = parser.parse_args()
    program = next(filter(None, map(which, CHROMIUM)), None)
    if program is None:
        raise SystemExit("no Chromium is installed")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "models").mkdir()
        for seed, sparsity in enumerate((0.5, 0.7, 0.9)):
            make_sample_run(folder / "runs", shape=SHAPES[given.shape], sparsity=sparsity, seed=seed)
        record = make_record(folder / "runs")
        with server(folder) as (address, process), sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
            if "pages" in given.parts:
                print(f"\n## Pages\n\n{pages(browser, address, folder)}", flush=True)
            if "slider" in given.parts:
                print(f"\n## What if, slider to figure\n\n{slider(browser, address, record, given.moves)}", flush=True)
            if "memory" in given.parts:
                found = memory(browser, address, process, given.sessions, given.wait)
                print(f"\n## Memory\n\n{found}", flush=True)
            browser.close()


if __name__ == "__main__":
    main()

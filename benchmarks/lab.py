"""JupyterLab with the session panel: what a poll costs the server, how soon the panel is filled, how large its code is.

The session is a real one; its worker jobs are submitted, and wait for slots. The browser is a real one, too, and knows
nothing yet at each visit.
"""

from __future__ import annotations

import gzip
import http.client
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Browser, sync_playwright

import hpclab
from benchmarks import table
from benchmarks.sandbox import sandbox

JOBS = (10, 100, 500)
SLOTS = 2  # the main job's: one for the scheduler and JupyterLab, one for its worker
POLL_TARGET_S = 0.3
BUNDLE_TARGET_KB = 150
PAUSE_S = 1.2
"""Who asks again sooner is told the same."""
BUNDLE = Path(hpclab.__file__).parent / "labextension/static"
QUIET = ["gpu", "quic", "background-networking", "component-update", "sync"]


def poll(url: str) -> tuple[float, dict[str, Any], int]:
    """Seconds until its answer was here, the answer, and its size in bytes as it came."""
    parts = urlsplit(url)
    token = parse_qs(parts.query)["token"][0]
    connection = http.client.HTTPConnection(parts.netloc, timeout=60)
    connection.connect()
    begin = time.perf_counter()
    connection.request("GET", "/hpclab/session", headers={"Authorization": f"token {token}", "Accept-Encoding": "gzip"})
    answer = connection.getresponse()
    body = answer.read()
    took = time.perf_counter() - begin
    connection.close()
    if answer.status != 200:
        sys.exit(f"the poll was answered with {answer.status}: {body.decode()}")
    size = len(body)
    if answer.headers.get("Content-Encoding") == "gzip":
        body = gzip.decompress(body)
    return took, json.loads(body), size


def visit(browser: Browser, url: str) -> tuple[float, float]:
    """Seconds from opening the page until JupyterLab is there, and until the panel shows the session."""
    with browser.new_context(viewport={"width": 1280, "height": 800}) as context:
        page = context.new_page()
        begin = time.perf_counter()
        page.goto(url, wait_until="commit")
        # both times from within the page, whichever comes first
        page.wait_for_function("document.querySelector('#jp-main-dock-panel') !== null", polling=20, timeout=60_000)
        lab = time.perf_counter() - begin
        page.wait_for_function(
            "document.querySelector('#hpclab-panel .hpclab-Row-name') !== null", polling=20, timeout=60_000
        )
        return lab, time.perf_counter() - begin


def bundle_kb() -> float:
    """Of all code that the browser loads for it, compressed."""
    return sum(len(gzip.compress(path.read_bytes())) for path in BUNDLE.glob("*.js")) / 1000


def main() -> None:
    given = table.arguments(__doc__, runs=10)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium or not BUNDLE.exists():
        sys.exit("this needs chromium and the panel: run scripts/test first")
    rows: list[table.Row] = []
    with (
        sandbox() as box,
        box.session("crowded", local_slots=SLOTS) as described,
        sync_playwright() as playwright,
        playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--no-first-run", "--no-proxy-server", *(f"--disable-{what}" for what in QUIET)],
        ) as browser,
    ):
        url, there = described["jupyter_url"], 1
        visits = [visit(browser, url) for _ in range(given.runs + 1)][1:]
        for jobs in JOBS:
            print(f"submitting worker jobs up to {jobs}", flush=True)
            box.hpclab("add-worker", "--count", str(jobs - there))
            there = jobs
            polls = []
            for _ in range(given.runs):
                time.sleep(PAUSE_S)
                took, answer, size = poll(url)
                assert len(answer["session"]["jobs"]) == jobs
                polls.append(took)
            rows.append(
                table.Measurement(what=f"a poll, {jobs} jobs", unit="s", values=tuple(polls), target=POLL_TARGET_S)
            )
            rows.append(table.Measurement(what="  its answer", unit="kB", values=(size / 1000,)))
        crowded = [visit(browser, url) for _ in range(given.runs)]
    rows += [
        table.Measurement(what="page to JupyterLab", unit="s", values=tuple(lab for lab, _ in visits)),
        table.Measurement(what="page to panel filled", unit="s", values=tuple(filled for _, filled in visits)),
        table.Measurement(
            what=f"page to panel filled, {JOBS[-1]} jobs", unit="s", values=tuple(filled for _, filled in crowded)
        ),
        table.Measurement(what="bundle, gzipped", unit="kB", values=(bundle_kb(),), target=BUNDLE_TARGET_KB),
    ]
    heads = ["what", "median", "least", "most", "target"]
    table.show(f"lab: {given.runs} runs each", heads, rows)
    table.write(given.json, "lab", rows)


if __name__ == "__main__":
    main()

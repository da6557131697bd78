"""From nothing to "a kernel in the notebook server got a result from a worker": the recipe by hand, and `hpclab start`.

Both have the same workers, cores and memory. By hand nothing is encrypted and the dashboard is open to everybody.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from benchmarks import notebook, table
from benchmarks.sandbox import Sandbox, sandbox

WORKERS, CORES, MEMORY = 1, 1, "1GiB"
BY_HAND = Path(__file__).with_name("by_hand") / "start-dask.sh"
CODE = "from dask.distributed import Client; c = Client({}); print(c.submit(lambda: 6 * 7).result())"
TARGET = 0.6
TOO_LONG_S = 120


@dataclass(frozen=True, kw_only=True)
class Run:
    """Seconds since the command was typed."""

    running: float
    scheduler: float
    jupyter: float
    result: float


PHASES = {
    "running": "job runs",
    "scheduler": "Dask scheduler up",
    "jupyter": "JupyterLab answers",
    "result": "kernel got a result",
}


def by_hand(box: Sandbox, name: str) -> Run:
    folder = box.folder / name
    folder.mkdir()
    token = secrets.token_hex()
    begin = time.time()
    env = {"JUPYTER_TOKEN": token, "JUPYTER_RUNTIME_DIR": str(folder)}
    with box.process(BY_HAND, str(WORKERS), str(CORES), MEMORY, env=env, folder=folder):
        scheduler = folder / "scheduler.json"
        code = CODE.format(f"scheduler_file={str(scheduler)!r}")
        jupyter, result = asyncio.run(_served(_server_of(folder), token, code))
        running = float((folder / "running").read_text())
        return _run(begin, running, scheduler.stat().st_mtime, jupyter, result)


def with_hpclab(box: Sandbox, name: str) -> Run:
    begin = time.time()
    with box.session(name, workers=WORKERS, cores=CORES, memory=MEMORY) as session:
        url = urlsplit(session["jupyter_url"])
        token = parse_qs(url.query)["token"][0]
        jupyter, result = asyncio.run(_served(f"http://{url.netloc}", token, CODE.format("")))
        folder = Path(session["folder"])
        main_job = next(job["id"] for job in session["jobs"] if job["role"] == "main")
        started = (folder / f"events/{main_job}.jsonl").read_text().splitlines()[0]
        scheduler = (folder / "scheduler.json").stat().st_mtime
        return _run(begin, json.loads(started)["time"], scheduler, jupyter, result)


async def _served(server: str, token: str, code: str) -> tuple[float, float]:
    """When the server answered, and when a kernel of it had the result."""
    async with asyncio.timeout(TOO_LONG_S):
        await notebook.answers(server, token)
        jupyter = time.time()
        if "42" not in await notebook.printed(server, token, code):
            sys.exit("the kernel printed something else than 42")
    return jupyter, time.time()


def _run(begin: float, *times: float) -> Run:
    return Run(**{phase: at - begin for phase, at in zip(PHASES, times, strict=True)})


def _server_of(folder: Path) -> str:
    """The address that Jupyter writes down just before it answers there; 8888 may have been taken."""
    deadline = time.monotonic() + TOO_LONG_S
    while time.monotonic() < deadline:
        for record in folder.glob("jpserver-*.json"):
            with suppress(ValueError):  # half written
                return f"http://127.0.0.1:{json.loads(record.read_text())['port']}"
        time.sleep(notebook.POLL_S)
    sys.exit(f"JupyterLab did not come up by hand:\n{(folder / 'log').read_text()}")


def main() -> None:
    given = table.arguments(__doc__, runs=5)
    pairs = []
    ways: tuple[Callable[[Sandbox, str], Run], ...] = (by_hand, with_hpclab)
    with sandbox() as box:
        for number in range(given.runs):
            pair = [way(box, f"{way.__name__.replace('_', '-')}-{number}") for way in ways]
            print(f"pair {number + 1}: {pair[0].result:.2f} s by hand, {pair[1].result:.2f} s with hpclab", flush=True)
            pairs.append(pair)
    rows = [
        table.Comparison(
            what=what,
            unit="s",
            before=tuple(getattr(before, phase) for before, _ in pairs),
            ours=tuple(getattr(ours, phase) for _, ours in pairs),
            target=TARGET if phase == "result" else None,
        )
        for phase, what in PHASES.items()
    ]
    heads = ["from nothing until", "by hand", "hpclab", "ratio", "least", "most", "target"]
    table.show(f"start: medians of {given.runs} pairs", heads, rows)
    table.write(given.json, "start", rows)


if __name__ == "__main__":
    main()

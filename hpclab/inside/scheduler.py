"""Dask preload for rank 0: guards the dashboard, starts JupyterLab, keeps the roster of workers, tells the supervisor.

It holds a line (a unix socket) to the supervisor: each ends when the other's end closes, whatever killed it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import time
import traceback
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from distributed import Client, Scheduler
from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.http.utils import get_handlers
from distributed.scheduler import WorkerStatusPlugin, heartbeat_interval
from tornado.ioloop import PeriodicCallback

from hpclab.connection import parse_token
from hpclab.folder import SessionFolder
from hpclab.inside.guard import Door, Guard
from hpclab.inside.network import own_addresses
from hpclab.inside.report import announce
from hpclab.versions import versions_here

# Dask's own list without its proxy to workers' pages, for those are shut
PAGES = [
    f"distributed.http.{name}"
    for name in ("scheduler.info", "scheduler.json", "scheduler.prometheus", "health", "statics")
]

DASHBOARD_DELAY_S = 5
"""When the dashboard is loaded, unless somebody wants it earlier."""

LOOK_EVERY_S = 2
CPU_STEP_PERCENT = 5
MEMORY_STEP_BYTES = 16 * 2**20
TELL_ACTIVITY_EVERY_S = 4
MOST_SAMPLES = 360
"""Of the cores at work, over time; when there are more, every other one is forgotten."""
SILENT_S = 8
"""A worker's heartbeat comes every second or so; where there are very many, less often."""

_tasks: set[asyncio.Task[None]] = set()


async def dask_setup(scheduler: Scheduler) -> None:
    folder = SessionFolder(os.environ["HPCLAB_FOLDER"])
    http = scheduler.http_server
    guard = Guard(scheduler.http_application, Door(parse_token(Path(folder.token).read_text()), folder.name))
    http.request_callback = guard
    scheduler.add_plugin(Roster(folder, scheduler), name="hpclab-roster")
    _tell_of_workers(scheduler)
    # dask-mpi lets its workers begin only after this
    told = {"addresses": _addresses(scheduler), "versions": versions_here()}
    announce(folder.addresses, json.dumps(told))
    for work in (_hold_the_line(scheduler), _bring_up(scheduler, guard)):
        task = asyncio.create_task(work)
        _tasks.add(task)
        task.add_done_callback(_done)


def _addresses(scheduler: Scheduler) -> list[str]:
    """All of them; Dask's own choice, which may well be 127.0.0.1, where this machine has no network."""
    found = []
    if "//0.0.0.0:" in scheduler.listeners[0].listen_address:
        found = [f"tls://{ip}:{scheduler.port}" for ip in own_addresses(os.environ.get("HPCLAB_INTERFACE", ""))]
    return found or [scheduler.address]


def _done(task: asyncio.Task[None]) -> None:
    _tasks.discard(task)
    _say_why(task)


def _say_why(done: asyncio.Task[None] | Future[None]) -> None:
    """What went wrong in the background, for the log."""
    if not done.cancelled() and (error := done.exception()):
        traceback.print_exception(error)


async def _hold_the_line(scheduler: Scheduler) -> None:
    reader, writer = await asyncio.open_unix_connection(os.environ["HPCLAB_SUPERVISOR"])
    hello = {"who": "scheduler", "address": _addresses(scheduler)[0], "dashboard_port": scheduler.http_server.port}
    writer.write(json.dumps(hello).encode() + b"\n")
    await writer.drain()
    await reader.read()
    print("hpclab: the supervisor is gone, so the scheduler ends", flush=True)
    asyncio.get_running_loop().call_later(5, os._exit, 1)
    await scheduler.close(reason="hpclab-supervisor-gone")


async def _bring_up(scheduler: Scheduler, guard: Guard) -> None:
    # a client within the scheduler's own process, so that nothing else has to import distributed for this
    async with Client(scheduler.address, asynchronous=True, set_as_default=False) as client:
        await client.run_on_scheduler(start_jupyter)
    # Bokeh costs as much time as the first notebook's start, which shall have the cores to itself
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DASHBOARD_DELAY_S):
            await guard.wanted.wait()
    await asyncio.to_thread(_import_dashboard)
    import distributed.dashboard.scheduler as dashboard

    dashboard.connect(scheduler.http_application, scheduler.http_server, scheduler, prefix="")
    scheduler.http_application.add_handlers(r".*", get_handlers(scheduler, PAGES, prefix=""))
    guard.is_open = True


def _import_dashboard() -> None:
    """In a thread, so that the scheduler goes on meanwhile."""
    import distributed.dashboard.scheduler  # noqa: F401


def start_jupyter(dask_scheduler: Scheduler) -> None:
    """Run on the scheduler: give the waiting JupyterLab the word, and hold its line so that it ends when we do."""
    line = socket.socket(socket.AF_UNIX)
    line.connect(os.environ["HPCLAB_JUPYTER"])
    line.sendall(json.dumps({"scheduler_address": _addresses(dask_scheduler)[0]}).encode() + b"\n")
    dask_scheduler.hpclab_jupyter_line = line


class WorkersTold(WorkerStatusPlugin):  # type: ignore[misc]
    """Tells one cluster object which workers come and go."""

    def __init__(self, scheduler: Scheduler, comm: Any) -> None:
        # Dask's own has the same name for all, so that only the last who has asked is told
        self.name = f"hpclab-workers-{uuid.uuid4().hex}"
        super().__init__(scheduler, comm)


def _tell_of_workers(scheduler: Scheduler) -> None:
    """To any number of notebooks at once."""

    def subscribe_worker_status(comm: Any) -> dict[str, Any]:
        WorkersTold(scheduler, comm)
        told: dict[str, Any] = scheduler.identity()
        for worker in told["workers"].values():
            del worker["metrics"], worker["last_seen"]
        return told

    scheduler.handlers["subscribe_worker_status"] = subscribe_worker_status


class Activity:
    """How many cores were at work, over time. A session that was started again goes on with what it has been."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._counted: float | None = None
        self._told = 0.0
        self.busy_core_s = 0.0
        self.samples: list[list[float]] = []
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            before = json.loads(Path(path).read_text())
            self.busy_core_s = float(before["busy_core_s"])
            self.samples = [[float(at), float(busy)] for at, busy in before["samples"]][-MOST_SAMPLES:]

    def count(self, busy: int, now: float) -> str:
        """So many cores are at work; the text for the file when it is due, else an empty one."""
        if self._counted is not None:
            self.busy_core_s += busy * max(0.0, now - self._counted)
        self._counted = now
        # samples become sparser as the session becomes longer
        span_s = now - self.samples[0][0] if self.samples else 0.0
        due_s = max(TELL_ACTIVITY_EVERY_S, 2 * span_s / MOST_SAMPLES)
        if not self.samples or now - self.samples[-1][0] >= due_s:
            self.samples.append([round(now, 1), busy])
            if len(self.samples) > MOST_SAMPLES:
                del self.samples[1::2]
        if now - self._told < TELL_ACTIVITY_EVERY_S:
            return ""
        self._told = now
        return json.dumps({"busy_core_s": round(self.busy_core_s, 1), "samples": self.samples})


class Roster(SchedulerPlugin):  # type: ignore[misc]
    """Writes which workers the scheduler has, and which are at work, so that `hpclab status` need not ask Dask."""

    def __init__(self, folder: SessionFolder, scheduler: Scheduler) -> None:
        self._folder = folder
        self._scheduler = scheduler
        self._due: asyncio.TimerHandle | None = None
        self._told: list[dict[str, Any]] = []
        self._activity = Activity(folder.activity)
        # one thread, so that an older roster never overwrites a newer one
        self._writer = ThreadPoolExecutor(1)
        # who is at work changes with every task; that is told now and then
        self._look = PeriodicCallback(self._tell_changes, LOOK_EVERY_S * 1000)
        self._look.start()

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        self._soon()

    def remove_worker(self, scheduler: Scheduler, worker: str, **_: Any) -> None:
        self._soon()

    async def close(self) -> None:
        self._look.stop()

    def _tell_changes(self) -> None:
        if self._workers() != self._told:
            self._soon()
        busy = sum(min(len(w.processing), w.nthreads) for w in self._scheduler.workers.values())
        if text := self._activity.count(busy, time.time()):
            self._writer.submit(announce, self._folder.activity, text).add_done_callback(_say_why)

    def _soon(self) -> None:
        """A hundred workers that join at once are one write."""
        if self._due is None:
            self._due = asyncio.get_running_loop().call_later(0.1, self._write)

    def _workers(self) -> list[dict[str, Any]]:
        silent_s = max(SILENT_S, 3 * heartbeat_interval(len(self._scheduler.workers)))
        return [
            {
                "name": str(w.name),
                "address": w.address,
                "nthreads": w.nthreads,
                "memory_bytes": w.memory_limit,
                "tasks": len(w.processing),
                # in steps, so that a worker at rest does not change
                "cpu_percent": _in_steps(w.metrics.get("cpu", 0), CPU_STEP_PERCENT),
                "memory_used_bytes": _in_steps(w.metrics.get("memory", 0), MEMORY_STEP_BYTES),
                # of those alone that have been silent for longer than a worker ever is, so that it seldom changes
                "silent_since": round(w.last_seen) if time.time() - w.last_seen > silent_s else None,
            }
            for w in self._scheduler.workers.values()
        ]

    def _write(self) -> None:
        self._due = None
        self._told = self._workers()
        text = json.dumps({"time": time.time(), "workers": self._told})
        # not here: the folder may be on a slow network file system
        self._writer.submit(announce, self._folder.roster, text).add_done_callback(_say_why)


def _in_steps(value: float, step: int) -> int:
    return round(value / step) * step

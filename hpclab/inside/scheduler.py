"""Dask preload for rank 0: guards the dashboard, starts JupyterLab, keeps the roster of workers, tells the supervisor.

It holds a line (a unix socket) to the supervisor: each ends when the other's end closes, whatever killed it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import uuid
from pathlib import Path
from typing import Any

from distributed import Client, Scheduler
from distributed.http.utils import get_handlers
from distributed.scheduler import WorkerStatusPlugin

from hpclab.connection import parse_token
from hpclab.folder import SessionFolder
from hpclab.inside.guard import Door, Guard
from hpclab.inside.network import own_addresses
from hpclab.inside.report import announce, say, say_why
from hpclab.inside.roster import Roster
from hpclab.versions import versions_here

# Dask's own list without its proxy to workers' pages, for those are shut
PAGES = [
    f"distributed.http.{name}"
    for name in ("scheduler.info", "scheduler.json", "scheduler.prometheus", "health", "statics")
]

DASHBOARD_DELAY_S = 5
"""When the dashboard is loaded, unless somebody wants it earlier."""

_tasks: set[asyncio.Task[None]] = set()


async def dask_setup(scheduler: Scheduler) -> None:
    folder = SessionFolder(os.environ["HPCLAB_FOLDER"])
    http = scheduler.http_server
    guard = Guard(scheduler.http_application, Door(parse_token(Path(folder.token).read_text()), folder.name))
    http.request_callback = guard
    scheduler.add_plugin(Roster(folder, scheduler), name="hpclab-roster")
    _tell_of_workers(scheduler)
    # dask-mpi lets its workers begin only after this
    told = {"addresses": addresses(scheduler), "versions": versions_here()}
    announce(folder.addresses, json.dumps(told))
    for work in (hold_the_line(scheduler), _bring_up(scheduler, guard)):
        task = asyncio.create_task(work)
        _tasks.add(task)
        task.add_done_callback(_done)


def addresses(scheduler: Scheduler) -> list[str]:
    """All of them; Dask's own choice, which may well be 127.0.0.1, where this machine has no network."""
    found = []
    if "//0.0.0.0:" in scheduler.listeners[0].listen_address:
        found = [f"tls://{ip}:{scheduler.port}" for ip in own_addresses(os.environ.get("HPCLAB_INTERFACE", ""))]
    return found or [scheduler.address]


def _done(task: asyncio.Task[None]) -> None:
    _tasks.discard(task)
    say_why(task)


async def hold_the_line(scheduler: Scheduler) -> None:
    reader, writer = await asyncio.open_unix_connection(os.environ["HPCLAB_SUPERVISOR"])
    hello = {"who": "scheduler", "address": addresses(scheduler)[0], "dashboard_port": scheduler.http_server.port}
    writer.write(json.dumps(hello).encode() + b"\n")
    await writer.drain()
    await reader.read()
    say("the supervisor is gone, so the scheduler ends")
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
    line.sendall(json.dumps({"scheduler_address": addresses(dask_scheduler)[0]}).encode() + b"\n")
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

"""What the Dask scheduler knows of its workers, told to those who need not ask it: in the session's files."""

from __future__ import annotations

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from distributed import Scheduler
from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.scheduler import heartbeat_interval
from tornado.ioloop import PeriodicCallback

from hpclab.folder import SessionFolder
from hpclab.inside.activity import Activity
from hpclab.inside.report import announce, say_why

LOOK_EVERY_S = 2
CPU_STEP_PERCENT = 5
MEMORY_STEP_BYTES = 16 * 2**20
SILENT_S = 8
"""A worker's heartbeat comes every second or so; where there are very many, less often."""


class Roster(SchedulerPlugin):  # type: ignore[misc]
    """Writes which workers the scheduler has and what they use whenever that changes, and how busy they are."""

    def __init__(self, folder: SessionFolder, scheduler: Scheduler) -> None:
        self._folder = folder
        self._scheduler = scheduler
        self._due: asyncio.TimerHandle | None = None
        self._told: list[dict[str, Any]] | None = None
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
            self._writer.submit(self._put, self._folder.activity, text).add_done_callback(say_why)

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
        self._writer.submit(self._put, self._folder.roster, text).add_done_callback(say_why)

    def _put(self, path: str, text: str) -> None:
        """In silence: a disk that is full would be told every few seconds, in a log that may be on it, too."""
        try:
            announce(path, text)
        except OSError:
            self._told = None  # it is told again at the next look


def _in_steps(value: float, step: int) -> int:
    return round(value / step) * step

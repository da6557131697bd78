"""One Dask worker of a worker job, in a process forked from one that has imported everything already.

Before its job's end it drains: no new tasks, the running ones finish, its data goes to other workers, it leaves.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import distributed
import psutil
from distributed.core import Status

from hpclab.connection import worker_name
from hpclab.folder import SessionFolder
from hpclab.inside.report import report
from hpclab.job import JobExit

# a worker's own web pages have no guard, so there are none
dask.config.set({"distributed.worker.http.routes": []})

RESTART = 75
"""Exit status of a worker that wants to be started again: `client.restart()`, or the scheduler lost it."""

REMOVED = "scheduler-remove-worker"
"""Dask's reason when it closes a worker that may come again."""

TERMINATE_FRACTION = 0.95
"""A worker ends at this much of its memory limit, as under Dask's own nanny."""

QUICK_DRAIN_S = 4
"""How long a worker takes to leave when the batch system has already told it to end."""


@dataclass(frozen=True, kw_only=True)
class WorkerPlan:
    """All that a worker needs to know; times are seconds, `end_time` since the epoch."""

    folder: SessionFolder
    job_id: str
    scheduler_address: str
    nthreads: int
    memory_bytes: int
    death_timeout_s: int
    end_time: float
    drain_s: float
    host: str
    """Our own address on the network that leads to the scheduler."""
    gpus: int = 0
    is_patient: bool = False
    """SIGTERM is for somebody else to hear, and the scheduler tells when it is over."""


class Worker(distributed.Worker):  # type: ignore[misc]
    """Remembers why it closed: only the reason tells a restart from a farewell."""

    close_reason = ""

    async def close(self, *args: Any, reason: str = "worker-close", **kwargs: Any) -> str | None:
        self.close_reason = self.close_reason or reason
        closed: str | None = await super().close(*args, reason=reason, **kwargs)
        return closed


def used_memory_bytes(pid: int) -> int:
    """Resident memory; 0 of a process that is gone."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def run_worker(plan: WorkerPlan, index: int) -> int:
    """The life of one worker; the exit status of its process."""
    if "numpy.random" in sys.modules:
        # forked from one parent, all would draw the same random numbers
        sys.modules["numpy.random"].seed()
    return asyncio.run(_run(plan, index))


async def _run(plan: WorkerPlan, index: int) -> int:
    name = worker_name(plan.job_id, index)
    try:
        worker = await Worker(
            plan.scheduler_address,
            name=name,
            nthreads=plan.nthreads,
            memory_limit=plan.memory_bytes,
            host=plan.host,
            resources={"GPU": plan.gpus} if plan.gpus else None,
            death_timeout=plan.death_timeout_s,
            dashboard_address="127.0.0.1:0",
        )
    except (OSError, TimeoutError, RuntimeError, ValueError) as error:
        if Path(plan.folder.over).exists():
            report(plan.folder, plan.job_id, "left", worker=name, reason=JobExit.SESSION_OVER.meaning)
            return JobExit.SESSION_OVER
        report(plan.folder, plan.job_id, "failed", reason=f"{name} could not join: {error!r}")
        return JobExit.NOT_JOINED
    report(plan.folder, plan.job_id, "joined", worker=name, address=worker.address, pid=os.getpid())
    drain = asyncio.ensure_future(_drain_in_time(worker, plan))
    await worker.finished()
    drain.cancel()
    reason = worker.close_reason
    drained = reason == "hpclab-drained"
    report(plan.folder, plan.job_id, "drained" if drained else "left", worker=name, reason=reason)
    if reason == REMOVED:
        return RESTART
    return JobExit.OK if drained or reason == "scheduler-close-worker" else JobExit.SESSION_OVER


async def _drain_in_time(worker: Worker, plan: WorkerPlan) -> None:
    """Drain when the job's end is near, or when asked to: SIGHUP with all the time left, SIGTERM at once or never."""
    asked: asyncio.Event = asyncio.Event()
    deadline = [plan.end_time - min(QUICK_DRAIN_S, plan.drain_s / 2)]

    def told_to_end() -> None:
        deadline[0] = min(deadline[0], time.time() + QUICK_DRAIN_S)
        asked.set()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, asked.set)
    if not plan.is_patient:
        loop.add_signal_handler(signal.SIGTERM, told_to_end)
    try:
        async with asyncio.timeout(max(0.0, plan.end_time - plan.drain_s - time.time())):
            await asked.wait()
    except TimeoutError:
        pass
    try:
        await _drain(worker, deadline)
    except (OSError, TimeoutError):  # the scheduler is gone, or does not answer any more
        traceback.print_exc()
        await worker.close(nanny=False, executor_wait=False, reason="hpclab-drain-failed")


async def _drain(worker: Worker, deadline: list[float]) -> None:
    """Leave with nothing lost. Tasks that still run at the deadline are run again by others."""

    async def hand_over(*, remove: bool) -> bool:
        """False when no other worker can take the data."""
        retired = await worker.scheduler.retire_workers(
            workers=[worker.address], close_workers=False, remove=remove, stimulus_id=f"hpclab-drain-{time.time()}"
        )
        return bool(retired)

    # from the first hand-over on the scheduler sends no new tasks; without another worker it refuses, and we work on
    while not await hand_over(remove=False) and time.time() < deadline[0]:
        await asyncio.sleep(1)
    while (worker.state.executing or worker.state.long_running) and time.time() < deadline[0]:
        await asyncio.sleep(0.1)
    if worker.status in (Status.running, Status.closing_gracefully):
        await hand_over(remove=True)
    await worker.close(nanny=False, executor_wait=False, reason="hpclab-drained")

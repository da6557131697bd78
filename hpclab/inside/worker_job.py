"""A worker job: `python -m hpclab.inside.worker_job SESSION_FOLDER …`, run by add-one-worker.sh.

It imports Dask once and forks its workers from there, which saves most of their start and a third of their memory.
Then it watches: a worker that dies or outgrows its memory is started again, one that has drained is not.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpclab.connection import worker_name
from hpclab.folder import SessionFolder
from hpclab.inside.environ import dask_tls
from hpclab.inside.plan import interface_name
from hpclab.inside.report import report
from hpclab.job import JobExit

POLL_S = 0.25
MOST_RESTARTS = 5
TERMINATE_FRACTION = 0.95
"""Of its memory limit, as Dask's own nanny counts."""


@dataclass
class WorkerJob:
    plan: Any
    workers: int
    children: dict[int, int] = field(default_factory=dict)
    """Process id to index."""
    restarts: int = 0
    draining: bool = False
    worst: int = JobExit.OK

    def report(self, what: str, **details: Any) -> None:
        report(self.plan.folder, self.plan.job_id, what, **details)

    def run(self) -> int:
        signal.signal(signal.SIGTERM, lambda *_: self.drain("the job was told to end", signal.SIGTERM))
        for index in range(self.workers):
            self.fork(index)
        while self.children:
            self.reap()
            self.watch_memory()
            if not self.draining and Path(self.plan.folder.retire(self.plan.job_id)).exists():
                self.drain("asked to by hpclab remove-worker", signal.SIGUSR1)
            if self.children:
                time.sleep(POLL_S)
        return self.worst

    def fork(self, index: int) -> None:
        pid = os.fork()
        if pid:
            self.children[pid] = index
            return
        # from here on we are the worker; whatever happens, its parent's code must not run on in it
        status: int = JobExit.WORKER_FAILED
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            from hpclab.inside.worker import run_worker

            status = run_worker(self.plan, index)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def reap(self) -> None:
        for pid, index in list(self.children.items()):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                del self.children[pid]
                self.ended(index, os.waitstatus_to_exitcode(status))

    def ended(self, index: int, status: int) -> None:
        from hpclab.inside.worker import RESTART

        name = worker_name(self.plan.job_id, index)
        if status < 0:
            self.report("left", worker=name, reason=f"killed by signal {-status}")
        wants_restart = status == RESTART or status < 0 or status == JobExit.WORKER_FAILED
        if not wants_restart or self.draining:
            self.worst = max(self.worst, status if not self.draining else JobExit.OK)
        elif self.restarts >= MOST_RESTARTS and status != RESTART:
            self.report("failed", reason=f"worker {name} ended {self.restarts} times")
            self.worst = JobExit.WORKER_FAILED
        else:
            self.restarts += status != RESTART
            self.report(
                "restarted", worker=name, reason="asked to by Dask" if status == RESTART else f"it ended with {status}"
            )
            self.fork(index)

    def watch_memory(self) -> None:
        """What Dask's nanny would do: a worker past its limit is killed before the batch system kills the whole job."""
        import psutil

        for pid, index in self.children.items():
            try:
                used_bytes = psutil.Process(pid).memory_info().rss
            except psutil.Error:
                continue
            if used_bytes > TERMINATE_FRACTION * self.plan.memory_bytes:
                name = worker_name(self.plan.job_id, index)
                self.report(
                    "left", worker=name, reason=f"it used {used_bytes} of {self.plan.memory_bytes} bytes of memory"
                )
                os.kill(pid, signal.SIGKILL)

    def drain(self, reason: str, how: signal.Signals) -> None:
        self.draining = True
        self.report("draining", reason=reason)
        for pid in self.children:
            os.kill(pid, how)


def _wait_for_scheduler(folder: SessionFolder, job_id: str, wait_s: float) -> str:
    """The address of the session's scheduler, or empty when there is none, or none any more."""
    deadline = time.time() + wait_s
    told = False
    while time.time() < deadline and not Path(folder.over).exists():
        try:
            return str(json.loads(Path(folder.scheduler).read_text(encoding="utf-8"))["address"])
        except (OSError, ValueError, KeyError, TypeError):
            if not told:
                report(folder, job_id, "waiting", reason="the session's Dask scheduler")
                told = True
            time.sleep(0.2)
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m hpclab.inside.worker_job")
    parser.add_argument("folder", type=SessionFolder)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--nthreads", type=int, required=True)
    parser.add_argument("--memory", type=int, required=True, help="bytes per worker")
    parser.add_argument("--death-timeout", type=int, required=True)
    parser.add_argument("--drain", type=float, required=True, help="seconds before the job's end")
    parser.add_argument("--interface", default="")
    given = parser.parse_args()
    job_id = os.environ["HPCLAB_JOB_ID"]
    os.umask(0o077)
    os.environ.update(dask_tls(given.folder))
    from hpclab.inside.worker import WorkerPlan

    address = _wait_for_scheduler(given.folder, job_id, given.death_timeout)
    if not address:
        report(given.folder, job_id, "failed", reason="the session has no running scheduler")
        return JobExit.SESSION_OVER
    report(given.folder, job_id, "connecting", address=address)
    plan = WorkerPlan(
        folder=given.folder,
        job_id=job_id,
        scheduler_address=address,
        nthreads=given.nthreads,
        memory_bytes=given.memory,
        death_timeout_s=given.death_timeout,
        end_time=float(os.environ["HPCLAB_JOB_END_TIME"]),
        drain_s=given.drain,
        interface=interface_name(given.interface, [name for _, name in socket.if_nameindex()]),
    )
    return WorkerJob(plan, given.workers).run()


if __name__ == "__main__":
    sys.exit(main())

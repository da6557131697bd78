"""The Dask workers of one job, forked from this process: started, watched, started again, drained together."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpclab.connection import worker_name
from hpclab.inside.patience import Patience
from hpclab.inside.report import report
from hpclab.inside.worker import RESTART, TERMINATE_FRACTION, WorkerPlan, run_worker, used_memory_bytes
from hpclab.job import JobExit
from hpclab.units import format_memory

POLL_S = 0.25
MOST_RESTARTS = 5
TO_END = {signal.SIGTERM, signal.SIGUSR2}


@dataclass
class Workers:
    """What a nanny is for one worker, this is for all of a job, at the cost of one process."""

    plan: WorkerPlan
    count: int
    first_index: int = 0
    children: dict[int, int] = field(default_factory=dict)
    """Process id to index."""
    restarts: int = 0
    draining: bool = False
    told_to_end: bool = False
    """By the batch system."""
    exit_status: int = JobExit.OK

    def run(self) -> int:
        """Until the last worker has left; the job's exit status."""
        # USR2 is how Grid Engine and LSF begin to end a job, USR1 how the former announces that it will suspend it
        told = Patience(self.kill) if self.plan.is_patient else self.told
        for number in (signal.SIGTERM, signal.SIGUSR2):
            signal.signal(number, told)
        signal.signal(signal.SIGUSR1, lambda *_: None)
        for index in range(self.first_index, self.first_index + self.count):
            self.fork(index)
        while self.children:
            self.reap()
            self.watch_memory()
            if not self.draining and Path(self.plan.folder.retire(self.plan.job_id)).exists():
                self.drain("asked to by hpclab remove-worker", signal.SIGHUP)
            if self.children:
                time.sleep(POLL_S)
        return self.exit_status

    def told(self, *_: object) -> None:
        self.drain("the job was told to end", signal.SIGTERM)

    def report(self, what: str, **details: Any) -> None:
        report(self.plan.folder, self.plan.job_id, what, **details)

    def fork(self, index: int) -> None:
        # a TERM at this moment would be heard by the child as if it were the parent
        signal.pthread_sigmask(signal.SIG_BLOCK, TO_END)
        pid = os.fork()
        if pid:
            self.children[pid] = index
            signal.pthread_sigmask(signal.SIG_UNBLOCK, TO_END)
            return
        # from here on we are the worker; whatever happens, its parent's code must not run on in it
        status: int = JobExit.WORKER_FAILED
        try:
            signal.signal(signal.SIGTERM, Patience() if self.plan.is_patient else signal.SIG_DFL)
            # sent to all of the job's processes, it comes from our parent, too, as TERM
            signal.signal(signal.SIGUSR2, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, TO_END)
            status = run_worker(self.plan, index)
        except BaseException:
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
        """A worker's process is gone: what it means for the job."""
        name = worker_name(self.plan.job_id, index)
        was_lost = status < 0 or status == JobExit.WORKER_FAILED
        reason = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
        if was_lost:
            self.report("left", worker=name, reason=reason)
        if self.draining or not (was_lost or status == RESTART):
            # some batch systems tell a job that was cancelled from one that left by nothing but this
            drained = JobExit.TERMINATED if self.told_to_end else JobExit.OK
            self.exit_status = max(self.exit_status, drained if self.draining else status)
        elif was_lost and self.restarts == MOST_RESTARTS:
            self.report("failed", reason=f"{name} and its like were started again {MOST_RESTARTS} times")
            self.exit_status = JobExit.WORKER_FAILED
        else:
            self.restarts += was_lost
            self.report("restarted", worker=name, reason=reason if was_lost else "asked to by Dask")
            self.fork(index)

    def watch_memory(self) -> None:
        """A worker past its limit goes before the batch system ends the whole job for it."""
        for pid, index in self.children.items():
            used_bytes = used_memory_bytes(pid)
            if used_bytes > TERMINATE_FRACTION * self.plan.memory_bytes:
                name = worker_name(self.plan.job_id, index)
                limit_bytes = self.plan.memory_bytes
                self.report("outgrown", worker=name, used=format_memory(used_bytes), limit=format_memory(limit_bytes))
                os.kill(pid, signal.SIGKILL)

    def kill(self) -> None:
        for pid in self.children:
            os.kill(pid, signal.SIGKILL)

    def drain(self, reason: str, how: signal.Signals) -> None:
        self.draining = True
        self.told_to_end = self.told_to_end or how is signal.SIGTERM
        for pid in self.children:
            os.kill(pid, how)
        self.report("draining", reason=reason)

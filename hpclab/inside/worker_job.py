"""A worker job: `python -m hpclab.inside.worker_job SESSION_FOLDER …`, run by add-one-worker.sh.

It imports Dask once and forks its workers from there, which saves most of their start and a third of their memory.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import socket
import sys
import time
from pathlib import Path

from hpclab.folder import SessionFolder
from hpclab.inside.environ import worker_environment
from hpclab.inside.plan import interface_name
from hpclab.inside.report import report
from hpclab.job import JobExit


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m hpclab.inside.worker_job")
    parser.add_argument("folder", type=SessionFolder)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--first-index", type=int, default=0, help="of the first worker's name")
    parser.add_argument("--nthreads", type=int, required=True)
    parser.add_argument("--memory", type=int, required=True, help="bytes per worker")
    parser.add_argument("--death-timeout", type=int, required=True)
    parser.add_argument("--drain", type=float, required=True, help="seconds before the job's end")
    parser.add_argument("--interface", default="")
    given = parser.parse_args()
    folder, job_id = given.folder, os.environ["HPCLAB_JOB_ID"]
    os.umask(0o077)
    # before Dask is imported, for it reads its settings then
    os.environ.update(worker_environment(os.environ, folder))
    # thousands of objects that stay: looking through them for garbage takes time, and memory that forks would share
    gc.disable()
    try:
        from hpclab.inside.worker import WorkerPlan
        from hpclab.inside.workers import Workers
    except ImportError as error:
        report(folder, job_id, "failed", reason=f"{error} in the job's Python {sys.executable}")
        return JobExit.ENVIRONMENT
    gc.freeze()
    gc.enable()
    address = wait_for_scheduler(folder, job_id, given.death_timeout)
    if not address and Path(folder.over).exists():
        report(folder, job_id, "ending", reason=JobExit.SESSION_OVER.meaning)
        return JobExit.SESSION_OVER
    if not address:
        report(folder, job_id, "failed", reason=f"the session had no Dask scheduler for {given.death_timeout} s")
        return JobExit.SESSION_OVER
    report(folder, job_id, "connecting", address=address)
    plan = WorkerPlan(
        folder=folder,
        job_id=job_id,
        scheduler_address=address,
        nthreads=given.nthreads,
        memory_bytes=given.memory,
        death_timeout_s=given.death_timeout,
        end_time=float(os.environ["HPCLAB_JOB_END_TIME"]),
        drain_s=given.drain,
        interface=interface_name(given.interface, [name for _, name in socket.if_nameindex()]),
    )
    return Workers(plan, given.workers, given.first_index).run()


def wait_for_scheduler(folder: SessionFolder, job_id: str, wait_s: float) -> str:
    """The address of the session's scheduler; empty when there is none, or none any more."""
    deadline = time.time() + wait_s
    told = False
    while time.time() < deadline and not Path(folder.over).exists():
        try:
            return str(json.loads(Path(folder.scheduler).read_text(encoding="utf-8"))["address"])
        except (OSError, ValueError, KeyError, TypeError):  # not there yet, or half written
            if not told:
                report(folder, job_id, "waiting", reason="the session's Dask scheduler")
                told = True
            time.sleep(0.2)
    return ""


if __name__ == "__main__":
    sys.exit(main())

"""A worker job: `python -m hpclab.inside.worker_job SESSION_FOLDER …`, run by add-one-worker.sh.

It imports Dask once and forks its workers from there, which saves most of their start and a third of their memory.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from pathlib import Path

from hpclab.folder import SessionFolder
from hpclab.inside.environ import worker_environment
from hpclab.inside.network import networks, scheduler_versions, wait_for_scheduler, way_to
from hpclab.inside.report import report
from hpclab.job import JobExit
from hpclab.versions import SAME_ENVIRONMENT, in_words, mismatch, versions_here


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m hpclab.inside.worker_job")
    parser.add_argument("folder", type=SessionFolder)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--first-index", type=int, default=0, help="of the first worker's name")
    parser.add_argument("--nthreads", type=int, required=True)
    parser.add_argument("--memory", type=int, required=True, help="bytes per worker")
    parser.add_argument("--death-timeout", type=int, required=True)
    parser.add_argument("--drain", type=float, required=True, help="seconds before the job's end")
    parser.add_argument("--any-versions", action="store_true", help="also other than the scheduler's")
    parser.add_argument("--gpus", type=int, default=0, help="per worker")
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
    ours = versions_here()
    report(
        folder,
        job_id,
        "environment",
        python=sys.version.split()[0],
        versions=in_words(ours, ["dask", "distributed"]),
        network=networks(),
    )
    addresses: list[str] = []
    told = False
    for addresses in wait_for_scheduler(folder, given.death_timeout):
        if not addresses and not told:
            told = True
            report(folder, job_id, "waiting", reason="the session's Dask scheduler")
    if Path(folder.over).exists():
        report(folder, job_id, "ending", reason=JobExit.SESSION_OVER.meaning)
        return JobExit.SESSION_OVER
    if not addresses:
        report(folder, job_id, "failed", reason=f"the session had no Dask scheduler for {given.death_timeout} s")
        return JobExit.SESSION_OVER
    if not given.any_versions and (different := mismatch(ours, scheduler_versions(folder))):
        theirs = in_words(scheduler_versions(folder), different)
        reason = f"this job has {in_words(ours, different)}, but the session's main job {theirs}; {SAME_ENVIRONMENT}"
        report(folder, job_id, "failed", reason=reason)
        return JobExit.WRONG_VERSIONS
    try:
        way = way_to(folder, addresses)
    except OSError as error:
        report(folder, job_id, "failed", reason=str(error))
        return JobExit.WORKER_FAILED
    report(folder, job_id, "connecting", address=way.address)
    plan = WorkerPlan(
        folder=folder,
        job_id=job_id,
        scheduler_address=way.address,
        nthreads=given.nthreads,
        memory_bytes=given.memory,
        death_timeout_s=given.death_timeout,
        end_time=float(os.environ["HPCLAB_JOB_END_TIME"]),
        drain_s=given.drain,
        host=way.host,
        gpus=given.gpus,
    )
    return Workers(plan, given.workers, given.first_index).run()


if __name__ == "__main__":
    sys.exit(main())

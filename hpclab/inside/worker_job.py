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
from hpclab.inside.report import report
from hpclab.job import JobExit
from hpclab.versions import SAME_ENVIRONMENT, Versions, in_words, mismatch, versions_here


class Ended(Exception):
    """Why the job ends before it has a worker."""

    def __init__(self, how: JobExit, reason: str = "", *, what: str = "failed") -> None:
        super().__init__(reason or how.meaning)
        self.how, self.what = how, what


def main() -> int:
    given = _parse()
    folder, job_id = given.folder, os.environ["HPCLAB_JOB_ID"]
    os.umask(0o077)
    try:
        return _run(given, folder, job_id)
    except Ended as end:
        report(folder, job_id, end.what, reason=str(end))
        return end.how


def _parse() -> argparse.Namespace:
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
    parser.add_argument("--patient", action="store_true", help="whose scheduler tells it when to end, not SIGTERM")
    return parser.parse_args()


def _run(given: argparse.Namespace, folder: SessionFolder, job_id: str) -> int:
    # before Dask is imported, for it reads its settings then
    os.environ.update(worker_environment(os.environ, folder))
    # thousands of objects that stay: looking through them for garbage takes time, and memory that forks would share
    gc.disable()
    try:
        from hpclab.inside.network import networks, way_to
        from hpclab.inside.worker import WorkerPlan
        from hpclab.inside.workers import Workers
    except ImportError as error:
        raise Ended(JobExit.ENVIRONMENT, f"{error} in the job's Python {sys.executable}") from error
    gc.freeze()
    gc.enable()
    ours = versions_here()
    told = {"python": sys.version.split()[0], "versions": in_words(ours, ["dask", "distributed"])}
    report(folder, job_id, "environment", **told, network=networks())
    addresses = _addresses(folder, job_id, given.death_timeout)
    if not given.any_versions:
        _check_versions(folder, ours)
    try:
        way = way_to(folder, addresses)
    except OSError as error:
        raise Ended(JobExit.WORKER_FAILED, str(error)) from error
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
        is_patient=given.patient,
    )
    return Workers(plan, given.workers, given.first_index).run()


def _addresses(folder: SessionFolder, job_id: str, wait_s: int) -> list[str]:
    """The scheduler's, as soon as there is one."""
    from hpclab.inside.network import wait_for_scheduler

    addresses: list[str] = []
    has_told = False
    for addresses in wait_for_scheduler(folder, wait_s):
        if not addresses and not has_told:
            has_told = True
            report(folder, job_id, "waiting", reason="the session's Dask scheduler")
    if Path(folder.over).exists():
        raise Ended(JobExit.SESSION_OVER, what="ending")
    if not addresses:
        raise Ended(JobExit.SESSION_OVER, f"the session had no Dask scheduler for {wait_s} s")
    return addresses


def _check_versions(folder: SessionFolder, ours: Versions) -> None:
    from hpclab.inside.network import scheduler_versions

    theirs = scheduler_versions(folder)
    if different := mismatch(ours, theirs):
        raise Ended(
            JobExit.WRONG_VERSIONS,
            f"this job has {in_words(ours, different)}, but the session's main job {in_words(theirs, different)}; "
            f"{SAME_ENVIRONMENT}",
        )


if __name__ == "__main__":
    sys.exit(main())

"""The queue: what the commands do to it, and how it moves on.

What only some of it needs (directives, subprocess, psutil) is imported there: `status` is asked all the time.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from hpclab.localq.record import (
    FINAL,
    SHEPHERD,
    SHOWN,
    Job,
    environ_to_hand_on,
    forget_old_jobs,
    has_shepherd,
    lock_of_shepherd,
    locked,
    next_id,
    read_jobs,
    spool,
    write_job,
)
from hpclab.localq.refusal import Refusal

MAX_STARTS = 3  # for a shepherd that dies before its job has begun


def submit(root: Path, source: str, umask: int) -> int:
    from hpclab.localq.directives import parse_directives

    try:
        script = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as error:
        raise Refusal(f"cannot read the script: {error}") from None
    asked = Job(
        **{
            "id": 0,
            "name": "stdin" if source == "-" else Path(source).name,
            "slots": max(8, 4 * (os.cpu_count() or 1)),
            "cwd": str(Path.cwd()),
            "umask": umask,
            "submit_time": time.time(),
            **parse_directives(script.decode(errors="surrogateescape")),
        }
    )
    refuse_the_impossible(asked)
    try:
        with locked(root):
            forget_old_jobs(root, time.time())
            job_id = next_id(root)
            output = Path(asked.cwd, asked.output.replace("%j", str(job_id)))
            if not output.parent.is_dir():
                raise Refusal(f"refused: the folder of the output file {str(output)!r} does not exist")
            spool(root, asked._replace(id=job_id, output=str(output)), script)
    except OSError as error:
        raise Refusal(f"cannot record the job: {error}") from None
    touch(root)
    return job_id


def refuse_the_impossible(job: Job) -> None:
    if job.cores > job.slots:
        raise Refusal(f"refused: the job asks for {job.cores} cores, this machine has {job.slots} slots")
    if job.memory_bytes and job.memory_bytes > (total := total_memory_bytes()):
        asked_gib, total_gib = job.memory_bytes / 2**30, total / 2**30
        raise Refusal(f"refused: the job asks for {asked_gib:.1f} GiB of memory, this machine has {total_gib:.1f} GiB")


def total_memory_bytes() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        import psutil

        return psutil.virtual_memory().total


def touch(root: Path) -> list[Job]:
    """Move the queue on as far as possible; all jobs."""
    try:
        with locked(root):
            return dispatch(root)
    except OSError as error:
        print(f"localq: cannot move the queue on: {error}", file=sys.stderr)
        return read_jobs(root)


def status(root: Path, ids: Iterable[str]) -> str:
    wanted = set(ids)
    jobs = [job for job in touch(root) if not wanted or str(job.id) in wanted]
    shown = ({"id": str(job.id)} | {key: getattr(job, key) for key in SHOWN} for job in jobs)
    return "".join(json.dumps(fields) + "\n" for fields in shown)


def cancel(root: Path, ids: Iterable[str]) -> None:
    wanted = set(ids)
    with locked(root):
        for job in read_jobs(root):
            if str(job.id) not in wanted or job.state in FINAL:
                continue
            folder = root / "jobs" / str(job.id)
            if job.state == "PENDING":
                write_job(folder, job._replace(state="CANCELLED", reason="cancelled", end_time=time.time()))
                continue
            if job.state == "RUNNING":
                with suppress(OSError):  # on a full disk the bell alone has to do
                    write_job(folder, job._replace(cancelled=True, reason="being cancelled"))
            ring(folder)
    touch(root)


def ring(folder: Path) -> None:
    """Wake the shepherd. One that has no ear at the bell yet will read `cancelled` in the record."""
    with suppress(OSError):
        bell = os.open(folder / "bell", os.O_WRONLY | os.O_NONBLOCK)
        os.write(bell, b"!")
        os.close(bell)


def dispatch(root: Path) -> list[Job]:
    """The queue's lock is held. In order, first fit: a small job may pass a big one that waits."""
    jobs = []
    for job in read_jobs(root):
        folder = root / "jobs" / str(job.id)
        lost = job.state == "RUNNING" and not has_shepherd(folder)
        jobs.append(write_job(folder, without_shepherd(folder, job)) if lost else job)
    used = sum(job.cores for job in jobs if job.state == "RUNNING")
    for place, job in enumerate(jobs):
        if job.state != "PENDING":
            continue
        free = max(job.slots - used, 0)
        if job.cores <= free:
            jobs[place] = started = start(root, job)
            used += started.cores if started.state == "RUNNING" else 0
        else:
            reason = f"waits for slots: needs {job.cores}, {free} of {job.slots} are free"
            jobs[place] = job._replace(reason=reason)
    return jobs


def without_shepherd(folder: Path, job: Job) -> Job:
    """What becomes of a running job whose shepherd is gone (kill -9, a reboot)."""
    from hpclab.localq.processes import end_processes

    end_processes(str(folder), grace_s=0)
    if job.cancelled:
        return job._replace(state="CANCELLED", reason="cancelled", end_time=time.time())
    if not (folder / "environ.json").exists():
        return job._replace(state="FAILED", reason="its supervisor was killed", end_time=time.time())
    if job.starts >= MAX_STARTS:
        reason = f"its supervisor could not begin, see {folder / 'shepherd.log'}"
        return job._replace(state="FAILED", reason=reason, end_time=time.time())
    return job._replace(state="PENDING", start_time=None, limit_time=None, node=None)


def start(root: Path, job: Job) -> Job:
    """Give the job a shepherd, which gets the job's lock from us: there is no moment when nobody holds it."""
    folder = root / "jobs" / str(job.id)
    now = time.time()
    started = job._replace(
        state="RUNNING",
        reason="",
        starts=job.starts + 1,
        node=os.uname().nodename,
        start_time=now,
        limit_time=None if job.walltime_s is None else now + job.walltime_s,
    )
    lock = lock_of_shepherd(folder)
    if lock is None:
        return job._replace(reason="its last supervisor is about to end")
    try:
        write_job(folder, started)
        start_shepherd(root, job.id, lock)
    except OSError as error:
        return write_job(folder, job._replace(reason=f"cannot be started now: {error}"))
    finally:
        os.close(lock)
    return started


def start_shepherd(root: Path, job_id: int, lock: int) -> None:
    """A new program, not only a fork, and Popen returns when that is so.

    The shepherd of a job submitted from within another job must not show that job's cookie, and must not
    keep open what its submitter had open.
    """
    import subprocess

    folder = root / "jobs" / str(job_id)
    with (folder / "shepherd.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "hpclab.localq", "shepherd", str(job_id)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            cwd="/",
            env=environ_to_hand_on(root) | import_path() | {"HPCLAB_LOCALQ_DIR": str(root), SHEPHERD: str(folder)},
            pass_fds=[lock],
            start_new_session=True,
        )
    process.returncode = 0  # it outlives us: nobody here waits for it, and Popen need not warn


def import_path() -> dict[str, str]:
    """The shepherd imports the package that we are, also where that is no installed one but a checkout.

    Python has put the working directory, or what PYTHONPATH begins with, first; the shepherd works elsewhere.
    """
    here = str(Path(__file__).parents[2])
    if here != sys.path[0]:
        return {}
    others = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return {"PYTHONPATH": os.pathsep.join([here, *(path for path in others if path not in ("", here))])}

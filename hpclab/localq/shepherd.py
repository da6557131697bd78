"""The shepherd: the process that tends one running job.

All that it needs is imported when it begins, and a failure can still be reported, rather than when the job has
ended and this installation has changed.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from hpclab.localq.dispatch import touch
from hpclab.localq.processes import end_processes
from hpclab.localq.record import COOKIE, Job, locked, read_job, write_job

LEFTOVER_GRACE_S = 2  # between TERM and KILL for what a job that ended by itself has left behind


def tend(root: Path, job_id: int) -> None:
    """One running job, from the start of its script to the end of its last process."""
    adopt_orphans()
    wake = listen_to_signals()
    folder = root / "jobs" / str(job_id)
    bell = os.open(folder / "bell", os.O_RDWR | os.O_NONBLOCK)  # before the record is read, see `ring`
    job = read_job(folder)
    if job.state != "RUNNING":
        return
    if job.cancelled:
        ended = job._replace(state="CANCELLED", reason="cancelled")
    else:
        ended = supervise(folder, job, wake, bell)
    record_end(root, ended._replace(end_time=time.time()), bell)


def adopt_orphans() -> None:
    """On Linux what the job daemonises becomes our child, and can be found. Elsewhere its cookie must do."""
    if sys.platform == "linux":
        with suppress(ImportError, OSError, AttributeError):
            import ctypes

            ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def listen_to_signals() -> int:
    """A file descriptor that becomes readable when a child ends or somebody wants us to end."""
    wake, signalled = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(signalled, False)
    # also undoes what the job would inherit from a submitter under nohup or in a shell's background
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.set_wakeup_fd(signalled, warn_on_full_buffer=False)
    return wake


def supervise(folder: Path, job: Job, wake: int, bell: int) -> Job:
    """Run the script, end all processes of the job; the job as it ended."""
    try:
        script = run_script(folder, job)
    except (OSError, ValueError) as error:
        return job._replace(state="FAILED", reason=f"could not be started: {error}")
    ended: dict[int, int] = {}
    state, reason = wait_for_end(job, script.pid, wake, bell, ended)

    def pause(seconds: float) -> None:
        if select.select([wake], [], [], seconds)[0]:
            os.read(wake, 4096)
        ended.update(reap())

    grace_s = job.grace_s if state else min(job.grace_s, LEFTOVER_GRACE_S)
    end_processes(str(folder), grace_s, os.getpid(), pause)
    ended.update(reap())
    return with_outcome(job, state, reason, ended.get(script.pid))


def run_script(folder: Path, job: Job) -> subprocess.Popen[bytes]:
    environ = json.loads((folder / "environ.json").read_text())
    environ |= {COOKIE: str(folder), "HPCLAB_LOCALQ_JOB_ID": str(job.id)}
    if job.limit_time is not None:
        environ["HPCLAB_LOCALQ_END_TIME"] = str(int(job.limit_time))
    (folder / "environ.json").unlink()  # the job has begun and is never begun again
    ours = os.umask(job.umask)
    try:
        output = os.open(job.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o666)
    finally:
        os.umask(ours)
    try:
        return subprocess.Popen(
            ["/bin/bash", str(folder / "script")],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=job.cwd,
            env=environ,
            umask=job.umask,
            start_new_session=True,
        )
    finally:
        os.close(output)


def reap() -> dict[int, int]:
    """The wait statuses of all children that have ended, by pid; orphans of the job are among them."""
    ended: dict[int, int] = {}
    with suppress(ChildProcessError):
        while (child := os.waitpid(-1, os.WNOHANG))[0]:
            ended[child[0]] = child[1]
    return ended


def wait_for_end(job: Job, pid: int, wake: int, bell: int, ended: dict[int, int]) -> tuple[str, str]:
    """Sleep until the script has ended, or must end: then the state and the reason which that means."""
    told_to_end = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}
    while True:
        ended.update(reap())
        if pid in ended:
            return "", ""
        remaining_s = None if job.limit_time is None else job.limit_time - time.time()
        if remaining_s is not None and remaining_s <= 0:
            return "TIMEOUT", f"walltime of {job.walltime_s} s reached"
        # at most an hour: the clock may be set, and the machine may have slept
        ready, _, _ = select.select([wake, bell], [], [], remaining_s and min(remaining_s, 3600))
        if bell in ready:
            return "CANCELLED", "cancelled"
        if wake in ready and told_to_end & set(os.read(wake, 4096)):
            return "FAILED", "its supervisor was told to end"


def with_outcome(job: Job, state: str, reason: str, wait_status: int | None) -> Job:
    """The state is empty when the script ended by itself."""
    code = None if wait_status is None else os.waitstatus_to_exitcode(wait_status)
    exit_code, signal = (code, None) if code is None or code >= 0 else (None, -code)
    if not state and code:
        state, reason = "FAILED", f"exit code {exit_code}" if signal is None else f"killed by signal {signal}"
    return job._replace(state=state or "COMPLETED", reason=reason, exit_code=exit_code, signal=signal)


def record_end(root: Path, job: Job, bell: int) -> None:
    folder = root / "jobs" / str(job.id)
    for wait_s in (0, 1, 10, 100, 1000):  # a full disk may pass, and the outcome is known here only
        time.sleep(wait_s)
        if was_removed(folder, bell):
            return
        try:
            with locked(root):
                write_job(folder, job)
        except OSError:
            continue
        touch(root)
        return


def was_removed(folder: Path, bell: int) -> bool:
    """Somebody has removed the state folder, and may have made another one there, whose jobs are not ours."""
    try:
        return not os.path.samestat(os.fstat(bell), (folder / "bell").stat())
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:  # for the moment only, perhaps
        return False

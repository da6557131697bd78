"""The processes of a job: how they are found, and how they are ended.

Needs psutil, and is imported only where there is something to end.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress

import psutil

from hpclab.localq.record import COOKIE, SHEPHERD

UNKILLABLE_S = 2  # what survives KILL for so long (a hung file system) is given up


def processes_of(cookie: str, shepherd_pid: int | None) -> list[psutil.Process]:
    """All living processes of a job: with its cookie, or without any but descending from it or its shepherd.

    Parents come before their children: a script must hear of TERM before it sees its commands die of it.
    Other shepherds and their jobs may descend from us, when a job has submitted them: they are not ours.
    """
    processes: dict[int, psutil.Process] = {}
    environs: dict[int, dict[str, str]] = {}
    children: dict[int, list[int]] = {}
    for process in psutil.process_iter(["ppid", "environ", "status"]):
        processes[process.pid] = process
        environs[process.pid] = process.info["environ"] or {}  # None where we may not look
        children.setdefault(process.info["ppid"], []).append(process.pid)

    to_visit = [pid for pid, environ in environs.items() if environ.get(COOKIE) == cookie]
    if shepherd_pid is not None:
        to_visit += children.get(shepherd_pid, [])  # last in, first out: the tree from its root
    found: dict[int, None] = {}  # an ordered set
    while to_visit:
        pid = to_visit.pop()
        foreign = environs[pid].get(COOKIE, cookie) != cookie or SHEPHERD in environs[pid]
        if pid not in found and not foreign and pid != os.getpid():
            found[pid] = None
            to_visit += children.get(pid, [])
    return [processes[pid] for pid in found if processes[pid].info["status"] != psutil.STATUS_ZOMBIE]


def end_processes(
    cookie: str,
    grace_s: float,
    shepherd_pid: int | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """TERM to all processes of the job, and after the grace KILL, until none is left."""

    def look() -> list[psutil.Process]:
        # twice, as one that daemonises (forks and ends) while the list is read is in it with neither pid
        return processes_of(cookie, shepherd_pid) or processes_of(cookie, shepherd_pid)

    def send(action: Callable[[psutil.Process], None]) -> list[psutil.Process]:
        processes = look()
        for process in processes:
            with suppress(psutil.Error):
                action(process)
        return processes

    kill_at = time.monotonic() + grace_s
    left = send(psutil.Process.terminate)
    pause_s = 0.01
    while left and time.monotonic() < kill_at:
        pause(min(pause_s, grace_s))
        pause_s = min(2 * pause_s, 0.25)
        left = look()
    while left and time.monotonic() < kill_at + UNKILLABLE_S:
        left = send(psutil.Process.kill)  # again and again: they may have forked meanwhile
        pause(0.01)

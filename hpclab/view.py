"""What a session looks like now: the join of what the batch system, the jobs' events and the Dask scheduler say.

`describe` is the one serialisation, for --json, HTTP and TypeScript. White-listed; never a secret. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hpclab.connection import (
    DASHBOARD_PORT,
    JUPYTER_PORT,
    LOOPBACK,
    Connection,
    dashboard_url,
    job_of_worker,
    jupyter_url,
    tunnel_argv,
)
from hpclab.event import Event
from hpclab.job import JobExit, JobRecord, JobState, JobStatus, Program, exit_meaning
from hpclab.units import format_duration


@dataclass(frozen=True, kw_only=True)
class JobView:
    """One job: what it asked for, what became of it, and how many of its Dask workers have really joined."""

    job_id: str
    record: JobRecord
    submit_time: float | None
    status: JobStatus
    joined: int
    busy: int = 0
    """How many of those that have joined are at work."""
    has_joined: bool = False
    """Now or earlier."""
    cpu_percent: float | None = None
    """Of all its workers, now; 100 is one core. None: not known."""
    memory_used_bytes: int | None = None

    @property
    def cores(self) -> int:
        """Of all its workers."""
        return self.record.workers * self.record.cores

    def ran_s(self, now: float) -> float:
        """How long it has held its cores."""
        start, end = self.status.start_time, self.status.end_time
        if start is None or self.status.state in (JobState.PENDING, JobState.HELD):
            return 0.0
        return max(0.0, (end if self.status.state.is_final and end else now) - start)

    def describe(self, now: float) -> dict[str, Any]:
        status = self.status
        # while the batch system does not answer, its walltime goes on
        runs = status.state is JobState.RUNNING or (status.state is JobState.UNKNOWN and self.joined > 0)
        left_s = status.end_time - now if runs and status.end_time else None
        waits = status.state in (JobState.PENDING, JobState.HELD)
        return {
            "id": self.job_id,
            "role": self.record.role,
            "state": status.state.value,
            "reason": status.reason,
            "node": status.node,
            "workers": self.record.workers,
            "joined": self.joined,
            "busy": self.busy,
            "cores": self.record.cores,
            "memory_bytes": self.record.memory_bytes,
            "gpus": self.record.gpus,
            "cpu_percent": self.cpu_percent,
            "memory_used_bytes": self.memory_used_bytes,
            "walltime_s": self.record.walltime_s,
            "submit_time": self.submit_time,
            "expected_start": status.start_time if waits else None,
            "start_time": None if waits else status.start_time,
            "end_time": status.end_time,
            "time_left_s": None if left_s is None else max(0, round(left_s)),
            "exit_status": status.exit_status,
        }


@dataclass(frozen=True, kw_only=True)
class ProgramView:
    """The script of a run, and how far it is."""

    program: Program
    launch: str
    has_begun: bool
    exit_status: int | None
    """The script's own; None: it has not ended, or without a word."""

    @staticmethod
    def of(program: Program, launch: str, events: Sequence[Event]) -> ProgramView:
        """By what its job has told."""
        events = last_run(events)
        ended = script_end(events)
        has_begun = any(event.what == "script" for event in events)
        return ProgramView(program=program, launch=launch, has_begun=has_begun, exit_status=ended)

    def describe(self) -> dict[str, Any]:
        return {
            "script": self.program.script,
            "arguments": list(self.program.arguments),
            "launch": self.launch,
            "exit_status": self.exit_status,
        }


def script_end(events: Sequence[Event]) -> int | None:
    """The exit status of a run's script, once it has ended; None also where only the end of its job has ended it."""
    for event in events:
        if event.what == "script_ended":
            told = event.details.get("exit_status")
            return told if isinstance(told, int) else None
        if event.what in ("ending", "failed"):
            break
    return None


@dataclass(frozen=True, kw_only=True)
class SessionView:
    """One session, now."""

    name: str
    queue: str
    folder: str
    created: float
    login: str
    """USER@HOST, by the name that the login node has for itself."""
    state: str
    """queued, held, starting, running, ending, ended, failed or unknown."""
    reason: str
    jobs: tuple[JobView, ...]
    connection: Connection | None
    now: float
    busy_core_s: float | None = None
    """How long tasks have run, summed over the workers' cores. None: not known."""
    program: ProgramView | None = None
    """A run's; None: it is a session with JupyterLab."""

    @property
    def main(self) -> JobView | None:
        return next((job for job in reversed(self.jobs) if job.record.role == "main"), None)

    def describe(self, token: str = "", *, destination: str = "") -> dict[str, Any]:
        """Without a token nothing secret; with it, the same and links that open.

        `destination` is what ssh calls the login node for somebody who asks from another machine.
        """
        here, main = self.connection, self.main
        described = [job.describe(self.now) for job in self.jobs]
        joined = [job for job in described if job["joined"]]
        on_node = here is not None and here.is_at(self.login.rpartition("@")[2]) and not destination
        return {
            "name": self.name,
            "state": self.state,
            "reason": self.reason,
            "queue": self.queue,
            "program": self.program and self.program.describe(),
            "node": here.node if here else main.status.node if main else "",
            "jupyter_url": here and jupyter_url(LOOPBACK, here.jupyter_port if on_node else JUPYTER_PORT, token),
            "dashboard_url": here
            and dashboard_url(LOOPBACK, here.dashboard_port if on_node else DASHBOARD_PORT, token),
            "tunnel": tunnel_argv(here, self.login, destination) if here else None,
            "folder": self.folder,
            "created": self.created,
            "time_left_s": next((job["time_left_s"] for job in reversed(described) if job["role"] == "main"), None),
            "core_hours": self._core_hours(),
            "workers": {
                "joined": sum(job["joined"] for job in described),
                "cores": sum(job["joined"] * job["cores"] for job in joined),
                "memory_bytes": sum(job["joined"] * job["memory_bytes"] for job in joined),
                # one that was suspended has joined
                "pending": sum(
                    job["workers"] for job in described if job["state"] in ("pending", "held") and not job["joined"]
                ),
            },
            "jobs": described,
        }

    def _core_hours(self) -> dict[str, float | None]:
        used_s = sum(job.cores * job.ran_s(self.now) for job in self.jobs)
        idle_s = None if self.busy_core_s is None else max(0.0, used_s - self.busy_core_s)
        return {"used": round(used_s / 3600, 3), "idle": None if idle_s is None else round(idle_s / 3600, 3)}


def unreadable(name: str, folder: str, reason: str) -> SessionView:
    """A folder among the sessions that cannot be read as one."""
    return SessionView(
        name=name,
        queue="",
        folder=folder,
        created=0.0,
        login="",
        state="unreadable",
        reason=reason,
        jobs=(),
        connection=None,
        now=0.0,
    )


def true_status(status: JobStatus, events: Sequence[Event], *, over: str = "") -> JobStatus:
    """What the batch system says, corrected by the job's own account, which outlives its memory.

    `over` tells how the session ended, if it has.
    """
    events = last_run(events)
    exited = next((event for event in reversed(events) if event.what == "exited"), None)
    started = next((event for event in events if event.what == "started"), None)
    if started is not None:
        node = status.node or str(started.details.get("node", ""))
        start = started.time if status.state.is_final or status.state is JobState.UNKNOWN else None
        status = replace(status, node=node, start_time=status.start_time or start)
    if exited is None:
        return _gone(status, ran=bool(events), over=over) if status.state is JobState.GONE else status
    told_code = exited.details.get("exit_status")
    code = told_code if isinstance(told_code, int) else 1
    # why something failed explains more than that the rest ended for it
    reasons = {event.what: event.details.get("reason") for event in events}
    told = reasons.get("failed") or reasons.get("ending")
    never_began = any(event.what == "failed" for event in events)
    # an exit status of a run's script is the script's, and means nothing of ours
    is_script = script_end(events) == code
    good = code == JobExit.OK or (code == JobExit.SESSION_OVER and not (never_began or is_script))
    if status.state in (JobState.UNKNOWN, JobState.GONE):
        state = JobState.DONE if good else JobState.FAILED
        return replace(status, state=state, reason=told or exit_meaning(code), exit_status=code, end_time=exited.time)
    if status.state is JobState.RUNNING:
        return replace(status, state=JobState.COMPLETING)
    if status.state is JobState.DONE and is_script:
        return replace(status, reason=str(told))
    if status.state is JobState.FAILED and good:
        return replace(status, state=JobState.DONE, reason=str(told or exit_meaning(code)))
    if status.state is JobState.FAILED and code != JobExit.TERMINATED:
        return replace(status, reason=str(told or exit_meaning(code)))
    return status


def is_cut_short(status: JobStatus, events: Sequence[Event]) -> bool:
    """The job is over, and its own account lacks the end: it was killed, or was read a moment too early."""
    return status.state.is_final and bool(events) and not any(event.what == "exited" for event in last_run(events))


def silent_status(status: JobStatus, since: float, now: float) -> JobStatus:
    """Of a job whose worker the Dask scheduler does not hear any more, which the batch system may not know yet."""
    if status.state is not JobState.RUNNING:
        return status
    reason = (
        f"no sign of life from its worker for {format_duration(now - since)}: "
        "its node may be down, or a task holds Python's lock"
    )
    return replace(status, reason=reason)


def lost_status(status: JobStatus) -> JobStatus:
    """Of a job whose workers had joined, of which the Dask scheduler has none any more."""
    if status.state is not JobState.RUNNING or status.reason:
        return status
    reason = "the Dask scheduler has none of its workers any more: they leave or start again, or its node is down"
    return replace(status, reason=reason)


def _gone(status: JobStatus, *, ran: bool, over: str) -> JobStatus:
    """The batch system has forgotten it, and it has not said how it ended."""
    if ran:
        reason = "it ended without a word: it was killed, or its node died; the batch system has forgotten it"
        return replace(status, state=JobState.FAILED, reason=status.reason or reason)
    reason = "" if over else "it left the queue without having run"
    return replace(status, state=JobState.CANCELLED, reason=status.reason or reason)


def last_run(events: Sequence[Event]) -> Sequence[Event]:
    """A job that the batch system has started again tells its story from the start."""
    starts = [index for index, event in enumerate(events) if event.what == "started"]
    return events[starts[-1] :] if starts else events


def has_joined(events: Sequence[Event], *, by: float = math.inf) -> bool:
    return any(event.what == "joined" and event.time <= by for event in events)


_SESSION_STATES = {
    JobState.PENDING: "queued",
    JobState.HELD: "held",
    JobState.COMPLETING: "ending",
    JobState.DONE: "ended",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "ended",
    JobState.GONE: "ended",
    JobState.UNKNOWN: "unknown",
}


SILENT_S = 10
"""A main job that has shown no pulse for this long may be dead, whatever the batch system says."""
SCHEDULER_SILENT_S = 30
"""A scheduler that takes in a large graph may be busy for some seconds; after this it is worth a word."""


def session_state(
    main: JobStatus | None,
    *,
    connected: bool,
    over: str,
    silent_s: float = 0.0,
    scheduler_silent_s: float = 0.0,
    again: bool = False,
    has_run: bool = False,
    was_up: bool = False,
    of_what: str = "ran in its notebooks",
) -> tuple[str, str]:
    """The session's state in a word, and its reason.

    `silent_s` is how long its main job has shown no pulse, `scheduler_silent_s` its scheduler no sign of life; `again`:
    the batch system has started it anew; `has_run`: it has run at all, and if it waits, it is to be started anew;
    `was_up`: JupyterLab was up; `of_what`: what is lost when it begins anew.
    """
    if main is None:
        return ("ended", over) if over else ("unknown", "its main job left no record")
    if main.state is JobState.RUNNING:
        reason = main.reason
        if again:
            reason = f"started again by the batch system on {main.node}: what {of_what} is lost"
        if connected and scheduler_silent_s > SCHEDULER_SILENT_S:
            silence = format_duration(scheduler_silent_s)
            reason = f"no sign of life from its Dask scheduler for {silence}: it is too busy to answer, or hangs"
        if silent_s > SILENT_S:
            silence = format_duration(silent_s)
            reason = f"no sign of life from {main.node} for {silence}: the node may be down, or its disk full"
        return ("running" if connected else "starting", reason)
    if main.state is JobState.FAILED and was_up and "walltime" in main.reason:
        return "ended", main.reason  # as every session that nobody has stopped
    if main.state.is_final and over.startswith("stopped"):
        return "ended", over
    if main.state is JobState.PENDING and has_run:
        return (
            "queued",
            f"put back into the queue by the batch system: what {of_what} is lost ({main.reason})",
        )
    return _SESSION_STATES[main.state], main.reason


def workers_by_job(names: Iterable[str], job_ids: Iterable[str]) -> dict[str, int]:
    """How many of these Dask workers each job has."""
    counts = dict.fromkeys(job_ids, 0)
    for name in names:
        job_id = job_of_worker(name)
        if job_id in counts:
            counts[job_id] += 1
    return counts

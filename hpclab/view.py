"""What a session looks like now: the join of what the batch system, the jobs' events and the Dask scheduler say.

`describe` is the one serialisation, for --json, HTTP and TypeScript. White-listed; never a secret. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hpclab.connection import (
    DASHBOARD_PORT,
    JUPYTER_PORT,
    Connection,
    dashboard_url,
    job_of_worker,
    jupyter_url,
    tunnel_argv,
)
from hpclab.event import Event
from hpclab.job import JobExit, JobRecord, JobState, JobStatus, exit_meaning

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class JobView:
    """One job: what it asked for, what became of it, and how many of its Dask workers have really joined."""

    job_id: str
    record: JobRecord
    submit_time: float | None
    status: JobStatus
    joined: int

    def describe(self, now: float) -> dict[str, Any]:
        status = self.status
        left_s = status.end_time - now if status.state is JobState.RUNNING and status.end_time else None
        return {
            "id": self.job_id,
            "role": self.record.role,
            "state": status.state.value,
            "reason": status.reason,
            "node": status.node,
            "workers": self.record.workers,
            "joined": self.joined,
            "cores": self.record.cores,
            "memory_bytes": self.record.memory_bytes,
            "walltime_s": self.record.walltime_s,
            "submit_time": self.submit_time,
            "start_time": status.start_time,
            "end_time": status.end_time,
            "time_left_s": None if left_s is None else max(0, round(left_s)),
            "exit_status": status.exit_status,
        }


@dataclass(frozen=True, kw_only=True)
class SessionView:
    """One session, now."""

    name: str
    queue: str
    folder: str
    created: float
    login: str
    state: str
    """queued, held, starting, running, ending, ended, failed or unknown."""
    reason: str
    jobs: tuple[JobView, ...]
    connection: Connection | None
    now: float

    @property
    def main(self) -> JobView | None:
        return next((job for job in reversed(self.jobs) if job.record.role == "main"), None)

    def describe(self, token: str = "") -> dict[str, Any]:
        """Without a token nothing secret; with it, the same and links that open."""
        here, main = self.connection, self.main
        described = [job.describe(self.now) for job in self.jobs]
        joined = [job for job in described if job["joined"]]
        on_node = here is not None and here.jupyter_host == LOOPBACK
        return {
            "name": self.name,
            "state": self.state,
            "reason": self.reason,
            "queue": self.queue,
            "node": here.node if here else main.status.node if main else "",
            "jupyter_url": here and jupyter_url(LOOPBACK, here.jupyter_port if on_node else JUPYTER_PORT, token),
            "dashboard_url": here
            and dashboard_url(LOOPBACK, here.dashboard_port if on_node else DASHBOARD_PORT, token),
            "tunnel": tunnel_argv(here, self.login) if here else None,
            "folder": self.folder,
            "created": self.created,
            "time_left_s": next((job["time_left_s"] for job in described if job["role"] == "main"), None),
            "workers": {
                "joined": sum(job["joined"] for job in described),
                "cores": sum(job["joined"] * job["cores"] for job in joined),
                "memory_bytes": sum(job["joined"] * job["memory_bytes"] for job in joined),
                "pending": sum(job["workers"] for job in described if job["state"] in ("pending", "held")),
            },
            "jobs": described,
        }


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
    events = _last_run(events)
    exited = next((event for event in reversed(events) if event.what == "exited"), None)
    node = status.node or next((str(event.details.get("node", "")) for event in events if event.what == "started"), "")
    status = replace(status, node=node)
    if exited is None:
        # it never ran, and the batch system has forgotten it: it was cancelled in the queue when the session ended
        was_cancelled = over and not events and status.state is JobState.UNKNOWN and not status.reason
        return replace(status, state=JobState.CANCELLED) if was_cancelled else status
    told_code = exited.details.get("exit_status")
    code = told_code if isinstance(told_code, int) else 1
    told = next((e.details.get("reason") for e in reversed(events) if e.what in ("failed", "ending")), None)
    never_began = any(event.what == "failed" for event in events)
    good = code == JobExit.OK or (code == JobExit.SESSION_OVER and not never_began)
    if status.state is JobState.UNKNOWN:
        state = JobState.DONE if good else JobState.FAILED
        return replace(status, state=state, reason=told or exit_meaning(code), exit_status=code, end_time=exited.time)
    if status.state is JobState.RUNNING:
        return replace(status, state=JobState.COMPLETING)
    if status.state is JobState.FAILED and good:
        return replace(status, state=JobState.DONE, reason=str(told or exit_meaning(code)))
    if status.state is JobState.FAILED and code != JobExit.TERMINATED:
        return replace(status, reason=str(told or exit_meaning(code)))
    return status


def _last_run(events: Sequence[Event]) -> Sequence[Event]:
    """A job that the batch system has started again tells its story from the start."""
    starts = [index for index, event in enumerate(events) if event.what == "started"]
    return events[starts[-1] :] if starts else events


_SESSION_STATES = {
    JobState.PENDING: "queued",
    JobState.HELD: "held",
    JobState.COMPLETING: "ending",
    JobState.DONE: "ended",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "ended",
    JobState.UNKNOWN: "unknown",
}


def session_state(main: JobStatus | None, *, connected: bool, over: str) -> tuple[str, str]:
    """The session's state in a word, and its reason."""
    if main is None:
        return ("ended", over) if over else ("unknown", "its main job left no record")
    if main.state is JobState.RUNNING:
        return ("running" if connected else "starting", main.reason)
    if main.state.is_final and over.startswith("stopped"):
        return "ended", over
    return _SESSION_STATES[main.state], main.reason


def workers_by_job(names: Sequence[str], job_ids: Mapping[str, object]) -> dict[str, int]:
    """How many Dask workers each job has in the scheduler."""
    counts = dict.fromkeys(job_ids, 0)
    for name in names:
        job_id = job_of_worker(name)
        if job_id in counts:
            counts[job_id] += 1
    return counts

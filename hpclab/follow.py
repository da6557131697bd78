"""Following a start, step by step, until JupyterLab answers or a run's script begins, or it is certain not to."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hpclab.errors import JobEnded, NotRunning, TookTooLong
from hpclab.event import Event
from hpclab.job import JobState, JobStatus, Place
from hpclab.session import CANCEL_GRACE_S, Session
from hpclab.units import format_clock

JOB_TELLS_FIRST_S = 15
"""The job has the same time limit for its start, and knows better what went wrong."""
ASK_EVERY_S = 1.0
"""How often a start asks the batch system; in between the job itself tells by its events."""
PLACE_AFTER_S = 5.0
"""Many jobs start at once; only about one that does not it is asked who else waits."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One step of a start: `what` is queued, running, scheduler, jupyter or script; seconds since the submission."""

    what: str
    text: str
    elapsed_s: float


def follow(session: Session, *, although_hopeless: bool = False, poll_s: float = 0.05) -> Iterator[Phase]:
    """Every step until JupyterLab is up, or the script has begun.

    Raises JobEnded with the reason and the log, NotRunning of a job that waits in vain, or TookTooLong. The time limit
    counts from when the job runs: a queue may take as long as it takes.
    """
    running_since, asked, hopeless, looks = None, 0.0, "", 0
    told: set[str] = set()
    main = session.job()
    job_id, begin = main.job_id, main.submit_time or time.time()
    while True:
        now = time.time()
        # before the events, so that those that led to it are told
        is_up = session.is_up(job_id)
        phases = _phases(session.events(job_id), begin)
        running_since = running_since or (now if phases else None)
        yield from (phase for phase in phases if phase.what not in told)
        told |= {phase.what for phase in phases}
        if is_up:
            return
        if now - asked > ASK_EVERY_S:
            asked, status = now, session.job(job_id).status
            if status.state.is_final or status.state is JobState.COMPLETING:
                raise JobEnded(_ended(session, job_id))
            is_hopeless = status.is_hopeless and not although_hopeless and not phases
            # it is believed the third time, for Slurm's first word on a new job is often not its last
            looks = looks + 1 if is_hopeless and status.reason == hopeless else 1
            if is_hopeless and looks == 3:
                raise NotRunning(_in_vain(session.name, job_id, status))
            hopeless = status.reason if is_hopeless else ""
            if not phases:
                is_waiting = status.state is JobState.PENDING and not is_hopeless
                place = session.place(job_id) if is_waiting and now - begin > PLACE_AFTER_S else None
                text = status.state.value if is_hopeless else _waiting(status, place, now)
                yield Phase(what="queued", text=text, elapsed_s=now - begin)
        if running_since and now - running_since > session.start_timeout_s + JOB_TELLS_FIRST_S:
            raise TookTooLong(
                f"job {job_id} runs, but {_awaited(session)[1]} within {session.start_timeout_s:.0f} s\n"
                f"it goes on: see `hpclab why --session {session.name}`, or end it with `hpclab stop {session.name}`"
            )
        time.sleep(poll_s)


def _awaited(session: Session) -> tuple[str, str]:
    """What a start waits for: what was to come, and that it has not come."""
    if session.program:
        return f"{session.program.name} began", f"{session.program.name} did not begin"
    return "JupyterLab was up", "JupyterLab was not up"


def _waiting(status: JobStatus, place: Place | None, now: float) -> str:
    """What is short comes first: reasons may be longer than a terminal is wide."""
    told = [str(place)] if place else []
    if status.state is JobState.PENDING and status.start_time and status.start_time > now + 60:
        told.append(f"expected to start {format_clock(status.start_time)}")
    told.append(status.reason or {JobState.RUNNING: "about to begin"}.get(status.state, status.state.value))
    return "; ".join(told)


def _ended(session: Session, job_id: str) -> str:
    """Told when the job is quite gone, for by then it has said why."""
    job = session.gone([job_id], within_s=CANCEL_GRACE_S).get(job_id) or session.job(job_id)
    reason = job.status.reason or job.status.state.value
    tail = "\n".join(f"    {line}" for line in session.log_of_failure(job_id, lines=12).splitlines())
    if not session.events(job_id):
        return f"the main job {job_id} ended before it began: {reason}\nits story: hpclab why --session {session.name}"
    return (
        f"the main job {job_id} ended before {_awaited(session)[0]}: {reason}\n"
        f"  the last lines of its log:\n{tail or '    (empty)'}\n"
        f"the whole log: hpclab logs --session {session.name}"
    )


def _in_vain(name: str, job_id: str, status: JobStatus) -> str:
    return (
        f"the main job {job_id} waits in vain: {status.reason}\n"
        f"it is queued: `hpclab stop {name}` cancels it, then ask for something else; `hpclab attach {name}` waits on"
    )


_STEPS = {
    "started": "running",
    "prologue": "prologue",
    "scheduler": "scheduler",
    "jupyter": "jupyter",
    "script": "script",
}


def _phases(events: Sequence[Event], begin: float) -> list[Phase]:
    """The steps that the job has told of."""
    return [
        Phase(what=_STEPS[event.what], text=event.sentence, elapsed_s=max(0.0, event.time - begin))
        for event in events
        if event.what in _STEPS
    ]

"""The status of a session's jobs: the batch system's word, and, where it has none now, what it said last and when."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from hpclab.event import Event
from hpclab.job import JobState, JobStatus
from hpclab.jobqueue import JobQueue
from hpclab.store import Jobs, Known, SessionRecord, Store

JUST_SUBMITTED = "just submitted"
JUST_SUBMITTED_S = 60
"""A batch system may take so long to show a new job to those who ask."""
REMEMBER_EVERY_S = 5
NEWS_S, ANSWER_S = 5, 20
"""Where the batch system does not listen to us, what somebody else heard from it so lately makes it needless to ask it
through the login node, or is its answer."""
CLOCKS_DIFFER_S = 60
"""So much a node's clock may be ahead of the batch system's."""


def job_statuses(
    queue: JobQueue, store: Store, record: SessionRecord, jobs: Jobs, *, here: str
) -> dict[str, JobStatus]:
    """One question about all those that have not ended, as far as is known; `here` is the host that asks."""
    known = store.known(record.name)
    asked = open_jobs(known, jobs)
    if queue.is_deaf and _is_known_since(known, NEWS_S):
        return _heard(queue, known, jobs)
    answer = queue.status(asked)
    if asked and queue.silence:
        if queue.is_deaf and _is_known_since(known, ANSWER_S):
            return _heard(queue, known, jobs)
        return {job: _not_known(answer[job], known) if job in answer else known.jobs[job] for job in jobs}
    if not knows_jobs_here(record, known, here) and not queue.shown & set(jobs):
        # a home may be shared by clusters; that this one does not know a job of another means nothing
        reason = f"{record.system} on {here} does not know it; the session was started on {record.host}"
        return {job: JobStatus(job_id=job, state=JobState.UNKNOWN, reason=reason) for job in jobs}
    now = time.time()
    for job_id, status in answer.items():
        if status.state is JobState.GONE:
            _, submit_time, events = jobs[job_id]
            # what it has shown once it does not begin to show, but has put away: Slurm does so with an array's queued
            # task that is cancelled
            was_shown = job_id in known.jobs and known.jobs[job_id].reason != JUST_SUBMITTED
            if not events and not was_shown and now - (submit_time or 0) < JUST_SUBMITTED_S:
                answer[job_id] = replace(status, state=JobState.PENDING, reason=JUST_SUBMITTED)
    statuses = {job_id: answer.get(job_id) or known.jobs[job_id] for job_id in jobs}
    hosts = known.hosts if here in known.hosts else (*known.hosts, here)
    remember_s = 0 if queue.is_deaf else REMEMBER_EVERY_S
    if statuses != known.jobs or hosts != known.hosts or (asked and now - known.time > remember_s):
        store.remember(record.name, Known(time=now, jobs=statuses, hosts=hosts))
    return statuses


def _is_known_since(known: Known, within_s: float) -> bool:
    return abs(time.time() - known.time) < within_s


def _heard(queue: JobQueue, known: Known, jobs: Jobs) -> dict[str, JobStatus]:
    """What an hpclab that may ask has heard; of jobs that it has not asked about yet, that they are new."""
    queue.is_answered()
    new = {job: JobStatus(job_id=job, state=JobState.PENDING, reason=JUST_SUBMITTED) for job in jobs}
    return {job: known.jobs.get(job) or new[job] for job in jobs}


def knows_jobs_here(record: SessionRecord, known: Known, here: str) -> bool:
    """The batch system of this host is the session's: it was started here, or its jobs were seen from here."""
    return record.host in ("", here) or here in known.hosts


def open_jobs(known: Known, jobs: Jobs) -> list[str]:
    """Those whose end is not known yet; about the others nobody need be asked any more."""
    return [job_id for job_id, (_, _, events) in jobs.items() if not _is_settled(known.jobs.get(job_id), events)]


def _is_settled(known: JobStatus | None, events: Sequence[Event]) -> bool:
    """The batch system has told a job's end, and the job has not begun anew since."""
    if known is None or not known.state.is_final:
        return False
    ended = known.end_time or known.start_time
    return not ended or not any(event.what == "started" and event.time > ended + CLOCKS_DIFFER_S for event in events)


def _not_known(status: JobStatus, known: Known) -> JobStatus:
    """Of a batch system that does not answer: since when, and how the job was then."""
    before = known.jobs.get(status.job_id)
    if before is None:
        return status
    since = time.strftime("%H:%M:%S", time.localtime(known.time))
    reason = f"{status.reason} (since {since}; then {before.state.value})"
    return replace(before, state=JobState.UNKNOWN, reason=reason)

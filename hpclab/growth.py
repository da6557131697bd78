"""How a session grows and shrinks: which jobs to submit, cancel or retire. Pure: `session` does what is decided here.

A queued job counts as coming, for it has already waited; one that nears its end counts as leaving.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from hpclab.errors import ConfigError
from hpclab.job import JobExit, JobState, Shape
from hpclab.view import JobView

FAILURES_IN_A_ROW = 3
MOST_WORKERS = 10_000
"""Nobody may ask for more at once."""
START_UP_S = 30.0
"""From a job's start until its worker has joined and has received data, generously."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """What is to be done to reach a number of workers."""

    submit: int = 0
    """Worker jobs."""
    cancel: tuple[str, ...] = ()
    """Those still queued, the youngest first, for they have waited least; then those whose workers have not joined."""
    retire: tuple[str, ...] = ()
    """Those that run: the idle first."""


def failing(jobs: Sequence[JobView]) -> str:
    """Why there is no use in submitting more: the reason of the last of three in a row that never had a worker join."""
    started = [job for job in jobs if job.record.role == "worker" and job.status.state not in _WAITING]
    last = started[-FAILURES_IN_A_ROW:]
    if len(last) < FAILURES_IN_A_ROW or not all(_failed_to_start(job) for job in last):
        return ""
    return last[-1].status.reason or last[-1].status.state.value


def _failed_to_start(job: JobView) -> bool:
    # one that found no scheduler yet says nothing about the next
    is_early = job.status.exit_status == JobExit.SESSION_OVER
    return job.status.state is JobState.FAILED and not job.has_joined and not is_early


def scaled(jobs: Sequence[JobView], wanted: int, *, workers_per_job: int) -> Change:
    """Meet `wanted` Dask workers in all, those of the main job among them, which stay whatever is wanted."""
    alive = [job for job in jobs if not job.status.state.is_final and job.status.state is not JobState.COMPLETING]
    surplus = sum(job.record.workers for job in alive) - wanted
    if surplus < 0:
        return Change(submit=-(surplus // workers_per_job))
    queued = [job for job in reversed(alive) if job.status.state in _WAITING and job.record.role == "worker"]
    running = [job for job in alive if job.status.state is JobState.RUNNING and job.record.role == "worker"]
    running.sort(key=lambda job: (job.busy, job.joined))
    chosen: dict[str, list[str]] = {"cancel": [], "retire": []}
    starting = [job for job in running if not job.joined]
    running = [job for job in running if job.joined]
    for what, candidates in (("cancel", queued + starting), ("retire", running)):
        for job in candidates:
            if job.record.workers <= surplus:
                chosen[what].append(job.job_id)
                surplus -= job.record.workers
    return Change(cancel=tuple(chosen["cancel"]), retire=tuple(chosen["retire"]))


def kept(jobs: Sequence[JobView], wanted: int, *, workers_per_job: int, now: float) -> Change:
    """Have `wanted` workers besides the main job's: each that nears its end is replaced ahead of it."""
    lead_s = replacement_lead_s(jobs)
    staying = 0
    for job in jobs:
        if job.record.role != "worker" or job.status.state.is_final or job.status.state is JobState.COMPLETING:
            continue
        if job.status.is_hopeless:
            continue
        leaves = job.status.end_time if job.status.state is JobState.RUNNING else None
        if leaves is None or leaves - now > lead_s:
            staying += job.record.workers
    return Change(submit=max(0, -((staying - wanted) // workers_per_job)))


def replacement_lead_s(jobs: Sequence[JobView]) -> float:
    """How long before a worker's end its replacement is submitted: as long as the queue has lately taken.

    At most half of a worker job's walltime, or replacements would have to be replaced while they wait.
    """
    workers = [job for job in jobs if job.record.role == "worker"]
    waits = [
        job.status.start_time - job.submit_time
        for job in workers[-20:]
        if job.submit_time and job.status.start_time and job.status.state not in _WAITING
    ]
    half_s = min((job.record.walltime_s / 2 for job in workers), default=START_UP_S)
    return min(max([0.0, *waits[-5:]]) + START_UP_S, half_s)


@dataclass(frozen=True, kw_only=True)
class Demand:
    """How many workers Dask's load has asked for, since somebody looks; times are seconds since the epoch."""

    since: float = math.inf
    latest: int = 0
    peaks: tuple[tuple[float, int], ...] = ()
    """When somebody looked, and the highest since the look before; each higher than all that came after it."""

    def seen(self, workers: int, now: float) -> Demand:
        meanwhile = max(self.latest, workers)
        higher = tuple(peak for peak in self.peaks if peak[1] > meanwhile)
        return Demand(since=min(self.since, now), latest=workers, peaks=(*higher, (now, meanwhile)))

    def highest(self, within_s: float, now: float) -> float:
        """In so many seconds up to now; infinite if nobody has looked for so long."""
        if now - self.since < within_s:
            return math.inf
        return max((workers for at, workers in self.peaks if at >= now - within_s), default=self.latest)


def adapted(
    jobs: Sequence[JobView],
    demand: Demand,
    *,
    minimum: int,
    maximum: float,
    workers_per_job: int,
    most_queued: int,
    idle_s: float,
    now: float,
) -> Change:
    """Follow Dask's load, between `minimum` and `maximum` workers in all; those of the main job count, and stay.

    More are submitted when the load asks for more than are there and coming. Idle ones leave when the load could have
    done without them for `idle_s`. A queued job is given up only when it has been needless for as long as it had
    waited before: its place in the queue is worth that much, for the load may well come back.
    """

    def within(workers: float) -> int:
        return int(max(min(workers, maximum, MOST_WORKERS), minimum))

    alive = [job for job in jobs if not job.status.state.is_final and job.status.state is not JobState.COMPLETING]
    queued = [job for job in alive if job.status.state in _WAITING]
    coming = sum(job.record.workers for job in alive)
    if (lacking := within(demand.latest) - coming) > 0:
        room = (within(math.inf) - coming) // workers_per_job
        return Change(submit=max(0, min(-(-lacking // workers_per_job), room, most_queued - len(queued))))
    cancel = []
    for job in reversed(queued):
        waited_s = now - job.submit_time if job.submit_time else 0.0
        needed = within(demand.highest(max(idle_s, waited_s / 2), now))
        if job.record.role == "worker" and job.record.workers <= coming - needed:
            cancel.append(job.job_id)
            coming -= job.record.workers
    surplus = sum(job.joined for job in alive) - within(demand.highest(idle_s, now))
    idle = [job for job in alive if job.status.state is JobState.RUNNING and job.joined and not job.busy]
    retire = []
    # those that would leave soonest anyhow
    for job in sorted(idle, key=lambda job: job.status.end_time or math.inf):
        if job.record.role == "worker" and job.record.workers <= surplus:
            retire.append(job.job_id)
            surplus -= job.record.workers
    return Change(cancel=tuple(cancel), retire=tuple(retire))


_WAITING = (JobState.PENDING, JobState.HELD)


def parse_shapes(text: str) -> list[Shape]:
    """`1x4,1x16,4x16`, in the user's order."""
    shapes = []
    for part in text.split(","):
        match = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", part.strip())
        if match is None or "0" in match.groups():
            raise ConfigError(f"cannot read the shape {part!r}\nwrite NODESxCORES, such as 1x4,1x16,4x16")
        shapes.append(Shape(nodes=int(match[1]), cores=int(match[2])))
    return shapes


@dataclass(frozen=True, kw_only=True)
class Offer:
    """When a shape would start (seconds since the epoch), or why it would not."""

    shape: Shape
    start_time: float | None
    refusal: str = ""


ALIKE_S = 30.0
"""Starts that are less than this apart are as good as each other: then the larger shape is taken."""


def soonest(offers: Sequence[Offer]) -> Offer | None:
    possible = [(offer.start_time, offer) for offer in offers if offer.start_time is not None]
    if not possible:
        return None
    first = min(start for start, _ in possible)
    alike = [offer for start, offer in possible if start - first < ALIKE_S]
    return max(alike, key=lambda offer: offer.shape.nodes * offer.shape.cores)

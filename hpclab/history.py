"""How a session grew and shrank: its cores over time, from what its jobs and its scheduler tell. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import Any

from hpclab.job import JobState
from hpclab.view import SessionView

POINTS = 120


def history(view: SessionView, samples: Iterable[tuple[float, float]]) -> dict[str, Any]:
    """Lists of one length, the oldest first: `time` (seconds since the epoch), `requested`, `running` and `busy` cores.

    `requested` are those of all jobs that wait or run; `samples` tell how many were busy, and when.
    """
    begin = min((job.submit_time or job.status.start_time or view.now for job in view.jobs), default=view.now)
    if view.now <= begin:
        return {"time": [], "requested": [], "running": [], "busy": []}
    last = max((job.status.end_time or view.now for job in view.jobs), default=view.now)
    # of a session that has ended only its life
    end = view.now if any(not job.status.state.is_final for job in view.jobs) else max(begin + 1, min(last, view.now))
    times = [begin + (end - begin) * n / (POINTS - 1) for n in range(POINTS)]
    requested, running = [], []
    for job in view.jobs:
        status = job.status
        waits = status.state in (JobState.PENDING, JobState.HELD)
        start = None if waits else status.start_time
        over = status.end_time or job.submit_time if status.state.is_final else None
        since = job.submit_time or start
        if since is not None:
            requested += _step(since, over, job.cores)
        if start is not None:
            running += _step(start, over, job.cores)
    known = sorted(samples)
    return {
        "time": [round(at, 1) for at in times],
        "requested": _levels(requested, times),
        "running": _levels(running, times),
        "busy": [_at(known, at) for at in times],
    }


def _step(begin: float, end: float | None, cores: int) -> list[tuple[float, int]]:
    """Up, and down again."""
    return [(begin, cores), *([(max(begin, end), -cores)] if end is not None else [])]


def _levels(steps: list[tuple[float, int]], times: list[float]) -> list[int]:
    levels, level, taken = [], 0, 0
    steps = sorted(steps)
    for at in times:
        while taken < len(steps) and steps[taken][0] <= at:
            level += steps[taken][1]
            taken += 1
        levels.append(level)
    return levels


def _at(samples: list[tuple[float, float]], at: float) -> float:
    """What the last sample before says."""
    found = bisect_right(samples, (at, float("inf")))
    return samples[found - 1][1] if found else 0

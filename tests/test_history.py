"""Cores over time, from jobs and samples."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fixtures import NOON, job_record, session_view

from hpclab.history import POINTS, history
from hpclab.job import JobState, JobStatus
from hpclab.view import JobView


def a_job(job_id: str, state: JobState, cores: int, submit: float | None, start: float | None, end: float | None):
    status = JobStatus(job_id=job_id, state=state, start_time=start, end_time=end)
    return JobView(
        job_id=job_id, record=job_record("worker", workers=1, cores=cores), submit_time=submit, status=status, joined=0
    )


def at(told: dict[str, list[float]], what: str, seconds_ago: float) -> float:
    """The level at the last point before."""
    index = max(n for n, time in enumerate(told["time"]) if time <= NOON - seconds_ago + 0.1)
    return told[what][index]


RUNS = a_job("1", JobState.RUNNING, 4, NOON - 1000, NOON - 900, NOON + 3600)
WAITS = a_job("2", JobState.PENDING, 2, NOON - 500, NOON + 50, None)
HAS_RUN = a_job("3", JobState.DONE, 1, NOON - 800, NOON - 700, NOON - 600)
NEVER_RAN = a_job("4", JobState.CANCELLED, 8, NOON - 400, None, NOON - 300)


def test_what_waits_is_requested_and_what_runs_too():
    told = history(session_view(RUNS, WAITS, HAS_RUN, NEVER_RAN), [])
    assert [at(told, "requested", ago) for ago in (950, 750, 550, 450, 350, 0)] == [4, 5, 4, 6, 14, 6]
    assert [at(told, "running", ago) for ago in (950, 750, 650, 550, 0)] == [0, 4, 5, 4, 4]


def test_busy_is_what_the_last_sample_before_says():
    told = history(session_view(RUNS), [(NOON - 800, 4), (NOON - 300, 1)])
    assert [at(told, "busy", ago) for ago in (900, 700, 310, 200, 0)] == [0, 4, 4, 1, 1]


def test_all_lists_are_of_one_length_and_end_now():
    told = history(session_view(RUNS, WAITS), [])
    assert {len(values) for values in told.values()} == {POINTS}
    assert (told["time"][0], told["time"][-1]) == (NOON - 1000, NOON)


@pytest.mark.parametrize("view", [session_view(), session_view(RUNS, now=NOON - 2000)])
def test_without_a_past_there_is_no_history(view):
    assert history(view, [(NOON, 1)]) == {"time": [], "requested": [], "running": [], "busy": []}


def test_of_a_session_that_has_ended_its_life_is_told():
    told = history(replace(session_view(HAS_RUN), now=NOON + 100_000), [])
    assert told["time"][-1] == NOON - 600


def test_a_job_whose_submission_nobody_recorded_counts_from_its_start():
    told = history(session_view(a_job("1", JobState.RUNNING, 4, None, NOON - 100, None)), [])
    assert told["requested"] == told["running"] == [4] * POINTS


def test_a_job_that_ended_nobody_knows_when_takes_no_room():
    told = history(session_view(RUNS, a_job("5", JobState.GONE, 64, NOON - 200, None, None)), [])
    assert at(told, "requested", 0) == 4

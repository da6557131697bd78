"""How a session grows and shrinks: decided from what its jobs look like, and from nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fixtures import NOON, job_record

from hpclab.errors import ConfigError
from hpclab.growth import (
    ALIKE_S,
    FAILURES_IN_A_ROW,
    START_UP_S,
    Change,
    Offer,
    failing,
    kept,
    parse_shapes,
    replacement_lead_s,
    scaled,
    soonest,
)
from hpclab.job import JobState, JobStatus, Shape
from hpclab.view import JobView

P, H, R, C, D, F = (
    JobState.PENDING,
    JobState.HELD,
    JobState.RUNNING,
    JobState.COMPLETING,
    JobState.DONE,
    JobState.FAILED,
)


def job(
    job_id: str, state: JobState, *, role="worker", workers=1, joined=0, busy=0, has_joined=False, **more
) -> JobView:
    """A job that was submitted at noon."""
    return JobView(
        job_id=job_id,
        record=job_record(role, workers=workers),
        submit_time=NOON,
        status=JobStatus(job_id=job_id, state=state, **more),
        joined=joined,
        busy=busy,
        has_joined=has_joined or joined > 0,
    )


MAIN = job("1", R, role="main", workers=2, joined=2)


def jobs(*states: JobState, **more: object) -> list[JobView]:
    """The main job with its two workers, and worker jobs 2, 3, … in these states."""
    return [MAIN, *(job(str(number), state, **more) for number, state in enumerate(states, 2))]


# failing


@pytest.mark.parametrize(
    ("states", "is_failing"),
    [
        ([], False),
        ([F, F], False),
        ([F, F, F], True),
        ([D, F, F, F], True),
        ([F, F, F, R], False),
        ([F, F, D], False),
        ([F, F, F, D, F, F], False),
        # those that wait prove nothing
        ([F, F, F, P, H], True),
        ([F, F, P, F], True),
        ([P, P, P], False),
        # somebody cancelled them
        ([F, F, JobState.CANCELLED], False),
    ],
)
def test_three_in_a_row_that_failed_to_start_are_failing(states, is_failing):
    assert failing(jobs(*states, reason="no such module")) == ("no such module" if is_failing else "")


def test_workers_that_had_joined_before_they_failed_have_not_failed_to_start():
    assert failing(jobs(*[F] * FAILURES_IN_A_ROW, has_joined=True)) == ""


def test_failures_without_a_reason_are_failures_all_the_same():
    assert failing(jobs(*[F] * FAILURES_IN_A_ROW)) == "failed"


def test_failed_main_jobs_do_not_count():
    assert failing([job(str(n), F, role="main") for n in range(FAILURES_IN_A_ROW)]) == ""


# scaled: the main job has two workers; those of running jobs have joined


@pytest.mark.parametrize(
    ("states", "wanted", "change"),
    [
        ([], 2, Change()),
        ([], 5, Change(submit=3)),
        ([R, P], 5, Change(submit=1)),
        ([R, P], 4, Change()),
        # what ends or has ended does not count
        ([D, F, C], 3, Change(submit=1)),
        # the youngest of the queue first
        ([R, P, H], 3, Change(cancel=("4", "3"))),
        ([P, P, P], 4, Change(cancel=("4",))),
        ([R, P], 2, Change(cancel=("3",), retire=("2",))),
        # the main job stays
        ([R, P], 0, Change(cancel=("3",), retire=("2",))),
        ([], 0, Change()),
    ],
)
def test_a_number_of_workers_is_met(states, wanted, change):
    here = [replace(job, joined=job.status.state is R) for job in jobs(*states)]
    assert scaled(here, wanted, workers_per_job=1) == change


@pytest.mark.parametrize(("wanted", "submit"), [(3, 1), (6, 1), (7, 2), (102, 25)])
def test_jobs_of_several_workers_are_as_many_as_it_takes(wanted, submit):
    assert scaled(jobs(), wanted, workers_per_job=4) == Change(submit=submit)


def test_idle_workers_leave_before_busy_ones():
    here = [MAIN, job("2", R, joined=1, busy=1), job("3", R, joined=1), job("4", R, joined=1, busy=1)]
    assert scaled(here, 3, workers_per_job=1).retire == ("3", "2")


def test_one_whose_worker_has_not_joined_has_nothing_to_hand_over_and_is_cancelled():
    here = [MAIN, job("2", R, joined=1), job("3", R), job("4", P)]
    assert scaled(here, 3, workers_per_job=1) == Change(cancel=("4", "3"))


@pytest.mark.parametrize(
    ("wanted", "retire"), [(6, ()), (5, ("3",)), (4, ("3",)), (3, ("2",)), (2, ("2", "3")), (0, ("2", "3"))]
)
def test_a_job_leaves_as_a_whole_or_not_at_all(wanted, retire):
    """Rather a worker too many than one too few."""
    here = [MAIN, job("2", R, workers=3, joined=3), job("3", R, joined=1, busy=1)]
    assert scaled(here, wanted, workers_per_job=1).retire == retire


# kept: besides those of the main job

LEAD_S = START_UP_S


@pytest.mark.parametrize(
    ("here", "wanted", "submit"),
    [
        (jobs(), 3, 3),
        (jobs(R, P, H), 3, 0),
        (jobs(R, P), 1, 0),
        (jobs(D, F, C, JobState.GONE), 2, 2),
        # unknown is not gone
        (jobs(JobState.UNKNOWN), 1, 0),
        ([MAIN, job("2", R, end_time=NOON + LEAD_S + 9)], 1, 0),
        ([MAIN, job("2", R, end_time=NOON + LEAD_S - 9)], 1, 1),
        # its replacement waits already
        ([MAIN, job("2", R, end_time=NOON + LEAD_S - 9), job("3", P)], 1, 0),
        # when a queued job is expected to start says nothing about its end
        ([MAIN, job("2", P, start_time=NOON + 9, end_time=NOON + 9)], 1, 0),
    ],
)
def test_workers_are_kept_and_replaced_ahead_of_their_end(here, wanted, submit):
    assert kept(here, wanted, workers_per_job=1, now=NOON) == Change(submit=submit)


def test_kept_workers_come_in_jobs_of_several():
    assert kept(jobs(), 5, workers_per_job=2, now=NOON) == Change(submit=3)


@pytest.mark.parametrize(
    ("waits_s", "walltime_s", "lead_s"),
    [
        ([], 3600, START_UP_S),
        ([100], 3600, 100 + START_UP_S),
        ([100, 400, 5], 3600, 400 + START_UP_S),
        # only the latest five count
        ([999, 1, 1, 1, 1, 1], 3600, 1 + START_UP_S),
        # never more than half of a worker's time
        ([5000], 3600, 1800),
        ([], 40, 20),
    ],
)
def test_a_replacement_is_submitted_as_early_as_the_queue_has_lately_taken(waits_s, walltime_s, lead_s):
    workers = [job(str(n), R, start_time=NOON + wait_s) for n, wait_s in enumerate(waits_s, 2)] or [job("2", P)]
    workers = [replace(w, record=job_record("worker", walltime_s=walltime_s)) for w in workers]
    assert replacement_lead_s([MAIN, *workers]) == lead_s


def test_an_expected_start_is_no_wait_that_anybody_had():
    assert replacement_lead_s([MAIN, job("2", P, start_time=NOON + 600)]) == START_UP_S


def test_without_worker_jobs_the_lead_is_the_start_up():
    assert replacement_lead_s([MAIN]) == START_UP_S


# shapes


def test_shapes_are_read_in_the_users_order():
    assert parse_shapes("4x16, 1x4,1x16") == [
        Shape(nodes=4, cores=16),
        Shape(nodes=1, cores=4),
        Shape(nodes=1, cores=16),
    ]
    assert ",".join(map(str, parse_shapes("4x16,1x4"))) == "4x16,1x4"


@pytest.mark.parametrize(
    "text", ["", "4", "x4", "4x", "0x4", "4x0", "1x4,", "1x4 1x8", "-1x4", "1X4", "1.5x2", "9" * 9 + "x1"]
)
def test_what_is_no_shape_is_refused(text):
    with pytest.raises(ConfigError, match="write NODESxCORES"):
        parse_shapes(text)


def offer(nodes: int, cores: int, start_time: float | None) -> Offer:
    return Offer(shape=Shape(nodes=nodes, cores=cores), start_time=start_time)


@pytest.mark.parametrize(
    ("starts", "best"),
    [
        ([NOON, NOON + 600, NOON + 900], "1x4"),
        ([NOON + 600, NOON, NOON + 900], "1x16"),
        # what starts at the same time as good as gives the more
        ([NOON, NOON + ALIKE_S - 1, NOON + ALIKE_S + 1], "1x16"),
        ([NOON, NOON, NOON], "4x16"),
        ([None, NOON + 9000, None], "1x16"),
    ],
)
def test_the_soonest_shape_is_taken_and_of_those_alike_the_largest(starts, best):
    offers = [offer(*shape, start) for shape, start in zip([(1, 4), (1, 16), (4, 16)], starts, strict=True)]
    assert str(soonest(offers).shape) == best


@pytest.mark.parametrize("offers", [[], [offer(1, 4, None)]])
def test_where_nothing_would_start_there_is_no_soonest(offers):
    assert soonest(offers) is None

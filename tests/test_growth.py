"""How a session grows and shrinks: decided from what its jobs look like, and from nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import pytest
from fixtures import NOON, job_record
from hypothesis import given
from hypothesis import strategies as st

from hpclab.errors import ConfigError
from hpclab.growth import (
    ALIKE_S,
    FAILURES_IN_A_ROW,
    START_UP_S,
    Change,
    Demand,
    Offer,
    adapted,
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


# adapted: between so many workers in all, those of the main job among them

IDLE_S = 60.0
LIMITS = {"minimum": 0, "maximum": math.inf, "workers_per_job": 1, "most_queued": 100, "idle_s": IDLE_S, "now": NOON}


def demand(*seen: tuple[float, int]) -> Demand:
    """demand((300, 5), (0, 2)): five workers were asked for 300 s before noon, and two are now."""
    told = Demand()
    for ago_s, workers in seen:
        told = told.seen(workers, NOON - ago_s)
    return told


def running(job_id: str, *, busy: int = 0, workers: int = 1, left_s: float = 1000) -> JobView:
    return job(job_id, R, workers=workers, joined=workers, busy=busy, end_time=NOON + left_s)


def queued(job_id: str, waited_s: float, **more: object) -> JobView:
    return replace(job(job_id, P, **more), submit_time=NOON - waited_s)


def test_a_demand_remembers_the_highest_of_any_time():
    told = demand((300, 5), (200, 7), (100, 3), (50, 3), (0, 2))
    assert told.latest == 2
    assert [told.highest(ago_s, NOON) for ago_s in (10, 60, 150, 250, 300)] == [3, 3, 7, 7, 7]
    assert told.highest(301, NOON) == math.inf
    assert len(told.peaks) == 2
    assert Demand().latest == 0


def test_while_nobody_looks_the_load_stays_as_it_was():
    told = demand((500, 5), (0, 1))
    assert (told.latest, told.highest(60, NOON), told.highest(60, NOON + 90)) == (1, 5, 1)


@pytest.mark.parametrize(
    ("here", "wanted", "submit"),
    [
        ([MAIN], 2, 0),
        ([MAIN], 5, 3),
        # what waits or starts is coming
        ([MAIN, queued("2", 10), job("3", H), job("4", R)], 5, 0),
        ([MAIN, queued("2", 10)], 5, 2),
        # also if nobody knows
        ([MAIN, job("2", JobState.UNKNOWN)], 3, 0),
        # what ends or has ended is not
        ([MAIN, job("2", C), job("3", D), job("4", F)], 3, 1),
        # and what waits in vain is not asked for again and again
        ([MAIN, queued("2", 10, reason="it will not start: no such node")], 3, 0),
    ],
)
def test_more_are_submitted_when_the_load_asks_for_more_than_are_there_and_coming(here, wanted, submit):
    assert adapted(here, demand((0, wanted)), **LIMITS) == Change(submit=submit)


@pytest.mark.parametrize(
    ("limits", "submit"),
    [
        ({"maximum": 7}, 5),
        ({"maximum": 2}, 0),
        ({"maximum": 1}, 0),
        ({"most_queued": 3}, 3),
        ({"workers_per_job": 4}, 5),
        ({"workers_per_job": 4, "maximum": 9}, 1),
        ({"workers_per_job": 4, "maximum": 5}, 0),
    ],
)
def test_no_more_are_submitted_than_the_limits_allow(limits, submit):
    assert adapted([MAIN], demand((0, 20)), **{**LIMITS, **limits}) == Change(submit=submit)


def test_the_minimum_is_there_without_any_load():
    assert adapted([MAIN], demand((0, 0)), **{**LIMITS, "minimum": 4}) == Change(submit=2)
    here = [MAIN, running("2"), running("3")]
    assert adapted(here, demand((IDLE_S, 0), (0, 0)), **{**LIMITS, "minimum": 4}) == Change()


@pytest.mark.parametrize(
    ("seen", "retire"),
    [
        # the load was there a moment ago
        ([(IDLE_S + 1, 4), (IDLE_S - 1, 4), (0, 0)], ()),
        # nobody has looked for long enough
        ([(IDLE_S - 1, 0), (0, 0)], ()),
        ([(IDLE_S, 3), (0, 0)], ("3",)),
        ([(IDLE_S, 2), (0, 0)], ("3", "2")),
        # those of the main job stay
        ([(IDLE_S, 0), (0, 0)], ("3", "2")),
    ],
)
def test_idle_workers_leave_after_a_while_the_one_that_ends_first_before_others(seen, retire):
    here = [MAIN, running("2", left_s=900), running("3", left_s=100)]
    assert adapted(here, demand(*seen), **LIMITS) == Change(retire=retire)


def test_busy_workers_stay():
    here = [MAIN, running("2", busy=1), running("3")]
    assert adapted(here, demand((IDLE_S, 0), (0, 0)), **{**LIMITS, "maximum": 2}) == Change(retire=("3",))


def test_a_job_of_several_workers_leaves_only_if_none_of_them_is_needed():
    here = [MAIN, running("2", workers=4)]
    assert adapted(here, demand((IDLE_S, 3), (0, 3)), **LIMITS) == Change()
    assert adapted(here, demand((IDLE_S, 2), (0, 2)), **LIMITS) == Change(retire=("2",))


@pytest.mark.parametrize(
    ("waited_s", "needless_s", "cancel"),
    [
        # it had waited for 1000 s when it became needless
        (1500, 500, ()),
        (2000, 1000, ("2",)),
        # new ones for as long as running ones
        (50, 50, ()),
        (70, 60, ("2",)),
    ],
)
def test_a_queued_job_is_given_up_when_it_was_needless_for_as_long_as_it_had_waited(waited_s, needless_s, cancel):
    here = [MAIN, queued("2", waited_s)]
    told = demand((waited_s, 3), (needless_s + 0.2, 3), (needless_s + 0.1, 2), (needless_s, 2), (0, 2))
    assert adapted(here, told, **LIMITS) == Change(cancel=cancel)


def test_the_youngest_of_the_queue_goes_first_and_running_ones_do_not_go_for_it():
    here = [MAIN, running("2", busy=1), queued("3", 300), queued("4", 200)]
    assert adapted(here, demand((300, 4), (0, 4)), **LIMITS) == Change(cancel=("4",))


def test_what_is_above_a_new_maximum_leaves_the_queue_at_once():
    here = [MAIN, running("2", busy=1), queued("3", 9), queued("4", 9)]
    assert adapted(here, demand((0, 9)), **{**LIMITS, "maximum": 3}) == Change(cancel=("4", "3"))


@dataclass
class AQueue:
    """A session whose jobs wait as long as the queue pleases; looked at every ten seconds."""

    maximum: int
    now: float = NOON
    demand: Demand = field(default_factory=Demand)
    jobs: list[JobView] = field(default_factory=lambda: [MAIN])
    changes: list[Change] = field(default_factory=list)

    def look(self, load: int, starts: int) -> Change:
        """The load of now; so many of those that wait may start."""
        self.now += 10
        for waiting in [job for job in self.jobs if job.status.state is P][:starts]:
            self._set(waiting.job_id, replace(waiting, status=replace(waiting.status, state=R), joined=1))
        at_work = load - 2
        for here in [job for job in self.jobs if job.joined and job is not MAIN]:
            self._set(here.job_id, replace(here, busy=int(at_work > 0)))
            at_work -= 1
        self.demand = self.demand.seen(load, self.now)
        limits = {**LIMITS, "maximum": self.maximum, "now": self.now, "most_queued": 8}
        change = adapted(self.jobs, self.demand, **limits)
        self.changes.append(change)
        self.jobs = [job for job in self.jobs if job.job_id not in (*change.cancel, *change.retire)]
        first = sum(change.submit for change in self.changes[:-1]) + 2
        self.jobs += [replace(job(str(first + n), P), submit_time=self.now) for n in range(change.submit)]
        return change

    def _set(self, job_id: str, changed: JobView) -> None:
        self.jobs = [changed if job.job_id == job_id else job for job in self.jobs]


LOADS = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 3)), min_size=1, max_size=80)


@given(looks=LOADS, maximum=st.integers(2, 15))
def test_whatever_the_load_and_the_queue_do_the_limits_hold(looks, maximum):
    queue = AQueue(maximum)
    for load, starts in looks:
        change = queue.look(load, starts)
        assert not (change.submit and (change.cancel or change.retire))
        assert len(queue.jobs) + 1 <= max(maximum, 2)  # the main job has two
        assert sum(job.status.state is P for job in queue.jobs) <= 8
        assert "1" not in (*change.cancel, *change.retire)


@given(load=st.integers(0, 20), starts=st.lists(st.integers(0, 2), min_size=200, max_size=200))
def test_a_steady_load_is_met_once_however_long_the_queue_takes(load, starts):
    """No job is cancelled to be submitted again."""
    queue = AQueue(maximum=10)
    for may_start in starts:
        queue.look(load, may_start)
    assert sum(change.submit for change in queue.changes) == max(0, min(load, 10) - 2)
    assert not [change for change in queue.changes if change.cancel or change.retire]


@given(looks=LOADS)
def test_a_load_that_comes_and_goes_within_the_idle_time_cancels_nothing(looks):
    """Ten seconds between looks: the highest load comes again every 50 s."""
    queue = AQueue(maximum=10)
    for number, (load, starts) in enumerate(looks):
        change = queue.look(10 if number % 5 == 0 else load, starts)
        assert not change.cancel
        assert not change.retire
    assert sum(change.submit for change in queue.changes) == 8


@given(waits=st.integers(1, 60), starts=st.lists(st.integers(0, 1), min_size=400, max_size=400))
def test_when_the_load_is_gone_for_good_all_leave(waits, starts):
    queue = AQueue(maximum=10)
    for number, may_start in enumerate(starts):
        queue.look(10 if number < waits else 0, may_start)
    assert queue.jobs == [MAIN]
    assert sum(change.submit for change in queue.changes) == 8


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

"""The status of a session's jobs, also where the batch system does not answer, or knows one of them not yet."""

from __future__ import annotations

import time

import pytest
from fixtures import folder, happens, host_that_answers, job_record, session_record, settings, squeue, with_jobs

from hpclab import ways
from hpclab.hosts.recording import RecordingHost
from hpclab.job import JobState, JobStatus
from hpclab.jobqueue import JobQueue
from hpclab.statuses import ANSWER_S, JUST_SUBMITTED, JUST_SUBMITTED_S, NEWS_S, job_statuses, open_jobs
from hpclab.store import Known, Store

NAME = folder().name
NO_ACCOUNTING = (1, "", "Slurm accounting storage is disabled\n")
BUSY = (1, "", "slurm_load_jobs error: Unable to contact slurm controller\n")


def a_job(*answers: tuple[int, str, str], submitted_s_ago: float = 1e6) -> RecordingHost:
    """A host with a session of one job on Slurm, which gives these answers."""
    host = with_jobs(host_that_answers(*answers), NAME, system="slurm")
    store(host).add_jobs(NAME, ["1"], job_record("main"), time.time() - submitted_s_ago)
    return host


def store(host: RecordingHost) -> Store:
    return Store(host, settings())


def seen(host: RecordingHost, *, made_on: str = "", here: str = "login1") -> JobStatus:
    """The status of the job, asked anew."""
    record = session_record(NAME, system="slurm", host=made_on)
    queue = JobQueue(host, "slurm")
    return job_statuses(queue, store(host), record, store(host).jobs(NAME), here=here)["1"]


@pytest.mark.parametrize(("ago_s", "state"), [(1, JobState.PENDING), (JUST_SUBMITTED_S + 5, JobState.GONE)])
def test_a_job_that_was_just_submitted_may_not_be_shown_yet(ago_s, state):
    assert seen(a_job(squeue(), NO_ACCOUNTING, submitted_s_ago=ago_s)).state is state


def test_what_was_shown_once_does_not_begin_to_show():
    host = a_job(squeue(job1="PENDING"), squeue(), NO_ACCOUNTING, submitted_s_ago=1)
    assert [seen(host).state for _ in range(2)] == [JobState.PENDING, JobState.GONE]


def test_a_job_that_has_begun_is_not_just_submitted():
    host = a_job(squeue(), NO_ACCOUNTING, submitted_s_ago=1)
    happens(host, "1", ("started", {"node": "n1"}))
    assert seen(host).state is JobState.GONE


@pytest.mark.parametrize(
    ("made_on", "state"), [("", JobState.GONE), ("login1", JobState.GONE), ("other", JobState.UNKNOWN)]
)
def test_that_another_cluster_does_not_know_a_job_means_nothing(made_on, state):
    assert seen(a_job(squeue(), NO_ACCOUNTING), made_on=made_on).state is state


@pytest.mark.parametrize(("first", "then"), [("RUNNING", "running"), ("PENDING", "pending")])
def test_while_nobody_answers_the_last_word_is_told(first, then):
    host = a_job(squeue(job1=first), BUSY)
    seen(host)
    silent = seen(host)
    assert silent.state is JobState.UNKNOWN
    assert silent.reason.startswith("slurm does not answer: ")
    assert silent.reason.endswith(f"; then {then})")
    # and it is not forgotten for that
    assert store(host).known(NAME).jobs["1"].state is JobState[first]


def test_a_memory_is_written_when_something_has_changed():
    host = a_job(squeue(job1="PENDING"), squeue(job1="PENDING"), squeue(job1="RUNNING"))
    written = []
    for _ in range(3):
        seen(host)
        written.append(host.files[folder().known])
    assert written[0] == written[1] != written[2]


@pytest.mark.parametrize("state", JobState)
def test_only_jobs_whose_end_is_known_are_left_alone(state):
    host = a_job()
    known = Known(time=1.0, jobs={"1": JobStatus(job_id="1", state=state)})
    assert open_jobs(known, store(host).jobs(NAME)) == ([] if state.is_final else ["1"])


# on a compute node that the batch system does not listen to


MISSING = (127, "", "bash: line 1: exec: squeue: not found\n")
NO_WAY = (255, "", "ada@login1: Permission denied (publickey).\n")


@pytest.fixture
def ignorance():
    ways.forget()
    yield
    ways.forget()


def heard(host: RecordingHost, ago_s: float, *answers: tuple[int, str, str]) -> tuple[JobQueue, JobStatus, JobStatus]:
    """The queue, a job that runs as somebody has heard so long ago, and a job that nobody has asked about yet."""
    store(host).add_jobs(NAME, ["2"], job_record(), time.time())
    running = JobStatus(job_id="1", state=JobState.RUNNING)
    store(host).remember(NAME, Known(time=time.time() - ago_s, jobs={"1": running}, hosts=("login1",)))
    queue = JobQueue(host, "slurm", login="login1", fresh_s=-1)
    record = session_record(NAME, system="slurm", host="login1")
    told = job_statuses(queue, store(host), record, store(host).jobs(NAME), here="recording")
    return queue, told["1"], told["2"]


@pytest.mark.parametrize("ago_s", [0, NEWS_S + 1, -3])
def test_what_somebody_else_has_just_heard_is_the_answer(ignorance, ago_s):
    queue, running, new = heard(a_job(MISSING, NO_WAY), ago_s)
    assert (running.state, queue.silence) == (JobState.RUNNING, "")
    assert (new.state, new.reason) == (JobState.PENDING, JUST_SUBMITTED)


@pytest.mark.parametrize("ago_s", [ANSWER_S + 1, 1e9, -1e6])
def test_what_was_heard_long_ago_or_by_a_wrong_clock_is_not(ignorance, ago_s):
    queue, running, new = heard(a_job(MISSING, NO_WAY), ago_s)
    assert queue.silence.startswith("slurm does not listen to recording, nor is there a way through login1")
    assert (running.state, new.state) == (JobState.UNKNOWN, JobState.UNKNOWN)
    assert "; then running)" in running.reason


def test_so_it_is_when_somebody_looks_twice_in_a_row(ignorance):
    host = a_job(MISSING, NO_WAY)
    heard(host, NEWS_S + 1)
    queue = JobQueue(host, "slurm", login="login1", fresh_s=1000)
    record = session_record(NAME, system="slurm", host="login1")
    for _ in range(2):
        told = job_statuses(queue, store(host), record, store(host).jobs(NAME), here="recording")
        assert (told["1"].state, queue.silence) == (JobState.RUNNING, "")


def test_news_make_it_needless_to_ask_at_all(ignorance):
    host = a_job(MISSING, NO_WAY)
    heard(host, NEWS_S + 1)
    asked = len(host.commands)
    _, running, _ = heard(host, NEWS_S - 2)
    assert running.state is JobState.RUNNING
    assert len(host.commands) == asked


def test_where_the_batch_system_listens_it_is_always_asked(ignorance):
    host = a_job(squeue(job1="RUNNING", job2="PENDING"), squeue(job1="RUNNING", job2="PENDING"))
    for _ in range(2):
        heard(host, 0)
    assert len(host.commands) == 2

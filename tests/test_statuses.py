"""The status of a session's jobs, also where the batch system does not answer, or knows one of them not yet."""

from __future__ import annotations

import time

import pytest
from fixtures import folder, happens, host_that_answers, job_record, session_record, settings, squeue, with_jobs

from hpclab.hosts.recording import RecordingHost
from hpclab.job import JobState, JobStatus
from hpclab.jobqueue import JobQueue
from hpclab.statuses import JUST_SUBMITTED_S, job_statuses, open_jobs
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

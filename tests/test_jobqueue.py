"""A batch system on a host: one question for all jobs, and "don't know" where there is no answer."""

from __future__ import annotations

import pytest
from fixtures import host_that_answers, localq_status

from hpclab.errors import CommandError, CommandMissing, Refused, TookTooLong, UnreadableOutput
from hpclab.hosts.recording import RecordingHost
from hpclab.job import JobState
from hpclab.jobqueue import JobQueue

IDS = [str(number) for number in range(1, 201)]
LOCALQ = ("python", "-m", "hpclab.localq")


# status


def test_the_status_of_two_hundred_jobs_is_one_question():
    host = host_that_answers(localq_status(**{f"job{job_id}": "RUNNING" for job_id in IDS}))
    statuses = JobQueue(host, "local").status(IDS)
    assert {status.state for status in statuses.values()} == {JobState.RUNNING}
    assert list(statuses) == IDS
    assert host.commands == [(*LOCALQ, "status", *IDS)]


def test_what_is_fresh_is_not_asked_again():
    host = host_that_answers(localq_status(job1="RUNNING"))
    queue = JobQueue(host, "local", fresh_s=1000)
    assert queue.status(["1"]) == queue.status(["1"])
    assert len(host.commands) == 1


def test_what_is_stale_is_asked_again():
    host = host_that_answers(localq_status(job1="PENDING"), localq_status(job1="RUNNING"))
    queue = JobQueue(host, "local", fresh_s=-1)
    assert [queue.status(["1"])["1"].state for _ in range(2)] == [JobState.PENDING, JobState.RUNNING]


def test_a_job_that_was_not_asked_for_is_asked_for_at_once():
    host = host_that_answers(localq_status(job1="RUNNING"), localq_status(job1="RUNNING", job2="PENDING"))
    queue = JobQueue(host, "local", fresh_s=1000)
    queue.status(["1"])
    assert queue.status(["1", "2"])["2"].state is JobState.PENDING


@pytest.mark.parametrize("change", [lambda queue: queue.submit("x.sh"), lambda queue: queue.cancel(["1"])])
def test_what_we_have_changed_is_asked_again(change):
    host = host_that_answers(localq_status(job1="RUNNING"), (0, "2\n", ""), localq_status(job1="CANCELLED"))
    queue = JobQueue(host, "local", fresh_s=1000)
    queue.status(["1"])
    change(queue)
    assert queue.status(["1"])["1"].state is JobState.CANCELLED


def test_no_jobs_are_no_question():
    host = RecordingHost()
    assert JobQueue(host, "local").status([]) == {}
    assert host.commands == []


def test_a_job_that_is_not_known_is_unknown_and_not_gone():
    status = JobQueue(host_that_answers(localq_status(job1="RUNNING")), "local").status(["1", "2"])["2"]
    assert (status.state, status.reason) == (JobState.UNKNOWN, "")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((1, "", "localq: error one\nlocalq: the disk is full\n"), "localq: the disk is full"),
        ((1, "only this\n", ""), "only this"),
        ((127, "", ""), "no answer"),
        ((0, '{"id": "1", "sta', ""), "localq status answered"),
    ],
)
def test_a_question_without_answer_makes_every_job_unknown_with_the_reason(answer, reason):
    statuses = JobQueue(host_that_answers(answer), "local").status(["1", "2"])
    assert [status.state for status in statuses.values()] == [JobState.UNKNOWN] * 2
    for status in statuses.values():
        assert status.reason.startswith("local does not answer: ")
        assert reason in status.reason


@pytest.mark.parametrize("error", [TookTooLong("it did not answer"), CommandMissing("there is no squeue")])
def test_a_host_that_cannot_ask_makes_every_job_unknown_with_the_reason(error):
    class Silent(RecordingHost):
        def run(self, argv, *, timeout_s=60):
            raise error

    status = JobQueue(Silent(), "local").status(["1"])["1"]
    assert (status.state, status.reason) == (JobState.UNKNOWN, f"local does not answer: {error}")


def test_after_a_question_without_answer_the_next_one_may_have_one():
    host = host_that_answers((1, "", "busy\n"), localq_status(job1="RUNNING"))
    queue = JobQueue(host, "local", fresh_s=-1)
    assert [queue.status(["1"])["1"].state for _ in range(2)] == [JobState.UNKNOWN, JobState.RUNNING]


# submit and cancel


def test_submit_gives_the_job_id():
    host = host_that_answers((0, "Welcome!\n17\n", ""))
    assert JobQueue(host, "local").submit("/a b/start-dask.sh") == "17"
    assert host.commands == [(*LOCALQ, "submit", "/a b/start-dask.sh")]


def test_a_refusal_carries_command_exit_status_and_output():
    host = host_that_answers((1, "", "localq: refused: the job asks for 99 cores, this machine has 8 slots\n"))
    with pytest.raises(Refused) as refused:
        JobQueue(host, "local").submit("/a b/x.sh")
    result = refused.value.result
    assert (result.argv, result.exit_status) == ((*LOCALQ, "submit", "/a b/x.sh"), 1)
    for words in [
        "local would not take the job",
        "command: python -m hpclab.localq submit '/a b/x.sh'",
        "on: recording, exit status 1",
        "the job asks for 99 cores, this machine has 8 slots",
        "hpclab script",
    ]:
        assert words in str(refused.value)


def test_a_submission_without_job_id_is_unreadable():
    with pytest.raises(UnreadableOutput):
        JobQueue(host_that_answers((0, "thank you\n", "")), "local").submit("x.sh")


def test_cancel_is_one_command_for_all():
    host = RecordingHost()
    JobQueue(host, "local").cancel(IDS)
    assert host.commands == [(*LOCALQ, "cancel", *IDS)]


def test_cancelling_nothing_is_no_command():
    host = RecordingHost()
    JobQueue(host, "local").cancel([])
    assert host.commands == []


def test_a_cancel_that_fails_says_which_jobs():
    with pytest.raises(CommandError, match="local would not cancel 1, 2"):
        JobQueue(host_that_answers((1, "", "no\n")), "local").cancel(["1", "2"])

"""A batch system on a host: one question for all jobs, and "don't know" where there is no answer."""

from __future__ import annotations

import pytest
from fixtures import host_that_answers, localq_status, squeue

from hpclab import jobqueue
from hpclab.errors import CommandError, CommandMissing, Refused, TookTooLong, UnreadableOutput
from hpclab.hosts.recording import RecordingHost
from hpclab.job import JobState, Place
from hpclab.jobqueue import ANSWER_WITHIN_S, PLACE_EVERY_S, PLACE_WITHIN_S, JobQueue

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


def test_a_job_that_is_not_known_to_who_answers_is_gone():
    status = JobQueue(host_that_answers(localq_status(job1="RUNNING")), "local").status(["1", "2"])["2"]
    assert (status.state, status.reason) == (JobState.GONE, "")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((1, "", "localq: error one\nlocalq: the disk is full\n"), "localq: the disk is full"),
        ((1, "only this\n", ""), "only this"),
        ((127, "", ""), "exit status 127"),
        ((0, '{"id": "1", "sta', ""), "localq status answered"),
    ],
)
def test_a_question_without_answer_makes_every_job_unknown_with_the_reason(answer, reason):
    statuses = JobQueue(host_that_answers(answer), "local").status(["1", "2"])
    assert [status.state for status in statuses.values()] == [JobState.UNKNOWN] * 2
    for status in statuses.values():
        assert status.reason.startswith("local does not answer: ")
        assert reason in status.reason


@pytest.mark.parametrize(
    ("error", "reason"),
    [(TookTooLong("'bash' did not answer"), "nothing in 9 s"), (CommandMissing("there is no squeue"),) * 2],
)
def test_a_host_that_cannot_ask_makes_every_job_unknown_with_the_reason(error, reason):
    class Silent(RecordingHost):
        def run(self, argv, *, timeout_s=60):
            raise error

    status = JobQueue(Silent(), "local").status(["1"])["1"]
    assert (status.state, status.reason) == (JobState.UNKNOWN, f"local does not answer: {reason}")


def test_after_a_question_without_answer_the_next_one_may_have_one():
    host = host_that_answers((1, "", "busy\n"), localq_status(job1="RUNNING"))
    queue = JobQueue(host, "local", fresh_s=-1)
    assert [queue.status(["1"])["1"].state for _ in range(2)] == [JobState.UNKNOWN, JobState.RUNNING]


@pytest.mark.parametrize(
    ("answer", "silence"), [((1, "", "busy\n"), "local does not answer: busy"), (localq_status(), "")]
)
def test_whether_the_last_question_had_an_answer_is_known(answer, silence):
    queue = JobQueue(host_that_answers((1, "", "busy before\n"), answer), "local", fresh_s=-1)
    for _ in range(2):
        queue.status(["1"])
    assert queue.silence == silence


# history: what squeue knows no more, sacct may


SACCT = "2|COMPLETED|0:0|2026-11-20T23:00:00|2026-11-20T23:10:00|node1|None\n"


def asked(host: RecordingHost) -> list[tuple[str, set[str]]]:
    """squeue or sacct, and the job ids that were asked for by name."""
    programs = [next(word for word in argv if word in ("squeue", "sacct")) for argv in host.commands]
    return [
        (program, set(argv[-1].split(",")) & set(IDS)) for program, argv in zip(programs, host.commands, strict=True)
    ]


def test_only_what_is_missing_is_asked_of_the_history():
    host = host_that_answers(squeue(job1="RUNNING"), (0, SACCT, ""))
    statuses = JobQueue(host, "slurm").status(["1", "2", "3"])
    assert asked(host) == [("squeue", set()), ("sacct", {"2", "3"})]
    assert [status.state for status in statuses.values()] == [JobState.RUNNING, JobState.DONE, JobState.GONE]


def test_where_nothing_is_missing_the_history_is_not_asked():
    host = host_that_answers(squeue(job1="RUNNING", job2="PENDING"))
    JobQueue(host, "slurm").status(["1", "2"])
    assert asked(host) == [("squeue", set())]


def test_a_system_without_memory_is_asked_once():
    host = host_that_answers(localq_status(job1="RUNNING"))
    assert JobQueue(host, "local").status(["1", "2"])["2"].state is JobState.GONE
    assert len(host.commands) == 1


def test_without_accounting_what_is_missing_is_gone():
    disabled = (1, "", "Slurm accounting storage is disabled\n")
    assert JobQueue(host_that_answers(squeue(), disabled), "slurm").status(["2"])["2"].state is JobState.GONE


def test_an_accounting_that_is_down_leaves_unknown_what_it_would_know():
    """A job that it would have known the end of must not be taken for one that is gone."""
    down = (1, "", "sacct: error: Problem talking to the database: Connection refused\n")
    queue = JobQueue(host_that_answers(squeue(job1="RUNNING"), down), "slurm")
    running, forgotten = queue.status(["1", "2"]).values()
    assert (running.state, forgotten.state) == (JobState.RUNNING, JobState.UNKNOWN)
    assert "Connection refused" in forgotten.reason


def test_what_is_asked_while_somebody_waits_has_little_time():
    class Clock(RecordingHost):
        def run(self, argv, *, timeout_s=60):
            given.append(timeout_s)
            return super().run(argv, timeout_s=timeout_s)

    given: list[float] = []
    JobQueue(Clock([squeue(job1="RUNNING")]), "slurm").status(["1", "2"])
    assert given == [ANSWER_WITHIN_S] * 2
    assert ANSWER_WITHIN_S < 10


# submit and cancel


def test_an_array_is_one_command_and_many_ids():
    host = host_that_answers((0, "17\n", ""))
    ids = JobQueue(host, "slurm").submit("x.sh", count=3, log="/logs/{job_id}.log")
    assert ids == ["17_1", "17_2", "17_3"]
    (argv,) = host.commands
    assert {"--array=1-3", "--output=/logs/%A_%a.log"} <= set(argv)


def test_submit_gives_the_job_id():
    host = host_that_answers((0, "Welcome!\n17\n", ""))
    assert JobQueue(host, "local").submit("/a b/start-dask.sh") == ["17"]
    assert host.commands == [(*LOCALQ, "submit", "/a b/start-dask.sh")]


def test_a_refusal_carries_command_exit_status_and_output():
    host = host_that_answers((1, "", "localq: refused: the job asks for 99 cores, this machine has 8 slots\n"))
    with pytest.raises(Refused) as refused:
        JobQueue(host, "local").submit("/a b/x.sh")
    result = refused.value.result
    assert (result.argv, result.exit_status) == ((*LOCALQ, "submit", "/a b/x.sh"), 1)
    for words in [
        "local did not take the job",
        "command: python -m hpclab.localq submit '/a b/x.sh'",
        "on: recording, exit status 1",
        "the job asks for 99 cores, this machine has 8 slots",
        "hpclab script",
    ]:
        assert words in str(refused.value)


def test_a_submission_without_an_answer_is_a_doubt_and_no_refusal():
    """A Slurm that hung has taken the job when it answers again."""
    said = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"
    with pytest.raises(TookTooLong) as doubt:
        JobQueue(host_that_answers((1, "", f"{said}\n")), "slurm").submit("x.sh")
    for words in ("slurm was asked for a job", said, "is not known", "before you say it again"):
        assert words in str(doubt.value)


def test_a_submission_that_hangs_is_a_doubt():
    class Hanging(RecordingHost):
        def run(self, argv, *, timeout_s=60):
            raise TookTooLong("'env' did not answer within 60 s on node3")

    with pytest.raises(TookTooLong, match=r"(?s)'env' did not answer.*whether it took the job is not known"):
        JobQueue(Hanging(), "sge").submit("x.sh")


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


def test_jobs_that_had_ended_already_are_no_failure_of_a_cancel():
    gone = (1, "", "scancel: error: Kill job error on job id 7: Invalid job id specified\n")
    JobQueue(host_that_answers(gone), "slurm").cancel(["7"])


def test_a_cancel_that_fails_says_which_jobs():
    with pytest.raises(CommandError, match="local would not cancel 1, 2"):
        JobQueue(host_that_answers((1, "", "no\n")), "local").cancel(["1", "2"])


# place

WAITING = (0, "7|9|bob|regular|Resources\n8|5|ada|regular|Priority\n", "")


def test_a_place_is_asked_for_once_in_a_while_and_for_all_jobs():
    host = host_that_answers(WAITING)
    queue = JobQueue(host, "slurm")
    assert [queue.place(job_id) for job_id in ("8", "7", "8", "9")] == [
        *(Place(number=2, of=2), Place(number=1, of=2), Place(number=2, of=2)),
        None,
    ]
    assert len(host.commands) == 1


def test_the_longer_it_waits_the_more_seldom_is_asked(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(jobqueue.time, "monotonic", lambda: now)
    host = RecordingHost()
    queue = JobQueue(host, "slurm")
    asked_at: list[float] = []
    while now < 1300:
        queue.place("8")
        asked_at += [now] * (len(host.commands) - len(asked_at))
        now += 1
    assert asked_at == [1000, 1010, 1030, 1070, 1130, 1190, 1250]
    assert PLACE_EVERY_S == (10, 60)


@pytest.mark.parametrize(
    "error", [TookTooLong("'bash' did not answer"), CommandMissing("there is no squeue"), UnreadableOutput("what?")]
)
def test_an_answer_that_does_not_come_is_no_place_and_no_error(error):
    class Silent(RecordingHost):
        def run(self, argv, *, timeout_s=60):
            asked.append(timeout_s)
            raise error

    asked: list[float] = []
    queue = JobQueue(Silent(), "slurm")
    assert [queue.place("8") for _ in range(3)] == [None] * 3
    assert asked == [PLACE_WITHIN_S]


@pytest.mark.parametrize(("system", "answer"), [("slurm", (1, WAITING[1], "oops\n")), ("sge", (0, "<oops", ""))])
def test_an_answer_that_is_none_is_no_place(system, answer):
    assert JobQueue(host_that_answers(answer), system).place("8") is None


@pytest.mark.parametrize("system", ["pbs", "torque", "lsf"])
def test_a_system_that_tells_no_order_is_not_asked(system):
    host = RecordingHost()
    assert JobQueue(host, system).place("8") is None
    assert host.commands == []


# estimates and queues


def test_when_a_job_would_start_is_asked_without_submitting_it():
    said = "sbatch: Job 9 to start at 2026-11-20T23:00:00 using 4 processors on nodes node1 in partition short\n"
    host = host_that_answers((0, "", said))
    assert JobQueue(host, "slurm").expected_start("x.sh") == 1_795_215_600
    assert "--test-only" in host.commands[0]


def test_a_job_that_would_not_start_is_told_in_the_systems_words():
    answer = (1, "", "allocation failure: Requested node configuration is not available\n")
    with pytest.raises(UnreadableOutput, match="not available"):
        JobQueue(host_that_answers(answer), "slurm").expected_start("x.sh")


@pytest.mark.parametrize(("system", "expected"), [("slurm", True), ("sge", True), ("pbs", False), ("local", False)])
def test_not_every_batch_system_can_be_asked_before(system, expected):
    assert JobQueue(host_that_answers(), system).can_estimate is expected


def test_queues_are_told_where_there_are_some():
    host = host_that_answers((0, "short*|up|1:00:00|4|16|64000\n", ""))
    assert [queue.name for queue in JobQueue(host, "slurm").queues()] == ["short"]
    assert JobQueue(RecordingHost(), "local").queues() == []

"""The embedded batch system, by what it says; the answers are recorded ones."""

from __future__ import annotations

import inspect
import json
import shlex

import pytest
from fixtures import job_spec

from batch.transcripts import answered
from hpclab.batch import local
from hpclab.errors import UnreadableOutput
from hpclab.job import Chunk, JobState, JobStatus, Place
from hpclab.localq import shepherd
from hpclab.localq.directives import parse_directives
from hpclab.localq.record import FINAL, STATES

NONE = dict.fromkeys(
    ["cores", "memory_bytes", "walltime_s", "node", "submit_time", "start_time", "limit_time", "end_time", "exit_code",
     "signal"]
)  # fmt: skip


def answer(job_id: str, state: str, **more: object) -> str:
    """One line of `localq status`, with all of its keys."""
    return json.dumps({"id": job_id, **NONE, "name": "x", "state": state, "reason": "", **more}) + "\n"


# directives


def test_directives():
    assert local.directives(job_spec()) == [
        "--job-name=hpclab-calm-otter",
        "--cores=7",
        "--memory=7516192768",
        "--walltime=3600",
        "--output=/home/ada/.hpclab/sessions/calm-otter/logs/%j.log",
    ]


def test_slots_and_the_sites_own_directives_come_last():
    spec = job_spec(options={"local_slots": "4"}, extra=("--grace=5",))
    assert local.directives(spec)[-2:] == ["--slots=4", "--grace=5"]


@pytest.mark.parametrize("log", ["/a/{job_id}.log", "/two words/{job_id}", "/it's/{job_id}", '/a "b"/{job_id}'])
def test_localq_reads_what_is_written(log):
    spec = job_spec(chunks=(Chunk(count=2, cores=3, memory_bytes=5),), log=log, options={"local_slots": "8"})
    head = "".join(f"{local.DIRECTIVE} {line}\n" for line in local.directives(spec))
    assert parse_directives("#!/bin/bash\n" + head) == {
        "name": "hpclab-calm-otter",
        "cores": 6,
        "memory_bytes": 10,
        "walltime_s": 3600,
        "output": log.replace("{job_id}", "%j"),
        "slots": 8,
    }


# commands


def test_commands():
    assert local.submit_command("my job.sh") == ["python", "-m", "hpclab.localq", "submit", "my job.sh"]
    assert local.status_command(["1", "2"]) == ["python", "-m", "hpclab.localq", "status", "1", "2"]
    assert local.cancel_command(["1", "2"]) == ["python", "-m", "hpclab.localq", "cancel", "1", "2"]


@pytest.mark.parametrize("stdout", ["17\n", "17", "Welcome to the cluster!\n42 users today\n17\n", "\n 17 \n\n"])
def test_the_job_id(stdout):
    assert local.parse_job_ids(stdout) == ["17"]


@pytest.mark.parametrize("stdout", ["", "\n", "no", "-1", "17 18", "17\nand good-bye", "seventeen\n"])
def test_no_job_id(stdout):
    with pytest.raises(UnreadableOutput) as unread:
        local.parse_job_ids(stdout)
    assert repr(stdout) in str(unread.value)


# states


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            answer("1", "PENDING", reason="waits for slots: needs 2, 1 of 8 are free", submit_time=10.0),
            JobStatus(job_id="1", state=JobState.PENDING, reason="waits for slots: needs 2, 1 of 8 are free"),
        ),
        (
            answer("2", "RUNNING", node="node17", start_time=20.5, limit_time=80.5),
            JobStatus(job_id="2", state=JobState.RUNNING, node="node17", start_time=20.5, end_time=80.5),
        ),
        (
            answer("3", "RUNNING", node="node17", start_time=20.5),
            JobStatus(job_id="3", state=JobState.RUNNING, node="node17", start_time=20.5),
        ),
        (
            answer("4", "COMPLETED", node="node17", start_time=1.0, limit_time=90.0, end_time=5.0, exit_code=0),
            JobStatus(job_id="4", state=JobState.DONE, node="node17", start_time=1.0, end_time=5.0, exit_status=0),
        ),
        (
            answer("5", "FAILED", reason="exit code 43", end_time=5.0, exit_code=43),
            JobStatus(job_id="5", state=JobState.FAILED, reason="exit code 43", end_time=5.0, exit_status=43),
        ),
        (
            answer("6", "FAILED", reason="killed by signal 9", end_time=5.0, signal=9),
            JobStatus(job_id="6", state=JobState.FAILED, reason="killed by signal 9", end_time=5.0, exit_status=137),
        ),
        (
            answer("7", "TIMEOUT", reason="walltime of 60 s reached", end_time=61.0, signal=15),
            JobStatus(
                job_id="7", state=JobState.FAILED, reason="walltime of 60 s reached", end_time=61.0, exit_status=143
            ),
        ),
        (
            answer("8", "CANCELLED", reason="cancelled", end_time=5.0),
            JobStatus(job_id="8", state=JobState.CANCELLED, reason="cancelled", end_time=5.0),
        ),
        (
            answer("9", "UNKNOWN", reason="its record cannot be read"),
            JobStatus(job_id="9", state=JobState.UNKNOWN, reason="its record cannot be read"),
        ),
        (answer("10", "SLEEPING"), JobStatus(job_id="10", state=JobState.UNKNOWN)),
    ],
)
def test_a_status(line, expected):
    assert local.parse_status(answered(line)) == {expected.job_id: expected}


def test_the_status_of_many_jobs_between_other_talk():
    text = "Welcome!\n" + answer("1", "RUNNING") + "\n" + answer("2", "PENDING") + "bye\n"
    assert {job_id: status.state for job_id, status in local.parse_status(answered(text)).items()} == {
        "1": JobState.RUNNING,
        "2": JobState.PENDING,
    }


def test_no_jobs():
    assert local.parse_status(answered("")) == {}


@pytest.mark.parametrize(
    "line",
    [
        '{"id": "1", "sta',
        "{}",
        '{"id": "1"}',
        '{"id": "1", "state": ["RUNNING"]}',
        '{"id": "1", "state": "FAILED", "signal": "SIGTERM"}',
        '{"id": "1", "state": "RUNNING", "start_time": "noon"}',
    ],
)
def test_an_answer_that_cannot_be_read_is_quoted(line):
    with pytest.raises(UnreadableOutput) as unread:
        local.parse_status(answered(line))
    assert repr(line) in str(unread.value)


def test_a_jobs_place_is_that_of_its_submission():
    told = answered(
        answer("1", "RUNNING") + answer("2", "PENDING") + answer("9", "CANCELLED") + answer("10", "PENDING")
    )
    assert local.place_command() == ["python", "-m", "hpclab.localq", "status"]
    assert [local.parse_place(told, job_id) for job_id in ("2", "10", "1", "99")] == [
        *(Place(number=1, of=2), Place(number=2, of=2)),
        *(None, None),
    ]


@pytest.mark.parametrize("state", STATES)
def test_every_state_of_localq_is_known(state):
    assert local.STATES[state].is_final == (state in FINAL)


def test_the_variables_are_those_of_localq():
    told = inspect.getsource(shepherd.run_script)
    for variable in (local.JOB_ID, local.END_TIME):
        assert f'"{variable.removeprefix("$")}"' in told


def test_a_line_of_the_log_with_spaces_is_one_word():
    (output,) = [line for line in local.directives(job_spec(log="/two words/{job_id}")) if "--output" in line]
    assert shlex.split(output) == ["--output=/two words/%j"]

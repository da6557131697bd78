"""A start that is followed: every step once, and a word on why it will not come up."""

from __future__ import annotations

import json
import time

import pytest
from fixtures import (
    NOON,
    connection,
    folder,
    happens,
    host_that_answers,
    job_record,
    localq_status,
    settings,
    with_jobs,
)

from hpclab import follow as follow_module
from hpclab import session as session_module
from hpclab.batch import local
from hpclab.errors import JobEnded, NotRunning, TookTooLong
from hpclab.follow import follow
from hpclab.hosts.recording import RecordingHost
from hpclab.job import WILL_NOT_START
from hpclab.session import Session
from hpclab.units import format_clock

HERE = folder()
UP = [("started", {"node": "n1"}), ("scheduler", {"address": "tls://n1:1"}), ("jupyter", {"port": 8888})]


@pytest.fixture(autouse=True)
def no_patience(monkeypatch):
    monkeypatch.setattr(session_module, "CANCEL_GRACE_S", 0)
    monkeypatch.setattr(follow_module, "CANCEL_GRACE_S", 0)
    monkeypatch.setattr(follow_module, "JOB_TELLS_FIRST_S", 0)
    monkeypatch.setattr(follow_module, "ASK_EVERY_S", -1)
    monkeypatch.setattr(follow_module, "PLACE_AFTER_S", float("inf"))
    monkeypatch.setattr(follow_module.time, "sleep", lambda _: None)


def a_session(*answers: tuple[int, str, str]) -> tuple[Session, RecordingHost]:
    host = with_jobs(host_that_answers(*answers), jobs=[job_record("main")])
    session = Session.open(host, settings(), HERE.name)
    session._queue._fresh_s = -1
    return session, host


def waiting(reason: str) -> tuple[int, str, str]:
    return 0, json.dumps({"id": "1", "state": "PENDING", "reason": reason}) + "\n", ""


def test_a_start_is_followed_step_by_step():
    session, host = a_session(localq_status(job1="RUNNING"))
    happens(host, "1", *UP)
    host.files[HERE.connection] = connection().to_text()
    phases = list(follow(session))
    assert [(phase.what, phase.elapsed_s) for phase in phases] == [("running", 1), ("scheduler", 2), ("jupyter", 3)]


def test_every_step_is_told_once():
    session, host = a_session(*[localq_status(job1="RUNNING")] * 3)
    happens(host, "1", *UP[:1])
    steps = follow(session)
    assert next(steps).what == "running"
    happens(host, "1", *UP)
    host.files[HERE.connection] = connection().to_text()
    assert [step.what for step in steps] == ["scheduler", "jupyter"]


def test_another_jobs_connection_is_not_ours():
    session, host = a_session(localq_status(job1="RUNNING"), localq_status(job1="COMPLETED"))
    host.files[HERE.connection] = connection("99").to_text()
    with pytest.raises(JobEnded):
        list(follow(session))


def test_a_job_that_waits_says_why():
    session, _ = a_session(*[waiting("waits for slots")] * 2)
    phase = next(follow(session))
    assert (phase.what, phase.text) == ("queued", "waits for slots")


def test_a_job_that_waits_for_long_says_its_place_and_when_it_is_expected_to_start(monkeypatch):
    monkeypatch.setattr(follow_module, "PLACE_AFTER_S", 0)
    start_time = time.time() + 3600
    job = {"state": "PENDING", "reason": "waits for slots", "start_time": start_time}
    told = "".join(json.dumps({"id": str(job_id), **job}) + "\n" for job_id in (1, 2))
    session, host = a_session(*[(0, told, "")] * 4)
    steps = follow(session)
    expected = f"1st of 2 waiting; expected to start {format_clock(start_time)}; waits for slots"
    assert [next(steps).text for _ in range(2)] == [expected] * 2
    assert host.commands.count(tuple(local.place_command())) == 1


def test_a_place_that_is_not_known_is_not_told(monkeypatch):
    monkeypatch.setattr(follow_module, "PLACE_AFTER_S", 0)
    session, _ = a_session(*[waiting("waits for slots")] * 2, (1, "", "no\n"), waiting("waits for slots"))
    steps = follow(session)
    assert [next(steps).text for _ in range(2)] == ["waits for slots"] * 2


def test_a_job_that_ends_too_soon_is_told_with_its_reason_and_its_log():
    session, host = a_session(localq_status(job1="FAILED"))
    happens(host, "1", UP[0], ("failed", {"reason": "no mpiexec"}), ("exited", {"exit_status": 41}))
    host.files[HERE.log("1")] = "some\nlast words\n"
    with pytest.raises(JobEnded, match="no mpiexec") as ended:
        list(follow(session))
    assert "    last words" in str(ended.value)
    assert f"hpclab logs --session {HERE.name}" in str(ended.value)


@pytest.mark.parametrize("state", ["CANCELLED", "TIMEOUT"])
def test_a_job_that_is_ended_while_it_waits_is_told(state):
    with pytest.raises(JobEnded):
        list(follow(a_session(localq_status(job1=state))[0]))


def test_a_job_that_waits_in_vain_is_told():
    never = waiting(f"PartitionTimeLimit ({WILL_NOT_START}: the walltime is longer than the partition allows)")
    session, _ = a_session(*[never] * 5)
    with pytest.raises(NotRunning, match="waits in vain: PartitionTimeLimit") as told:
        list(follow(session))
    assert f"hpclab stop {HERE.name}" in str(told.value)


def test_the_first_word_on_a_new_job_is_not_its_last():
    never = waiting(f"Licenses ({WILL_NOT_START})")
    session, _ = a_session(waiting(""), never, *[waiting("Priority")] * 3)
    steps = follow(session)
    assert [next(steps).text for _ in range(2)] == ["pending", "Priority"]


def test_patience_ends_and_says_what_goes_on(monkeypatch):
    monkeypatch.setattr(follow_module, "JOB_TELLS_FIRST_S", -10_000)
    session, host = a_session(*[localq_status(job1="RUNNING")] * 3)
    happens(host, "1", UP[0])
    with pytest.raises(TookTooLong, match=f"hpclab stop {HERE.name}"):
        list(follow(session))


def test_a_queue_may_take_as_long_as_it_takes(monkeypatch):
    monkeypatch.setattr(follow_module, "JOB_TELLS_FIRST_S", -10_000)
    session, _ = a_session(*[waiting("waits for slots")] * 4)
    steps = follow(session)
    assert {next(steps).what for _ in range(3)} == {"queued"}
    assert session.job().submit_time == NOON

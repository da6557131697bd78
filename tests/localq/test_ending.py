"""How jobs are ended, with every process that is theirs and none that is not."""

from __future__ import annotations

import sys

import pytest
from waiting import until

from localq.harness import LOCALQ, alive, pid_in, script

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="orphans are adopted on Linux only")


def test_at_the_walltime_every_process_gets_term(a_queue):
    body = """
        trap 'echo script; exit 7' TERM
        setsid bash -c 'trap "echo child; exit" TERM; sleep 60 & wait' &
        wait"""
    job = a_queue.end_of(a_queue.submit(script(body, walltime=1, output="out")))
    assert (job["state"], job["reason"]) == ("TIMEOUT", "walltime of 1 s reached")
    assert (job["exit_code"], job["signal"]) == (7, None)
    assert sorted((a_queue.work / "out").read_text().split()) == ["child", "script"]


def test_who_ignores_term_is_killed_after_the_grace(a_queue):
    job = a_queue.end_of(a_queue.submit(script("trap '' TERM; exec sleep 60", walltime=1, grace=1)))
    assert (job["state"], job["exit_code"], job["signal"]) == ("TIMEOUT", None, 9)
    assert 1.9 < job["end_time"] - job["start_time"] < 8


def test_a_pending_job_is_cancelled_at_once(a_queue, a_gate):
    a_queue.submit(script(a_gate.wait, slots=1))
    a_queue.submit(script("true", slots=1))
    a_queue.cancel("2")
    job = a_queue.status("2")["2"]
    assert (job["state"], job["reason"], job["start_time"]) == ("CANCELLED", "cancelled", None)
    a_gate.open()
    assert a_queue.end_of("1")["state"] == "COMPLETED"
    assert a_queue.status("2")["2"] == job


@pytest.mark.parametrize("_again", range(3))
def test_who_cancels_its_own_job_hears_that_it_is_done(a_queue, _again):
    """Every process of the job is told to end, the one that says so among them."""
    cancel = " ".join([*LOCALQ, "cancel", "1"])
    body = f"""
        trap 'told=1' TERM
        {cancel}; status=$?
        while [ -z "$told" ]; do sleep 0.02; done
        echo cancelled: $status"""
    job = a_queue.end_of(a_queue.submit(script(body, output="out")))
    assert (job["state"], (a_queue.work / "out").read_text()) == ("CANCELLED", "cancelled: 0\n")


def test_cancel_tells_every_process_and_does_not_wait(a_queue, a_gate, another_gate):
    # both tell through a gate that they have been told, and end when the test has heard it
    body = f"""
        setsid bash -c 'trap "{another_gate.wait}; exit" TERM; echo $$ > child; sleep 60 & wait' &
        trap '{a_gate.wait}; exit 5' TERM
        while [ ! -s child ]; do sleep 0.02; done
        echo $$ > ready
        sleep 60 & wait"""
    a_queue.submit(script(body, grace=20))
    pid_in(a_queue.work / "ready")
    a_queue.cancel("1")
    job = a_queue.status("1")["1"]
    assert (job["state"], job["reason"], job["end_time"]) == ("RUNNING", "being cancelled", None)
    another_gate.open()
    a_gate.open()
    a_queue.cancel("1")
    job = a_queue.end_of("1")
    assert (job["state"], job["reason"], job["exit_code"]) == ("CANCELLED", "cancelled", 5)
    a_queue.cancel("1")
    assert a_queue.status("1")["1"] == job


@pytest.mark.parametrize("command", ["status", "shepherd"])
def test_a_job_cancelled_before_it_began_never_begins(a_queue, a_gate, command):
    a_queue.submit(script(a_gate.wait, slots=1))
    a_queue.submit(script("touch begun", slots=1))
    a_queue.rewrite("2", state="RUNNING", cancelled=True)  # its shepherd has died, or only now comes to life
    assert a_queue.run(command, "2").returncode == 0
    assert a_queue.record("2")["state"] == "CANCELLED"
    assert not (a_queue.work / "begun").exists()
    a_gate.open()


def test_a_cancelled_job_that_ignores_term_is_killed(a_queue):
    a_queue.submit(script("trap '' TERM; echo $$ > pid; exec sleep 60", grace=1))
    pid = pid_in(a_queue.work / "pid")
    a_queue.cancel("1")
    assert (a_queue.end_of("1")["state"], alive(pid)) == ("CANCELLED", False)


def test_cancelling_what_does_not_run_is_quiet(a_queue):
    a_queue.submit(script("true"))
    before = a_queue.end_of("1")
    a_queue.cancel("1", "1", "77", "no-such-job")
    assert a_queue.status("1", "77", "no-such-job") == {"1": before}


@pytest.mark.parametrize(
    "launch",
    [
        "setsid",
        pytest.param("env -i setsid", marks=linux_only),
    ],
)
def test_what_a_job_leaves_behind_is_killed(a_queue, launch):
    body = f"""
        ( {launch} /bin/bash -c 'trap "" TERM; echo $$ > pid; exec /bin/sleep 60' & )
        while [ ! -s pid ]; do sleep 0.02; done"""
    job = a_queue.end_of(a_queue.submit(script(body, grace=0)))
    assert (job["state"], job["exit_code"]) == ("COMPLETED", 0)
    assert not alive(pid_in(a_queue.work / "pid"))


def test_a_job_submitted_by_a_job_outlives_it(a_queue, a_gate):
    (a_queue.work / "inner.sh").write_text(script(a_gate.wait, output="inner"))
    a_queue.submit(script(f"{sys.executable} -m hpclab.localq submit inner.sh", output="outer"))
    assert a_queue.end_of("1")["state"] == "COMPLETED"
    assert (a_queue.work / "outer").read_text() == "2\n"
    until(lambda: not a_queue.processes_of("1"), what="job 1 to be all gone")
    assert a_queue.status("2")["2"]["state"] == "RUNNING"
    a_gate.open()
    assert a_queue.end_of("2")["state"] == "COMPLETED"


def test_a_job_that_is_cancelled_leaves_the_job_alone_which_it_submitted(a_queue, a_gate):
    (a_queue.work / "inner.sh").write_text(script(a_gate.wait))
    a_queue.submit(script(f"{sys.executable} -m hpclab.localq submit inner.sh; echo $$ > pid; exec sleep 60"))
    pid_in(a_queue.work / "pid")
    a_queue.cancel("1")
    assert a_queue.end_of("1")["state"] == "CANCELLED"
    a_gate.open()
    assert a_queue.end_of("2")["state"] == "COMPLETED"

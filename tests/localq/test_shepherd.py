"""Shepherds: where they come from, and what happens when they, or what they write to, are gone."""

from __future__ import annotations

import os
import shutil
import sys
import time

import pytest
from waiting import until

from localq.harness import REPOSITORY, alive, pid_in, script


def test_a_killed_shepherd_is_noticed_and_its_job_ended(a_queue, a_gate):
    body = "setsid bash -c 'trap \"\" TERM; echo $$ > pid; exec sleep 60' & wait"
    a_queue.submit(script(body, slots=1))
    a_queue.submit(script(a_gate.wait, slots=1))
    pid = pid_in(a_queue.work / "pid")
    a_queue.shepherd_of("1").kill()
    until(lambda: a_queue.status()["1"]["state"] == "FAILED", what="the notice")
    assert a_queue.status("1")["1"]["reason"] == "its supervisor was killed"
    assert not alive(pid)
    a_gate.open()  # and the next one has started
    assert a_queue.end_of("2")["state"] == "COMPLETED"


def test_a_shepherd_told_to_end_ends_its_job(a_queue, a_gate):
    a_queue.submit(script(a_gate.wait))
    until(lambda: a_queue.processes_of("1"), what="the job to run")
    a_queue.shepherd_of("1").terminate()
    job = a_queue.end_of("1")
    assert (job["state"], job["reason"]) == ("FAILED", "its supervisor was told to end")


@pytest.mark.parametrize(
    ("starts", "state", "reason"),
    [(1, "COMPLETED", ""), (3, "FAILED", "its supervisor could not begin, see ")],
)
def test_a_job_whose_shepherd_died_before_it_began_is_started_again(a_queue, a_gate, starts, state, reason):
    a_queue.submit(script(a_gate.wait, slots=1))
    a_queue.submit(script("true", slots=1))
    a_queue.rewrite("2", state="RUNNING", starts=starts, start_time=time.time())
    a_queue.status()
    a_gate.open()
    job = a_queue.end_of("2")
    assert job["state"] == state
    assert job["reason"].startswith(reason)


def test_after_a_reboot_running_jobs_have_failed(a_queue):
    a_queue.submit(script("true"))
    a_queue.end_of("1")
    a_queue.rewrite("1", state="RUNNING", end_time=None, exit_code=None)
    assert a_queue.status()["1"]["reason"] == "its supervisor was killed"


def test_a_shepherd_is_of_the_installation_that_starts_it(a_queue, a_gate):
    copy = a_queue.work / "hpclab"  # where its user works, and it is not installed
    shutil.copytree(REPOSITORY / "hpclab" / "localq", copy / "localq")
    (copy / "__init__.py").touch()
    with (copy / "localq" / "shepherd.py").open("a") as code:
        code.write("\nprint('the copy', file=sys.stderr)\n")
    a_queue.submit(script(a_gate.wait, slots=1))
    a_queue.submit(script("true", slots=1))
    assert a_queue.shepherd_of("1").cmdline()[0] == sys.executable
    a_gate.open()
    until(lambda: a_queue.record("2")["state"] == "COMPLETED", what="job 2, which the other shepherd starts")
    for job_id in "12":
        assert (a_queue.job_folder(job_id) / "shepherd.log").read_text() == "the copy\n"


@pytest.mark.parametrize(("how", "end"), [("by itself", "ended\n"), ("told to end", ""), ("walltime", "")])
def test_when_the_state_folder_is_removed_a_job_runs_on_and_nothing_is_left(a_queue, a_gate, how, end):
    body = f"setsid sleep 60 & echo $$ > pid; {a_gate.wait}; echo ended"
    a_queue.submit(script(body, output="out", walltime=3 if how == "walltime" else 60))
    pid_in(a_queue.work / "pid")
    shutil.rmtree(a_queue.folder)
    if how == "by itself":
        a_gate.open()
    elif how == "told to end":
        a_queue.shepherd_of("1").terminate()
    until(lambda: not a_queue.processes(), within_s=10, what="the last process to end")
    assert (a_queue.work / "out").read_text() == end
    assert not a_queue.folder.exists()


def test_in_a_state_folder_made_anew_a_shepherd_writes_nothing(a_queue, a_gate):
    a_queue.submit(script(f"echo $$ > pid; {a_gate.wait}"))
    pid_in(a_queue.work / "pid")
    shutil.rmtree(a_queue.folder)
    folder = a_queue.job_folder("1")
    folder.mkdir(parents=True)
    os.mkfifo(folder / "bell")
    (folder / "job.json").write_text("another job's")
    a_gate.open()
    until(lambda: not a_queue.processes(), within_s=10, what="the shepherd to leave")
    assert (folder / "job.json").read_text() == "another job's"

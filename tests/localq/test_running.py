"""What a job sees while it runs, what becomes of it, and which job is next."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time

import pytest

from localq.harness import script


@pytest.mark.parametrize(
    ("body", "state", "reason", "exit_code", "signal"),
    [
        ("true", "COMPLETED", "", 0, None),
        ("exit 3", "FAILED", "exit code 3", 3, None),
        ("kill -9 $$", "FAILED", "killed by signal 9", None, 9),
    ],
)
def test_a_job_ends_as_its_script_does(a_queue, body, state, reason, exit_code, signal):
    before = time.time()
    job = a_queue.end_of(a_queue.submit(script(body, job_name="x", memory=1024, walltime=60)))
    times = [job.pop(name) for name in ("submit_time", "start_time", "end_time")]
    assert before < times[0] <= times[1] <= times[2] < time.time()
    assert job.pop("limit_time") == times[1] + 60
    assert job == {
        "id": "1",
        "name": "x",
        "state": state,
        "reason": reason,
        "node": os.uname().nodename,
        "cores": 1,
        "memory_bytes": 1024,
        "walltime_s": 60,
        "exit_code": exit_code,
        "signal": signal,
    }


@pytest.mark.parametrize(("umask", "mode"), [("0022", 0o644), ("0027", 0o640), ("0077", 0o600)])
def test_a_job_runs_where_and_as_it_was_submitted(a_queue, umask, mode):
    body = """
        pwd; umask; read x || echo "no stdin"; echo to stderr >&2
        echo "$GREETING"; env | grep ^HPCLAB_LOCALQ_ | sort"""
    text = script(body, walltime=60, output="'out %j.txt'")
    environ = a_queue.environ | {"GREETING": "grüß\nGott", "HPCLAB_LOCALQ_STALE": "x"}
    submit = f"umask {umask}; exec {sys.executable} -m hpclab.localq submit -"
    subprocess.run(["/bin/bash", "-c", submit], input=text, text=True, cwd=a_queue.work, env=environ, check=True)
    job = a_queue.end_of("1")
    output = a_queue.work / "out 1.txt"
    assert output.read_text().splitlines() == [
        str(a_queue.work),
        umask,
        "no stdin",
        "to stderr",
        "grüß",
        "Gott",
        f"HPCLAB_LOCALQ_DIR={a_queue.folder}",
        f"HPCLAB_LOCALQ_END_TIME={int(job['limit_time'])}",
        f"HPCLAB_LOCALQ_JOB={a_queue.job_folder('1')}",
        "HPCLAB_LOCALQ_JOB_ID=1",
    ]
    assert stat.S_IMODE(output.stat().st_mode) == mode


def test_a_running_job_has_a_limit_and_no_end(a_queue, a_gate):
    job_id = a_queue.submit(script(a_gate.wait, walltime=60))
    job = a_queue.status()[job_id]
    assert (job["state"], job["end_time"], job["exit_code"]) == ("RUNNING", None, None)
    assert job["limit_time"] == job["start_time"] + 60
    a_gate.open()
    assert a_queue.end_of(job_id)["state"] == "COMPLETED"


def test_a_folder_that_has_vanished_fails_the_job(a_queue, a_gate):
    (a_queue.work / "logs").mkdir()
    a_queue.submit(script(a_gate.wait, slots=1))
    a_queue.submit(script("true", slots=1, output="logs/x"))
    (a_queue.work / "logs").rmdir()
    a_gate.open()
    assert a_queue.end_of("2")["reason"].startswith("could not be started: [Errno 2]")


def test_a_job_waits_for_slots_and_starts_when_they_get_free(a_queue, a_gate, another_gate):
    a_queue.submit(script(a_gate.wait, cores=6, slots=8))
    a_queue.submit(script(another_gate.wait, cores=4, slots=8))
    job = a_queue.status("2")["2"]
    assert (job["state"], job["reason"]) == ("PENDING", "waits for slots: needs 4, 2 of 8 are free")
    assert (job["node"], job["start_time"]) == (None, None)
    a_gate.open()
    another_gate.open()  # nobody has touched the queue but the job that ended
    assert a_queue.end_of("2")["reason"] == ""


def test_a_small_job_passes_a_big_one(a_queue, a_gate):
    a_queue.submit(script(a_gate.wait, cores=3, slots=4))
    a_queue.submit(script("true", cores=2, slots=4))
    a_queue.submit(script("true", cores=1, slots=4))
    assert a_queue.end_of("3")["state"] == "COMPLETED"
    assert a_queue.status()["2"]["state"] == "PENDING"
    a_gate.open()
    assert a_queue.end_of("2")["state"] == "COMPLETED"

"""Submitting: what is taken, what is refused, and when it returns."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from waiting import until

from localq.harness import FINAL, LOCALQ, script


def test_the_script_is_taken_as_it_was_at_submission(a_queue, a_gate):
    path = a_queue.work / "job.sh"
    path.write_text(script(a_gate.wait + "\necho first", output="out"))
    assert a_queue.run("submit", "job.sh").stdout == "1\n"
    path.write_text("echo second")
    a_gate.open()
    assert a_queue.end_of("1")["name"] == "job.sh"
    assert (a_queue.work / "out").read_text() == "first\n"


def test_a_job_survives_its_submitter(a_queue, a_gate):
    (a_queue.work / "job.sh").write_text(script(a_gate.wait))
    command = f"{sys.executable} -m hpclab.localq submit job.sh; exec sleep 60"
    submitter = subprocess.Popen(
        ["/bin/bash", "-c", command],
        cwd=a_queue.work,
        env=a_queue.environ,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    with submitter:
        assert submitter.stdout.readline() == b"1\n"
        os.killpg(submitter.pid, 9)
    a_gate.open()
    assert a_queue.end_of("1")["state"] == "COMPLETED"


def test_submit_into_a_pipe_returns_at_once(a_queue, a_gate):
    (a_queue.work / "job.sh").write_text(script(a_gate.wait))
    command = f"{sys.executable} -m hpclab.localq submit job.sh 5>&1 2>&1 | cat"
    done = subprocess.run(
        ["/bin/bash", "-c", command], cwd=a_queue.work, env=a_queue.environ, capture_output=True, timeout=10
    )
    assert (done.stdout, a_queue.status("1")["1"]["state"]) == (b"1\n", "RUNNING")
    a_gate.open()


def test_fifty_jobs_submitted_at_once_all_run(a_queue):
    text = script("echo x >> ran", slots=8)
    submits = [
        subprocess.Popen(
            [*LOCALQ, "submit", "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=a_queue.work,
            env=a_queue.environ,
            text=True,
        )
        for _ in range(50)
    ]
    for submit in submits:  # they have waited for this, and go at once
        submit.stdin.write(text)
        submit.stdin.close()
    answers = [submit.stdout.read() for submit in submits]
    assert [submit.wait() for submit in submits] == 50 * [0]
    assert sorted(map(int, answers)) == list(range(1, 51))
    for job_id in range(1, 51):
        until(lambda job_id=job_id: a_queue.record(str(job_id))["state"] in FINAL, what=f"job {job_id}")
    assert {job["state"] for job in a_queue.status().values()} == {"COMPLETED"}
    assert (a_queue.work / "ran").read_text() == 50 * "x\n"


@pytest.mark.parametrize(
    ("options", "evidence"),
    [
        ({"cores": 9, "slots": 8}, ["9 cores", "8 slots"]),
        ({"memory": 10**17}, [f"{10**17 / 2**30:.1f} GiB of memory, this machine has "]),
        ({"output": "no/such/folder/out"}, ["no/such/folder/out"]),
    ],
)
def test_a_job_that_can_never_run_is_refused(a_queue, options, evidence):
    done = a_queue.run("submit", "-", stdin=script("true", **options))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert all(words in done.stderr for words in evidence)
    assert a_queue.status() == {}
    assert a_queue.submit(script("true")) == "1"


def test_a_missing_script_is_one_clear_line(a_queue):
    done = a_queue.run("submit", "missing.sh")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "missing.sh" in done.stderr


def test_a_full_disk_leaves_no_half_of_a_job(a_queue):
    # a limit on the size of files fails writes as a full disk does: the record fits, the script does not
    limited = ("/bin/bash", "-c", 'ulimit -f 1; exec "$@"', "-")
    done = a_queue.run("submit", "-", stdin=script("true\n" * 2000), prefix=limited)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("localq: cannot record the job: ")
    assert list((a_queue.folder / "jobs").iterdir()) == []


def test_a_state_folder_that_cannot_be_written_is_one_clear_line(a_queue):
    a_queue.folder.write_text("a file where the folder should be")
    for args in (["submit", "-"], ["status"], ["cancel", "1"]):
        done = a_queue.run(*args, stdin=script("true"))
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert str(a_queue.folder) in done.stderr

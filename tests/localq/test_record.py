"""What is written down, for how long, and who may read it."""

from __future__ import annotations

import stat
import time

from waiting import until

from localq.harness import script


def test_an_unreadable_record_does_not_hide_the_others(a_queue, a_gate):
    for text in (script("true"), script(a_gate.wait), script("true")):
        a_queue.submit(text)
    a_queue.end_of("1")
    a_queue.end_of("3")
    (a_queue.job_folder("1") / "job.json").write_text('{"id": 1, "na')
    (a_queue.job_folder("2") / "job.json").write_text("[]")
    jobs = a_queue.status()
    assert [jobs[job_id]["state"] for job_id in "123"] == ["UNKNOWN", "UNKNOWN", "COMPLETED"]
    assert "cannot be read" in jobs["1"]["reason"]
    a_gate.open()  # a shepherd knows its job by heart
    until(lambda: a_queue.status()["2"]["state"] == "COMPLETED", what="job 2 to be known again")


def test_a_job_with_an_unreadable_record_can_be_cancelled(a_queue, a_gate):
    a_queue.submit(script(a_gate.wait))
    until(lambda: a_queue.processes_of("1"), what="the job to run")
    (a_queue.job_folder("1") / "job.json").write_text("")
    a_queue.cancel("1")
    until(lambda: a_queue.status()["1"]["state"] == "CANCELLED", what="its end")


def test_jobs_are_forgotten_after_a_week_and_their_ids_never_used_again(a_queue):
    for _ in range(3):
        a_queue.submit(script("true"))
    for job_id in "123":
        a_queue.end_of(job_id)
    for job_id in "23":
        a_queue.rewrite(job_id, end_time=time.time() - 8 * 24 * 3600)
    (a_queue.folder / "jobs" / ".9").mkdir()  # a submit was killed here
    assert a_queue.submit(script("true")) == "4"
    a_queue.end_of("4")
    assert sorted(a_queue.status()) == ["1", "4"]
    assert not (a_queue.folder / "jobs" / ".9").exists()


def test_what_is_written_is_private(a_queue, a_gate):
    a_queue.folder.mkdir(mode=0o755)
    a_queue.submit(script(a_gate.wait, slots=1))
    a_queue.submit(script("true", slots=1))
    paths = [a_queue.folder, *a_queue.folder.rglob("*")]
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in paths}
    assert modes == {path: 0o700 if path.is_dir() else 0o600 for path in paths}
    a_gate.open()
    a_queue.end_of("2")
    assert not list(a_queue.folder.rglob("environ.json"))  # secrets are kept no longer than needed

"""Worker jobs come, work, and go: by command or by hand, and no result is lost with one that leaves."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cloudpickle
import pytest
from harness import LOCALQ, Home, Session
from waiting import until

FINAL = ("done", "failed", "cancelled")
SOON_S = 30

# the processes of a session cannot import this file; what is in a lambda goes to them by value
cloudpickle.register_pickle_by_value(sys.modules[__name__])


def counted(folder: str, number: int, seconds: float = 0.0) -> int:
    """A task that leaves a trace each time it is run."""
    with open(os.open(f"{folder}/runs", os.O_WRONLY | os.O_APPEND | os.O_CREAT), "w") as file:
        file.write(f"{number}\n")
    time.sleep(seconds)
    return number * number


def runs(folder: Path) -> Counter[int]:
    """How often each was run."""
    return Counter(int(line) for line in (folder / "runs").read_text().split())


@pytest.fixture
def a_waiting_session(a_home: Callable[..., Home]) -> Session:
    """One whose main job has taken all slots, and never comes to anything."""
    home = a_home(prologue="sleep 60", local_slots="2")
    start = home.begin("start", "--queue", "local")
    until(lambda: home.session()["state"] == "starting", what="the job to run")
    start.kill()
    start.communicate()
    return Session(home, home.session())


def test_twenty_at_once_lose_no_record(a_waiting_session: Session) -> None:
    home = a_waiting_session.home
    adding = [home.begin("add-worker") for _ in range(20)]
    failed = [text for begun in adding for text in [begun.communicate(timeout=60)[1]] if begun.returncode]
    assert failed == []
    jobs = a_waiting_session.status()["jobs"]
    assert [job["state"] for job in jobs] == ["running"] + 20 * ["pending"]
    assert [job["id"] for job in jobs] == [str(number) for number in range(1, 22)]
    assert all(job["submit_time"] for job in jobs)


def test_one_submitted_by_hand_joins_like_all_others(a_running_session: Session) -> None:
    home, script = a_running_session.home, a_running_session.folder / "add-one-worker.sh"
    job_id = home.ok("submit", str(script), program=LOCALQ).strip()
    until(lambda: job_id in [job["id"] for job in a_running_session.status()["jobs"]], what="it to be listed")
    a_running_session.wait_joined(job_id)
    assert a_running_session.job(job_id)["role"] == "worker"
    home.ok("remove-worker", job_id, "--session", a_running_session.name)


def test_one_that_starts_after_the_session_leaves_at_once(a_home: Callable[..., Home]) -> None:
    home = a_home(mpiexec="no-such-mpiexec")
    home.run("start", "--queue", "local", "--name", "over")
    job_id = home.ok("submit", str(home.hpclab / "sessions/over/add-one-worker.sh"), program=LOCALQ).strip()
    began = time.monotonic()
    until(lambda: home.jobs()[-1]["state"] not in ("PENDING", "RUNNING"), within_s=SOON_S, what="it to leave")
    assert time.monotonic() - began < SOON_S
    told = next(job for job in home.json("status", "over")["jobs"] if job["id"] == job_id)
    assert (told["state"], told["joined"]) == ("done", 0)
    assert "session" in told["reason"] or any("session" in str(e) for e in home.json("why", job_id)["events"])


def test_remove_worker_keeps_the_data(a_running_session: Session, tmp_path: Path) -> None:
    session, job_id = a_running_session, a_running_session.add_worker()
    with session.client() as client:
        there = session.workers_of(job_id)
        held = client.map(lambda i: counted(str(tmp_path), i), range(30), workers=there, allow_other_workers=True)
        client.gather(client.map(lambda _: None, held))
        assert "handed over" in session.home.ok("remove-worker", job_id, "--session", session.name)
        assert client.gather(client.map(lambda x: x + 1, held)) == [i * i + 1 for i in range(30)]
    assert session.job(job_id)["state"] == "done"
    assert set(runs(tmp_path).values()) == {1}


def test_one_drains_before_its_walltime(a_running_session: Session, tmp_path: Path) -> None:
    session, walltime_s = a_running_session, 12
    job_id = session.add_worker("--walltime", f"{walltime_s}s")
    with session.client() as client:
        there = session.workers_of(job_id)
        tasks = client.map(lambda i: counted(str(tmp_path), i), range(30), workers=there, allow_other_workers=True)
        deadline = time.monotonic() + walltime_s + SOON_S
        while session.job(job_id)["state"] not in FINAL:
            assert time.monotonic() < deadline
            stream = range(len(tasks), len(tasks) + 10)
            tasks += client.map(lambda i: counted(str(tmp_path), i, 0.05), stream)
            client.gather(tasks[-10:])
        assert client.gather(tasks) == [i * i for i in range(len(tasks))]
    job = session.job(job_id)
    assert (job["state"], job["reason"]) == ("done", "") or "walltime" not in job["reason"]
    assert job["end_time"] - job["start_time"] < walltime_s
    assert session.happened("drained", job_id)
    assert set(runs(tmp_path).values()) == {1}


def test_restart_brings_every_worker_back(a_running_session: Session, a_worker_job: str) -> None:
    session = a_running_session
    before = session.joined()
    with session.client() as client:
        client.submit(os.getpid).result(timeout=30)
        client.restart(timeout=30)
        until(lambda: session.joined() == before, what="all to be back")
        assert client.submit(sum, [1, 2, 3]).result(timeout=30) == 6
    assert session.job(a_worker_job)["state"] == "running"
    assert session.job(a_worker_job)["joined"] == 1


def hoard(once: str) -> str:
    """The first time it takes 2 GB, bit by bit; only then."""
    if not os.path.exists(once):  # noqa: PTH110
        open(once, "x").close()
        hoarded = []
        for _ in range(40):
            hoarded.append(b"x" * 50_000_000)
            time.sleep(0.02)
    return "modest"


def test_one_that_takes_too_much_memory_is_started_again(a_running_session: Session, tmp_path: Path) -> None:
    session, job_id = a_running_session, a_running_session.add_worker("--memory", "512M")
    with session.client() as client:
        there = session.workers_of(job_id)
        greedy = client.submit(lambda: hoard(str(tmp_path / "once")), workers=there, allow_other_workers=True)
        assert greedy.result(timeout=60) == "modest"
    until(lambda: session.workers_of(job_id) not in (there, []), what="another worker")
    told = session.home.ok("why", job_id, "--session", session.name)
    assert "memory" in told
    assert "started again" in told
    session.home.ok("remove-worker", job_id, "--session", session.name)


def test_a_worker_of_the_main_job_that_takes_too_much_memory_comes_back(
    a_home: Callable[..., Home], tmp_path: Path
) -> None:
    session = a_home().start("--memory", "512M")
    main = session.main_job
    with session.client() as client:
        there = session.workers_of(main)
        assert client.submit(lambda: hoard(str(tmp_path / "once"))).result(timeout=60) == "modest"
        until(lambda: session.workers_of(main) not in (there, []), what="another worker")
    assert session.happened("outgrown", main)
    assert session.status()["state"] == "running"

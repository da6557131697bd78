"""What can die, and what can be missing: the truth is told soon, and nothing is left behind."""

from __future__ import annotations

import http.client
import importlib.metadata
import re
import signal
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from harness import LOCALQ, Home, Session
from waiting import until

import hpclab

JOB_ENDED = 6
INTERRUPTED = 130
SOON_S = 30
WAITS = "sleep 60"
"""As a prologue: the job runs, and never comes to anything."""


def scheduler_of(session: Session) -> psutil.Process:
    return session.listening_at(session.connection()["scheduler_address"])


def supervisor_of(session: Session) -> psutil.Process:
    return session.running("hpclab.inside.main_job")


def jupyterlab_of(session: Session) -> psutil.Process:
    return session.running("hpclab.inside.jupyter")


@pytest.mark.parametrize(
    ("part", "named"),
    [(supervisor_of, "supervisor"), (scheduler_of, "Dask scheduler died"), (jupyterlab_of, "JupyterLab died")],
    ids=["supervisor", "scheduler", "jupyterlab"],
)
def test_the_end_of_a_part_is_the_end_of_the_session(
    a_home: Callable[..., Home], part: Callable[[Session], psutil.Process], named: str
) -> None:
    home = a_home()
    session = home.start()
    worker_job = session.add_worker()
    part(session).kill()
    until(lambda: session.status()["state"] == "failed", within_s=SOON_S, what="the truth")
    told = session.status()
    assert named in told["reason"]
    assert (told["jupyter_url"], told["dashboard_url"], told["workers"]["joined"]) == (None, None, 0)
    until(lambda: session.job(worker_job)["state"] == "done", within_s=SOON_S, what="the worker job to leave")
    session.stop()
    home.check_nothing_is_left()


def test_a_worker_of_the_main_job_dies_alone(a_home: Callable[..., Home]) -> None:
    session = a_home(workers="2").start()
    until(lambda: session.joined() == 2, what="both workers")
    session.listening_at(session.workers_of(session.main_job)[0]).kill()
    until(lambda: session.joined() == 1, within_s=SOON_S, what="the truth")
    with session.client() as client:
        assert client.submit(sum, [1, 2, 3]).result(timeout=30) == 6
    assert session.status()["state"] == "running"
    session.stop()
    session.home.check_nothing_is_left()


def test_a_worker_of_a_worker_job_is_started_again(a_running_session: Session, a_worker_job: str) -> None:
    (before,) = a_running_session.workers_of(a_worker_job)
    a_running_session.listening_at(before).kill()
    until(
        lambda: a_running_session.workers_of(a_worker_job) not in ([before], []), within_s=SOON_S, what="another worker"
    )
    assert a_running_session.happened("restarted", a_worker_job)
    until(lambda: a_running_session.job(a_worker_job)["joined"] == 1, within_s=SOON_S, what="it to be counted")


def test_the_session_outlives_a_start_that_is_killed(a_home: Callable[..., Home]) -> None:
    home = a_home(prologue=WAITS)
    start = begin_start(home)
    until(lambda: home.session()["state"] == "starting", what="the job to run")
    start.kill()
    start.communicate()
    assert home.session()["state"] == "starting"
    home.ok("stop", home.session()["name"])
    home.check_nothing_is_left()


def begin_start(home: Home, *args: str) -> subprocess.Popen[str]:
    return home.begin("start", "--queue", "local", *args)


# the job ends before there is anything to connect to


def test_the_main_job_is_cancelled_while_start_waits(a_home: Callable[..., Home]) -> None:
    home = a_home(prologue=WAITS)
    start = begin_start(home)
    until(lambda: home.session()["state"] == "starting", what="the job to run")
    home.ok("cancel", home.session()["jobs"][0]["id"], program=LOCALQ)
    _, stderr = start.communicate(timeout=SOON_S)
    assert (start.returncode, "cancelled" in stderr) == (JOB_ENDED, True), stderr


def test_the_walltime_is_over_while_start_waits(a_home: Callable[..., Home]) -> None:
    began = time.monotonic()
    done = a_home(prologue=WAITS).run("start", "--queue", "local", "--walltime", "3s")
    assert (done.returncode, "walltime" in done.stderr) == (JOB_ENDED, True), done.stderr
    assert time.monotonic() - began < 3 + SOON_S


def test_the_walltime_is_over_later(a_home: Callable[..., Home]) -> None:
    session = a_home().start("--walltime", "20s")
    until(lambda: session.status()["state"] == "ended", within_s=20 + SOON_S, what="the end")
    assert "walltime" in session.status()["reason"]
    session.home.check_nothing_is_left()


def refused(home: Home, *said: str) -> None:
    """`start` fails within seconds, says why, and shows the end of the log."""
    began = time.monotonic()
    done = home.run("start", "--queue", "local")
    assert done.returncode == JOB_ENDED, done.stderr
    assert time.monotonic() - began < SOON_S
    assert [words for words in (*said, "the last lines of its log") if words not in done.stderr] == []
    assert home.session()["state"] == "failed"
    home.check_nothing_is_left()


def with_another_dask(tmp_path: Path, jobs: str) -> str:
    """A Python whose Dask claims to be of 2020 in those jobs."""
    claim = tmp_path / "claims/dask-2020.1.0.dist-info"
    claim.mkdir(parents=True)
    (claim / "METADATA").write_text("Metadata-Version: 2.1\nName: dask\nVersion: 2020.1.0\n")
    python = tmp_path / "python"
    choice = f'case "$*" in *inside.{jobs}*) export PYTHONPATH={claim.parent};; esac'
    python.write_text(f'#!/bin/sh\n{choice}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return str(python)


OURS = importlib.metadata.version("dask")


def test_the_job_has_another_dask_than_the_login_node(a_home: Callable[..., Home], tmp_path: Path) -> None:
    refused(a_home(python=with_another_dask(tmp_path, "main_job")), "dask 2020.1.0", f"dask {OURS}", "check_versions")


def test_a_worker_job_has_another_dask_than_the_main_job(a_home: Callable[..., Home], tmp_path: Path) -> None:
    session = a_home(python=with_another_dask(tmp_path, "worker_job")).start()
    session.home.ok("add-worker")
    job = until(lambda: next((j for j in session.status()["jobs"] if j["state"] == "failed"), None), what="its end")
    assert f"dask 2020.1.0, but the session's main job dask {OURS}" in job["reason"]
    assert session.status()["state"] == "running"


@pytest.mark.parametrize("asked", [{"venv": "/nonexistent"}, {"conda": "nosuch"}, {"modules": "nosuch"}], ids=str)
def test_an_environment_that_is_not_there_ends_the_job(a_home: Callable[..., Home], asked: dict[str, str]) -> None:
    refused(a_home(**asked), "this does not work on", next(iter(asked.values())))


def test_jupyterlab_is_missing(a_home: Callable[..., Home], tmp_path: Path) -> None:
    refused(a_home(python=str(a_bare_python(tmp_path))), "jupyterlab, psutil missing", "pip install")


def a_bare_python(folder: Path) -> Path:
    """One that has hpclab and nothing else."""
    venv.create(folder / "bare", symlinks=True)
    (folder / "only").mkdir()
    (folder / "only/hpclab").symlink_to(Path(hpclab.__file__).parent)
    (site_packages,) = (folder / "bare/lib").glob("*/site-packages")
    (site_packages / "hpclab.pth").write_text(f"{folder / 'only'}\n")
    return folder / "bare/bin/python"


def test_jupyterlab_cannot_start(a_home: Callable[..., Home]) -> None:
    home = a_home()
    (home.path / "jupyter").mkdir(parents=True)
    (home.path / "jupyter/jupyter_server_config.py").write_text("raise SystemExit('a broken configuration')")
    refused(home, "JupyterLab did not come up", "a broken configuration")


def test_there_is_no_mpi_launcher(a_home: Callable[..., Home]) -> None:
    refused(a_home(mpiexec="no-such-mpiexec"), "no-such-mpiexec")


def test_the_mpi_launcher_fails(a_home: Callable[..., Home]) -> None:
    refused(a_home(mpiexec="false"), "the Dask scheduler did not come up")


def test_the_prologue_fails(a_home: Callable[..., Home]) -> None:
    refused(a_home(prologue="echo no such module; exit 3"), "exit", "3", "no such module")


@pytest.fixture
def a_full_machine(a_home: Callable[..., Home], tmp_path: Path) -> Iterator[Home]:
    """Somebody else's job has all its slots."""
    home = a_home(local_slots="2")
    script = tmp_path / "blocker.sh"
    script.write_text("#!/bin/bash\n#HPCLAB --cores=2\n#HPCLAB --slots=2\nsleep 60\n")
    blocker = home.ok("submit", str(script), program=LOCALQ).strip()
    yield home
    home.ok("cancel", blocker, program=LOCALQ)


def test_ctrl_c_while_the_job_is_queued(a_full_machine: Home) -> None:
    home = a_full_machine
    start = begin_start(home, "--name", "patient")
    until(lambda: [job["state"] for job in home.jobs()] == ["RUNNING", "PENDING"], what="the job to be queued")
    start.send_signal(signal.SIGINT)
    _, stderr = start.communicate(timeout=SOON_S)
    assert start.returncode == INTERRUPTED, stderr
    for said in ("still queued", "hpclab attach patient", "hpclab stop patient"):
        assert said in stderr
    assert "Traceback" not in stderr
    assert home.session()["state"] == "queued"
    home.ok("stop", "patient")
    assert [job["state"] for job in home.jobs()] == ["RUNNING", "CANCELLED"]


def test_attach_goes_on_where_a_start_was_interrupted(a_home: Callable[..., Home]) -> None:
    home = a_home(prologue="sleep 2")
    start = begin_start(home)
    until(lambda: home.session()["state"] == "starting", what="the job to run")
    start.send_signal(signal.SIGINT)
    _, stderr = start.communicate(timeout=SOON_S)
    assert start.returncode == INTERRUPTED, stderr
    assert "still starting" in stderr
    attached = home.json("attach")
    assert attached["state"] == "running"
    assert page_status(attached["jupyter_url"]) == http.client.OK


def page_status(url: str) -> int:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=20)
    connection.request("GET", f"{parts.path}?{parts.query}")
    return connection.getresponse().status


@pytest.fixture
def taken_ports() -> Iterator[list[int]]:
    """Those that everybody on a shared machine wants."""
    ports = [8786, 8787, 8788, 8888, 8889]
    with ExitStack() as stack:
        for port in ports:
            taken = stack.enter_context(socket.socket())
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                taken.bind(("0.0.0.0", port))
                taken.listen()
            except OSError:
                continue  # somebody has it already, which is as good
        yield ports


def test_the_usual_ports_are_taken(a_home: Callable[..., Home], taken_ports: list[int]) -> None:
    session = a_home().start()
    connection = session.connection()
    addresses = f"{connection['scheduler_address']} {connection['jupyter_port']} {connection['dashboard_port']}"
    assert not {int(number) for number in re.findall(r"\d+\b", addresses)} & set(taken_ports)
    assert page_status(session.printed["jupyter_url"]) == http.client.OK

"""The probe, really run here: what it tells of this machine, and how two of them meet."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hpclab.inside.probe import interfaces, launchers, meet, place, run, versions
from hpclab.sight import Sight, sight


def probed(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-P", "-X", "importtime", "-m", "hpclab.inside.probe", str(folder), *arguments]
    return subprocess.run(argv, env={**os.environ, **env}, capture_output=True, text=True, timeout=60, check=True)


def test_it_prints_one_object_that_the_doctor_can_read(tmp_path):
    seen = sight(probed(tmp_path).stdout)
    assert isinstance(seen, Sight)
    assert seen.python == sys.executable
    assert seen.versions["dask"]
    assert seen.home.path == str(tmp_path)
    assert seen.met is None


def test_it_imports_no_dask(tmp_path):
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in probed(tmp_path).stderr.splitlines()}
    assert "psutil" in imported
    assert not imported & {"dask", "distributed", "mpi4py", "tornado", "jupyterlab"}


def test_commands_are_run_with_the_jobs_own_id(tmp_path):
    done = probed(tmp_path, "--run", "status", "echo 'about {job_id}'", HPCLAB_JOB_ID="12[3]")
    assert json.loads(done.stdout)["answers"]["status"]["stdout"] == "about 12[3]\n"


@pytest.mark.parametrize(
    ("argv", "exit_status", "stdout"),
    [
        (["echo", "hello"], 0, "hello\n"),
        (["sh", "-c", "exit 3"], 3, ""),
        (["python", "-c", "import sys; print(sys.executable)"], 0, f"{sys.executable}\n"),
        (["no-such-command"], 127, ""),
    ],
)
def test_a_command_always_has_an_answer(argv, exit_status, stdout):
    answer = run(argv)
    assert (answer["exit_status"], answer["stdout"]) == (exit_status, stdout)


def test_a_launchers_traces_are_not_passed_on(monkeypatch):
    monkeypatch.setenv("PMI_RANK", "0")
    assert "PMI_RANK" not in run(["env"])["stdout"]


def test_versions_name_what_a_job_needs():
    assert {"python", "dask", "distributed", "dask-mpi", "mpi4py", "jupyterlab"} <= set(versions())


def test_interfaces_have_addresses_that_lead_out():
    assert "127.0.0.1" not in {address for interface in interfaces() for address in interface["addresses"]}
    assert all(interface["addresses"] for interface in interfaces())


# file systems


def test_a_folder_that_is_not_there_yet_has_its_parents_file_system(tmp_path):
    there, later = place(tmp_path), place(tmp_path / "a/b")
    assert (later["type"], later["error"]) == (there["type"], "")
    assert later["path"] == str(tmp_path / "a/b")
    assert not list(tmp_path.iterdir())


def test_a_file_system_that_takes_no_files_says_why():
    told = place(Path("/proc"))
    assert told["type"] == "proc"
    assert told["error"]


# launchers


@pytest.fixture
def launcher_on_path(tmp_path, monkeypatch):
    """launcher_on_path("mpirun", "mpirun (Open MPI) 4.1.4") is one that says this."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def _launcher(name: str, says: str) -> str:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\necho '{says}'\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)

    return _launcher


def test_a_launcher_tells_its_family_and_version(launcher_on_path):
    path = launcher_on_path("mpiexec", "mpiexec (OpenRTE) 4.1.4")
    assert {"path": path, "family": "openmpi", "version": "4.1.4"} in launchers("auto")


def test_the_launcher_that_was_asked_for_comes_first(launcher_on_path):
    path = launcher_on_path("special", "prterun (PRRTE) 3.0.6")
    assert launchers("special --verbose")[0] == {"path": path, "family": "prrte", "version": "3.0.6"}


def test_a_launcher_that_is_missing_comes_first_without_a_family():
    assert launchers("/no/such/mpiexec")[0] == {"path": "/no/such/mpiexec", "family": "", "version": ""}


# meetings


def test_two_sides_that_meet_have_each_others_word(tmp_path):
    found = {}

    def go(me: str, other: str) -> None:
        found[me] = meet(tmp_path, me, other, loopback=True, within_s=20)

    there = threading.Thread(target=go, args=("node", "login"))
    there.start()
    go("login", "node")
    there.join()
    reached = {"came": True, "answers": {"127.0.0.1": ""}}
    assert found == {"login": reached, "node": reached}


def test_one_that_waits_in_vain_says_so(tmp_path):
    assert meet(tmp_path, "login", "node", loopback=True, within_s=0.3) == {"came": False, "answers": {}}


@pytest.mark.parametrize(("says", "error"), [(b"another word", "somebody else answers there"), (None, "refused")])
def test_an_address_that_does_not_say_the_word_is_not_reached(tmp_path, stranger, says, error):
    told = {"hosts": ["127.0.0.1"], "port": stranger(says), "word": "the word"}
    (tmp_path / "node.listens").write_text(json.dumps(told))
    (tmp_path / "node.met").touch()
    answers = meet(tmp_path, "login", "node", loopback=True, within_s=20)["answers"]
    assert error in answers["127.0.0.1"]


@pytest.fixture
def stranger():
    """stranger(b"hello") is a port where somebody says this once; stranger(None) is one where nobody is."""
    listeners = []

    def _port(says: bytes | None) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        if says is None:
            listener.close()
            return port
        listeners.append(listener)

        def say() -> None:
            line, _ = listener.accept()
            with line:
                line.sendall(says)

        threading.Thread(target=say, daemon=True).start()
        return port

    yield _port
    for listener in listeners:
        listener.close()

"""What is said to an MPI launcher, and which one is it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from hpclab.errors import WorldFailed
from hpclab.mpi.launch import Berth, aborted, find_mpiexec, mpi_environment, mpiexec_argv

OPEN_MPI_4 = "mpirun (Open MPI) 4.1.6\n"
OPEN_MPI_5 = "mpirun (Open MPI) 5.0.11\n"
HYDRA = "HYDRA build details:\n    Version: 5.0.2\n"
BERTHS = [
    Berth("node1", "tls://10.0.0.1:1", "/env/bin/python", "/tmp/hpclab-a"),
    Berth("node2", "tls://10.0.0.2:1", "/other/bin/python", "/tmp/hpclab-b"),
]


def test_open_mpi_5_is_told_each_rank_and_our_remote_shell():
    argv = mpiexec_argv("/opt/bin/mpiexec", OPEN_MPI_5, BERTHS, agent="python -m agent /s")
    assert argv[0] == "/opt/bin/mpiexec"
    colon = argv.index(":")
    first = [*argv[colon - 9 : colon]]
    assert first == [*"-n 1 --host node1 /env/bin/python -P -m hpclab.mpi.rank /tmp/hpclab-a".split()]
    assert argv[colon + 1 :] == [*"-n 1 --host node2 /other/bin/python -P -m hpclab.mpi.rank /tmp/hpclab-b".split()]
    where = argv.index("plm_ssh_agent")
    assert argv[where - 1 : where + 2] == ["--prtemca", "plm_ssh_agent", "python -m agent /s"]
    assert "none" in argv[argv.index("--bind-to") :][:2]


def test_open_mpi_4_has_other_words_for_the_same():
    argv = mpiexec_argv("mpirun", OPEN_MPI_4, BERTHS, agent="agent")
    where = argv.index("plm_rsh_agent")
    assert argv[where - 1 : where + 2] == ["--mca", "plm_rsh_agent", "agent"]
    assert "--oversubscribe" in argv
    assert argv.count("-n") == 2


@pytest.mark.parametrize("version", [HYDRA, "", "slurm 22.05.8"])
def test_a_launcher_of_another_family_is_refused(version):
    with pytest.raises(WorldFailed) as told:
        mpiexec_argv("/usr/bin/mpiexec", version, BERTHS, agent="agent")
    assert "/usr/bin/mpiexec" in str(told.value)
    assert "pip install mpi4py mpich" in str(told.value).splitlines()[-1]


def a_launcher(path: Path, says: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def no_other_mpi(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "env/bin/python"))


@pytest.mark.usefixtures("no_other_mpi")
@pytest.mark.parametrize(
    "where", ["opt/bin/mpiexec", "opt/bin/mpirun", "bin/mpiexec", "env/bin/mpiexec", "path/mpirun"]
)
def test_the_launcher_that_belongs_to_the_library(tmp_path, where):
    there = a_launcher(tmp_path / where, OPEN_MPI_5)
    assert find_mpiexec(str(tmp_path / "opt/lib/libmpi.so.40")) == there


@pytest.mark.usefixtures("no_other_mpi")
def test_one_near_the_library_comes_first_and_one_of_another_family_is_passed_by(tmp_path):
    a_launcher(tmp_path / "path/mpiexec", OPEN_MPI_5)
    a_launcher(tmp_path / "opt/bin/mpiexec", HYDRA)
    near = a_launcher(tmp_path / "opt/bin/mpirun", OPEN_MPI_4)
    assert find_mpiexec(str(tmp_path / "opt/lib/libmpi.so")) == near
    assert find_mpiexec("") == str(tmp_path / "path/mpiexec")


@pytest.mark.usefixtures("no_other_mpi")
def test_where_there_is_none(tmp_path):
    a_launcher(tmp_path / "path/mpiexec", HYDRA)
    with pytest.raises(WorldFailed) as told:
        find_mpiexec(str(tmp_path / "opt/lib/libmpi.so"))
    assert str(tmp_path / "opt/lib/libmpi.so") in str(told.value)


def test_what_a_worker_has_of_its_own_world_is_not_for_a_new_one():
    outer = {
        "PMI_RANK": "3",
        "PMIX_RANK": "3",
        "OMPI_COMM_WORLD_SIZE": "9",
        "OMPI_MCA_btl": "self,tcp",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "I_MPI_ROOT": "/opt/intel",
        "I_MPI_HYDRA_BOOTSTRAP": "slurm",
        "HOME": "/home/ada",
    }
    kept = {"OMPI_MCA_btl", "OMPI_ALLOW_RUN_AS_ROOT", "I_MPI_ROOT", "HOME"}
    assert mpi_environment(outer) == {name: outer[name] for name in kept}


ABORT_5 = """--------------------------------------------------------------------------
MPI_ABORT was invoked on rank 1 in communicator MPI_COMM_WORLD
  Proc: [[23220,1],1]
  Errorcode: 13

NOTE: invoking MPI_ABORT causes Open MPI to kill all MPI processes.
"""
ABORT_4 = """MPI_ABORT was invoked on rank 11 in communicator MPI_COMM_WORLD
with errorcode -1.

NOTE: invoking MPI_ABORT causes Open MPI to kill all MPI processes.
"""


@pytest.mark.parametrize(
    ("said", "found"), [(ABORT_5, (1, 13)), (ABORT_4, (11, -1)), ("errorcode 3", None), ("", None)]
)
def test_who_has_called_for_the_end_of_all(said, found):
    assert aborted(said) == found


@pytest.mark.parametrize(("answer", "status"), [(b'{"exit_status": 3, "said": "oh"}\n', 3), (b"", 255)])
def test_the_remote_shell_gives_the_command_to_us(tmp_path, answer, status):
    """The real program, as mpiexec calls it."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.write(answer)
        writer.close()

    async def call() -> tuple[int | None, bytes]:
        path = f"{tmp_path}/s"
        server = await asyncio.start_unix_server(serve, path)
        argv = [sys.executable, "-P", "-m", "hpclab.mpi.agent", path, "node2", "prted", "--x", '"a b"']
        called = await asyncio.create_subprocess_exec(*argv, stderr=asyncio.subprocess.PIPE, env=dict(os.environ))
        _, err = await called.communicate()
        server.close()
        return called.returncode, err

    assert asyncio.run(call()) == (status, b"oh" if answer else b"")
    assert asked == [b'{"host": "node2", "command": "prted --x \\"a b\\""}\n']


BESIDE = """
import asyncio, os, tempfile
from hpclab.mpi.launch import _beside_us

async def main():
    folder = tempfile.mkdtemp()
    argv = ["/bin/sh", "-c", "trap '' TERM; touch $TMPDIR/file; sleep 600 & echo $!; sleep 600"]
    async with _beside_us(argv, os.environ, folder=folder) as process:
        print(process.pid, (await process.stdout.readline()).decode().strip(), flush=True)
        os.killpg(process.pid, 15)  # which it does not listen to
        await process.wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_runs_beside_us_is_killed_with_us(number: signal.Signals, tmp_path: Path) -> None:
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", BESIDE], stdout=subprocess.PIPE, text=True, env=env) as we:
        assert we.stdout
        beside = [psutil.Process(int(pid)) for pid in we.stdout.readline().split()]
        we.send_signal(number)
    assert psutil.wait_procs(beside, timeout=10)[1] == []
    assert list(tmp_path.iterdir()) == []

"""MPI worlds beside plain Dask workers on three hosts, with MPICH and Open MPI: no session, no batch system, no ssh."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from minihpc.cluster import NODES, Cluster, Node
from waiting import until

OPEN_MPI = Path(__file__).parents[2] / ".venv/openmpi"
PROGRAM = """
import json, os, socket, sys, time
import dask.array as da
import numpy as np
from distributed import Client
from hpclab import mpi

def sums(chunks, comm):
    own, whole = np.array([sum(float(chunk.sum()) for chunk in chunks)]), np.zeros(1)
    comm.Allreduce(own, whole)
    left = comm.sendrecv(np.full(2**18, comm.rank), (comm.rank + 1) % comm.size, source=(comm.rank - 1) % comm.size)
    return socket.gethostname(), comm.size, whole[0], int(left[0])

def fails(chunks, comm):
    if comm.rank == 2:
        raise ValueError("no more")
    comm.Barrier()

client = Client(sys.argv[1])
client.wait_for_workers(4)
x = da.arange(1_000_000, chunks=25_000).persist()
found = mpi.run(sums, x, timeout_s=60)
began = time.monotonic()
try:
    mpi.run(fails, x, timeout_s=60)
except mpi.RankFailed as error:
    print(error, file=sys.stderr)
    print(json.dumps([found, error.rank, error.host, repr(error.__cause__), time.monotonic() - began]))
"""

SLEEPS = """
import sys, time
import dask.array as da
from distributed import Client
from hpclab import mpi

def sleeps(chunks, comm):
    print("asleep", flush=True)
    time.sleep(600)

client = Client(sys.argv[1])
client.wait_for_workers(4)
mpi.run(sleeps, da.arange(1_000_000, chunks=25_000).persist())
"""


@pytest.fixture
def workers(a_bare_cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A scheduler's address, with a worker on each node, and a second one on node1; their MPI is the parameter."""
    env = {"DASK_DISTRIBUTED__WORKER__HTTP__ROUTES": "[]"}
    if request.param == "openmpi":
        prefix = a_bare_cluster.state / "srv/openmpi"
        if not prefix.exists():
            shutil.copytree(OPEN_MPI, prefix)
            subprocess.run(["chmod", "-R", "a+rX", prefix], check=True)
        env |= {"LD_LIBRARY_PATH": "/srv/openmpi/lib", "MPI4PY_MPIABI": "openmpi"}
    bin_folder = a_bare_cluster.python.parent
    login = a_bare_cluster.on("login")
    scheduler = [f"{bin_folder}/dask", "scheduler", "--host", "10.77.1.1", "--port", "8786", "--no-dashboard"]
    running = [_dask(login, scheduler)]
    address = "tcp://10.77.1.1:8786"
    for name in (*NODES, "node1"):
        worker = [f"{bin_folder}/dask", "worker", address, "--no-nanny", "--nthreads", "1", "--no-dashboard"]
        running.append(_dask(a_bare_cluster.on(name), worker, env))
    yield address
    for process in running[1:]:
        process.terminate()
    for name in NODES:
        node = a_bare_cluster.on(name)
        until(lambda node=node: not node.processes() and "none", what=f"the end of {node.processes()} on {name}")
        left = [path for path in node.file("/tmp/").iterdir() if path.name.startswith(("hpclab", "prte", "ompi"))]
        assert not left, list(left[0].rglob("*"))
    # not before: a worker of Dask's that loses its scheduler while it ends may wait for ever
    running[0].terminate()
    for process in running:
        process.wait(timeout=30)


def _dask(node: Node, argv: list[str], env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    return node.popen(argv, env=env or {}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("workers", ["mpich", "openmpi"], indirect=True)
def test_a_world_over_three_hosts(a_bare_cluster: Cluster, workers: str) -> None:
    shared = set(os.listdir("/dev/shm"))
    done = a_bare_cluster.on("login").run([str(a_bare_cluster.python), "-c", PROGRAM, workers], timeout_s=120)
    print(done.stderr)
    found, rank, host, cause, took_s = json.loads(done.stdout.splitlines()[-1])
    assert {(size, whole) for _, size, whole, _ in found} == {(4, 499999500000.0)}
    assert [left for *_, left in found] == [3, 0, 1, 2]
    assert {host for host, *_ in found} == set(NODES)
    assert (rank, host, cause) == (2, found[2][0], "ValueError('no more')")
    assert took_s < 20
    left = {name for name in set(os.listdir("/dev/shm")) - shared if Path("/dev/shm", name).owner() == "4001"}
    assert not left


@pytest.mark.parametrize("workers", ["mpich", "openmpi"], indirect=True)
def test_workers_that_are_killed_leave_nothing(a_bare_cluster: Cluster, workers: str) -> None:
    """What a launcher has started on their hosts neither; the fixture looks for it."""
    program = [str(a_bare_cluster.python), "-c", SLEEPS, workers]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    running = a_bare_cluster.on("login").popen(program, **streams)
    assert running.stdout
    assert {running.stdout.readline() for _ in range(4)} == {f"[{rank}] asleep\n" for rank in range(4)}
    for name in NODES:
        a_bare_cluster.on(name, user="root").run(["pkill", "-9", "-f", "bin/dask worker"])
    running.terminate()
    running.wait(timeout=30)

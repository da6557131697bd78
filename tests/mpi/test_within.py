"""Ranks that are the workers themselves, of a real dask-mpi program: no copy, no new world."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from distributed import Client

from hpclab import mpi
from hpclab.errors import WorldFailed
from mpi import ranks
from mpi.cluster import Cluster, segments_of

WITHIN_S = 120
PROGRAM = """
import json, os, sys, time
from dask_mpi import initialize
initialize(dashboard=False, nthreads=1)
import dask.array as da
import numpy as np
from distributed import Client
from hpclab import mpi

def total(chunks, comm):
    own, whole = np.array([sum(float(chunk.sum()) for chunk in chunks)]), np.zeros(1)
    comm.Allreduce(own, whole)
    print("rank", comm.rank, "of", comm.size)
    return comm.rank, comm.size, whole[0], os.getpid()

def doubles(chunks, comm):
    for chunk in chunks:
        chunk *= 2
    return [id(chunk) for chunk in chunks]

def raises(chunks, comm):
    if comm.rank == 1:
        raise LookupError("not here")

def exits(chunks, comm):
    if comm.rank == 1:
        sys.exit(3)

def sleeps(chunks, comm):
    if comm.rank == 1:
        time.sleep(2)

told = {}
client = Client()
client.wait_for_workers(3)
workers = list(client.nthreads())

def held_by_all():
    return [client.submit(np.full, 10, float(n), workers=[workers[n % 3]], pure=False) for n in range(6)]

x = held_by_all()
told["totals"] = mpi.run(total, x, in_process=True)
told["again"] = [each[:3] for each in mpi.run(total, x, in_process=True)]
told["workers"] = list(client.run(os.getpid).values())
mpi.run(doubles, x, in_process=True)
told["changed"] = float(sum(chunk.sum() for chunk in client.gather(x)))
told["some"] = [each[:3] for each in mpi.run(total, held_by_all(), in_process=True, workers=workers[1:])]
for name, function, options in [("raises", raises, {}), ("exits", exits, {}), ("slow", sleeps, {"timeout_s": 0.5})]:
    try:
        mpi.run(function, x, in_process=True, **options)
    except mpi.RankFailed as error:
        told[name] = [error.rank, str(error), repr(error.__cause__)]
told["segments"] = [word for word in open("/proc/self/maps").read().split() if word.startswith("/dev/shm/")]
told["beside"] = [each[:3] for each in mpi.run(total, x)]
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What such a program has seen; run once, for it takes its time."""
    program = tmp_path_factory.mktemp("within") / "program.py"
    program.write_text(PROGRAM)
    mpiexec = str(Path(sys.executable).with_name("mpiexec"))
    done = subprocess.run(
        [mpiexec, "-n", "5", sys.executable, str(program)],
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    lines = done.stdout.splitlines()
    found = [line for line in lines if line.startswith("{")]
    assert found, done.stderr[-5000:]
    seen = json.loads(found[0])
    for path in seen["segments"]:
        assert not Path(path).exists()
    return {**seen, "printed": lines}


def test_ranks_get_a_communicator_of_their_own(told):
    assert [each[:3] for each in told["totals"]] == [[rank, 3, 150.0] for rank in range(3)]
    assert told["again"] == [[rank, 3, 150.0] for rank in range(3)]


def test_they_are_the_workers(told):
    assert {each[3] for each in told["totals"]} == set(told["workers"])


def test_chunks_are_the_very_objects(told):
    """What was changed is seen changed by Dask, for nothing was copied."""
    assert told["changed"] == 2 * 150.0


def test_what_they_print_comes_marked(told):
    for rank in range(3):
        assert told["printed"].count(f"[{rank}] rank {rank} of 3") >= 2


def test_on_some_of_the_workers(told):
    assert told["some"] == [[rank, 2, 150.0] for rank in range(2)]


def test_an_exception_arrives(told):
    rank, text, cause = told["raises"]
    assert rank == 1
    assert "rank 1 of 3" in text
    assert "in raises" in text
    assert cause == "LookupError('not here')"


def test_an_exit_is_told(told):
    assert "called sys.exit(3)" in told["exits"][1]


def test_who_takes_too_long_is_told(told):
    assert "rank 1 of 3 had not ended after 0.5 s" in told["slow"][1]


def test_beside_them_there_may_be_ranks_as_well(told):
    assert [each[:2] for each in told["beside"]] == [[rank, 3] for rank in range(3)]


def test_workers_that_are_no_ranks_are_refused(two_workers: tuple[Cluster, Client]):
    _, client = two_workers
    with pytest.raises(WorldFailed) as told:
        mpi.run(ranks.total, client.map(lambda n: n, range(4)), in_process=True, client=client)
    assert "no rank of an MPI program" in str(told.value)
    assert "without it, the ranks run beside any workers" in str(told.value).splitlines()[-1]


WORKER = """
import asyncio, sys
from mpi4py import MPI
from distributed import Worker
async def serve():
    worker = await Worker(sys.argv[1], host="127.0.0.1", name=sys.argv[2], nthreads=1)
    await worker.finished()
if MPI.COMM_WORLD.Get_rank() == int(sys.argv[3]):
    asyncio.run(serve())
else:
    sys.stdin.read()
MPI.COMM_WORLD.Abort()
"""


def test_workers_of_two_mpi_programs_are_refused(a_cluster: Callable[..., tuple[Cluster, Client]]):
    """Rank 0 of one and rank 1 of the other look as if they belonged together."""
    cluster, client = a_cluster(0)
    mpiexec = str(Path(sys.executable).with_name("mpiexec"))
    programs = []
    try:
        for rank in (0, 1):
            argv = [mpiexec, "-n", "2", sys.executable, "-c", WORKER, cluster.scheduler, f"of-{rank}", str(rank)]
            programs.append(subprocess.Popen(argv, stdin=subprocess.PIPE))
        client.wait_for_workers(2, timeout=WITHIN_S)
        futures = client.map(lambda n: n, range(2))
        with pytest.raises(WorldFailed) as told:
            mpi.run(ranks.total, futures, in_process=True, workers=["of-0", "of-1"], client=client)
        assert "not of one MPI world" in str(told.value)
    finally:
        running = [child.pid for program in programs for child in psutil.Process(program.pid).children(recursive=True)]
        segments = segments_of(running)
        client.retire_workers(list(client.nthreads()))
        for program in programs:
            assert program.stdin
            program.stdin.close()
            program.terminate()
            program.wait(WITHIN_S)
        for path in segments:  # MPICH leaves them when it is ended
            Path(path).unlink(missing_ok=True)

"""MPI worlds beside the workers of a session on a real Slurm: several hosts, and workers from different jobs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from minihpc.cluster import NODES, Cluster
from sites import Site
from waiting import until

pytestmark = pytest.mark.cluster()

SUMS = """
import json, os, socket
import dask.array as da
import numpy as np
import hpclab
from hpclab import mpi

def sums(chunks, comm):
    own, whole = np.array([sum(float(chunk.sum()) for chunk in chunks)]), np.zeros(1)
    comm.Allreduce(own, whole)
    # what is too much for a message that goes along at once
    left = comm.sendrecv(np.full(2**18, comm.rank), (comm.rank + 1) % comm.size, source=(comm.rank - 1) % comm.size)
    return socket.gethostname(), comm.rank, comm.size, whole[0], int(left[0]), len(chunks)

client = hpclab.SessionCluster().get_client()
x = da.arange(1_000_000, chunks=50_000).persist()
for _ in range(3):
    found = mpi.run(sums, x, timeout_s=60)
print(json.dumps(found))
"""
FAILS = """
import json, os, signal, time
import dask.array as da
import hpclab
from hpclab import mpi

def fails(chunks, comm):
    if comm.rank == comm.size - 1:
        os.kill(os.getpid(), signal.SIGKILL)
    comm.Barrier()

client = hpclab.SessionCluster().get_client()
x = da.arange(1_000_000, chunks=50_000).persist()
began = time.monotonic()
try:
    mpi.run(fails, x)
except mpi.RankFailed as error:
    print(json.dumps([error.rank, str(error), time.monotonic() - began]))
"""


@pytest.fixture(scope="module")
def site(a_slurm_cluster: Cluster) -> Iterator[Site]:
    """With a session of four workers in four jobs, on all three nodes."""
    site = Site("slurm", a_slurm_cluster)
    # five cores of sixteen: no node has room for all
    site.start("calm-otter", "--cores", "7", "--memory", "300M")
    site.hpclab("add-worker", "-s", "calm-otter", "-n", "3")
    site.wait_for_workers("calm-otter", 4)
    yield site
    site.hpclab("stop", "calm-otter")
    site.nothing_is_left()


def no_ranks_are_left(site: Site) -> None:
    for host in NODES:
        node = site.cluster.on(host)
        until(
            lambda node=node: not [p for p in node.processes() if "mpi.rank" in p], what=f"the end of ranks on {host}"
        )


def check(found: list[Any]) -> None:
    assert [rank for _, rank, *_ in found] == [0, 1, 2, 3]
    assert {(size, whole) for _, _, size, whole, _, _ in found} == {(4, 499999500000.0)}
    assert [left for *_, left, _ in found] == [3, 0, 1, 2]
    assert sum(chunks for *_, chunks in found) == 20
    assert len({host for host, *_ in found}) >= 2


def test_workers_from_different_jobs_on_several_hosts_become_one_world(site: Site) -> None:
    jobs = {job["id"]: job["node"] for job in site.status("calm-otter")["jobs"]}
    assert len(jobs) == 4
    assert len(set(jobs.values())) >= 2
    check(site.python("login", SUMS, timeout_s=120))
    no_ranks_are_left(site)


def test_a_rank_that_is_killed_ends_those_on_other_hosts(site: Site) -> None:
    rank, message, took_s = site.python("login", FAILS, timeout_s=120)
    assert rank == 3
    assert "was killed by signal 9 (SIGKILL)" in message
    assert took_s < 20
    no_ranks_are_left(site)
    assert site.status("calm-otter")["workers"]["joined"] == 4

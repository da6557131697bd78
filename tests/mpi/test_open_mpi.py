"""Open MPI, whose ranks its own mpiexec brings together: the same runs and faults as with MPICH, and nothing left."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import until

from hpclab import mpi
from hpclab.errors import RankFailed, WorldFailed
from mpi import ranks
from mpi.cluster import a_cluster_of
from mpi.open_mpi import ENVIRON, OPEN_MPI
from mpi.test_program import Make, Workers, fails, some_data


@pytest.fixture(scope="module")
def three_workers(a_source_of_workers: subprocess.Popen[str]) -> Iterator[Workers]:
    assert (OPEN_MPI / "lib/libmpi.so").exists(), "scripts/test installs it"
    with a_cluster_of(a_source_of_workers, 3, environ=ENVIRON) as cluster, cluster.client() as client:
        yield cluster, client


@pytest.fixture
def nothing_left(three_workers: Workers) -> Iterator[None]:
    """No process; no folder of ours, of PRRTE's or Open MPI's."""
    cluster, _ = three_workers
    yield
    cluster.wait_no_ranks()
    until(lambda: not list(cluster.temporary.iterdir()), within_s=10, what="its temporary folders to go")


@pytest.fixture
def eight_workers(a_source_of_workers: subprocess.Popen[str]) -> Iterator[Workers]:
    with a_cluster_of(a_source_of_workers, 8, environ=ENVIRON) as cluster, cluster.client() as client:
        yield cluster, client


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_world_of_so_many_ranks(three_workers: Workers, size: int) -> None:
    cluster, client = three_workers
    told = mpi.run(ranks.library, some_data(client), client=client, workers=list(cluster.pids)[:size])
    assert [each[1:] for each in told] == [(rank, size, 60.0) for rank in range(size)]
    assert all(each[0].startswith("Open MPI") for each in told)


def test_a_world_of_eight_ranks(eight_workers: Workers) -> None:
    cluster, client = eight_workers
    told = mpi.run(ranks.library, some_data(client, chunks=16), client=client)
    assert [each[1:] for each in told] == [(rank, 8, 160.0) for rank in range(8)]
    cluster.wait_no_ranks()


@pytest.mark.usefixtures("nothing_left")
def test_what_is_printed_comes_marked(three_workers: Workers, capfd: pytest.CaptureFixture[str]) -> None:
    _, client = three_workers
    mpi.run(ranks.speaks, some_data(client), client=client)
    out, err = capfd.readouterr()
    for rank in range(3):
        said = {f"[{rank}] python speaks at {rank}", f"[{rank}] C speaks at {rank}", f"[{rank}] so does a shell"}
        assert said == {line for line in out.splitlines() if line.startswith(f"[{rank}]")}
        assert f"[{rank}] and complains at {rank}" in err


@pytest.mark.usefixtures("nothing_left")
def test_an_exception(three_workers: Workers) -> None:
    _, client = three_workers

    def raises(chunks: Any, comm: Any) -> None:
        ranks.fails_with(ranks.OfTheCaller(7, "oh"), chunks, comm)

    error = fails(client, raises)
    assert isinstance(error, RankFailed)
    assert (error.rank, error.host) == (1, os.uname().nodename)
    assert isinstance(error.__cause__, ranks.OfTheCaller)


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize(
    ("function", "told"), [(ranks.crashes, "SIGSEGV"), (ranks.aborts, "MPI_Abort"), (ranks.exits, "called sys.exit(3)")]
)
def test_a_rank_that_ends(three_workers: Workers, function: Any, told: str) -> None:
    cluster, client = three_workers
    error = fails(client, function)
    assert "rank 1 of 3" in str(error)
    assert told in str(error)
    assert set(client.nthreads()) == set(cluster.pids)


@pytest.mark.usefixtures("nothing_left")
def test_a_rank_that_never_returns(three_workers: Workers) -> None:
    _, client = three_workers
    error = fails(client, ranks.never_returns, timeout_s=0.5)
    assert "deep_inside" in str(error)


@pytest.mark.usefixtures("nothing_left")
def test_no_shared_memory_is_left(three_workers: Workers, tmp_path: Path) -> None:
    _, client = three_workers
    for how in ("", "raise", "kill"):
        with contextlib.suppress(RankFailed):
            mpi.run(ranks.marks_its_memory, some_data(client), str(tmp_path), how, client=client)
    used = {path for told in tmp_path.iterdir() for path in told.read_text().split()}
    assert len(list(tmp_path.iterdir())) == 9
    assert used, "Open MPI has used shared memory"
    assert [path for path in used if Path(path).exists()] == []


def test_another_mpi_beside_one_worker(a_cluster: Make) -> None:
    """They do not talk to each other, and it is told which are where."""
    cluster, _ = a_cluster(1)
    cluster.add(environ=ENVIRON)
    with cluster.client() as client:
        error = fails(client, ranks.total)
    assert isinstance(error, WorldFailed)
    assert "different MPI libraries" in str(error)
    assert "Open MPI" in str(error)
    assert "MPICH" in str(error)


@pytest.fixture
def a_launcher_that_launches_nothing(three_workers: Workers, tmp_path: Path) -> Iterator[None]:
    """As where its daemons do not find each other; and nobody waits a minute for it."""
    _, client = three_workers
    mpiexec = tmp_path / "mpiexec"
    version = "[ $1 = --version ] && exec echo 'mpirun (Open MPI) 5.0.8'"
    mpiexec.write_text(f"#!/bin/sh\n{version}\necho looking for the daemons\nexec sleep 60\n")
    mpiexec.chmod(0o755)

    def change(**values: Any) -> dict[str, Any]:
        from hpclab.mpi import seat

        before = {name: getattr(seat, name) for name in values}
        vars(seat).update(values)
        return before

    before = client.run(change, find_mpiexec=eval(f"lambda path: {str(mpiexec)!r}"), WORLD_WITHIN_S=4)
    yield
    client.run(change, **next(iter(before.values())))


@pytest.mark.usefixtures("nothing_left", "a_launcher_that_launches_nothing")
def test_ranks_that_are_never_launched(three_workers: Workers) -> None:
    _, client = three_workers
    told = str(fails(client, ranks.total))
    assert "rank 0 of 3 on " in told
    assert "was not launched within 4 s\n    looking for the daemons\n" in told

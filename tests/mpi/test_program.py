"""Runs with real MPI beside real Dask workers: what comes back, how they fail, and that nothing stays."""

from __future__ import annotations

import functools
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import psutil
import pytest
from dask.highlevelgraph import HighLevelGraph
from distributed import Client, Future, get_client, get_worker
from waiting import until

from hpclab import mpi
from hpclab.errors import ConfigError, DataLost, HpclabError, RankFailed, WorkerLost, WorldFailed
from mpi import ranks
from mpi.cluster import Cluster, descriptors_of

SOON_S = 30
Workers = tuple[Cluster, Client]
Make = Callable[..., Workers]


def some_data(client: Client, chunks: int = 6) -> da.Array:
    """Ones, held by all workers, in turn; Dask can compute them again."""
    workers = list(client.nthreads())
    ones = [
        client.submit(np.ones, 10, workers=[workers[k % len(workers)]], allow_other_workers=True, pure=False)
        for k in range(chunks)
    ]
    name = f"ones-of-{ones[0].key}"
    graph = HighLevelGraph.from_collections(name, {(name, k): future for k, future in enumerate(ones)})
    with client.as_current():
        return da.Array(graph, name, chunks=((10,) * chunks,), dtype=float).persist()


def fails(client: Client, function: Callable[..., Any], *args: Any, **options: Any) -> HpclabError:
    """How a run of it does; every failure says in its last line what to do, or what happened."""
    began = time.monotonic()
    with pytest.raises(HpclabError) as told:
        mpi.run(function, some_data(client), *args, client=client, **options)
    assert time.monotonic() - began < SOON_S
    return told.value


@pytest.mark.parametrize("size", [1, 3, 8])
def test_a_world_of_so_many_ranks(a_cluster: Make, size: int) -> None:
    _, client = a_cluster(size)
    x = some_data(client, 2 * size)
    assert mpi.run(ranks.total, x, 3, client=client) == [(rank, size, 60.0 * size) for rank in range(size)]


def test_five_ranks_get_what_their_workers_hold(a_cluster: Make) -> None:
    _, client = a_cluster(5)
    whole = np.arange(20 * 14).reshape(20, 14)
    with client.as_current():
        x = da.from_array(whole, chunks=(4, 7)).persist()
    places = mpi.local_parts(client, x)

    def shows(chunks: Any, comm: Any) -> Any:
        return chunks.indices, chunks.slices, chunks.shape, chunks.numblocks, list(chunks)

    told = mpi.run(shows, x, client=client)
    assert len(told) == len(places) == 5
    assert sorted(index for indices, *_ in told for index in indices) == list(np.ndindex(5, 2))
    for indices, slices, shape, numblocks, chunks in told:
        assert (shape, numblocks) == ((20, 14), (5, 2))
        assert list(indices) == sorted(indices)
        for place, chunk in zip(slices, chunks, strict=True):
            np.testing.assert_array_equal(chunk, whole[place])


def test_dataframes_and_arguments_that_are_futures(two_workers: Workers) -> None:
    _, client = two_workers
    frame = dd.from_pandas(pd.DataFrame({"word": list("abcdef"), "n": range(6)}), npartitions=3)

    def words(chunks: Any, comm: Any, ending: str, more: list[int]) -> str:
        return "".join(word + ending for chunk in chunks for word in chunk["word"]) + str(sum(more))

    ending, more = client.submit(lambda: "!"), client.scatter([1, 2, 3])
    told = mpi.run(words, frame[frame.n > 1], ending, more, client=client)
    assert sorted("".join(told)) == sorted("c!d!e!f!" + "6" * len(told))


def test_results_that_stay_on_the_workers(two_workers: Workers) -> None:
    _, client = two_workers
    x = some_data(client)
    y = mpi.run(ranks.doubled, x, collect=False, client=client)
    assert [type(future) for future in y] == [Future, Future]
    with client.as_current():
        assert y.array().compute().tolist() == [2.0] * 60
        # theirs were copies
        assert x.compute().tolist() == [1.0] * 60
        assert y.array().chunks == x.chunks
    assert [chunk.sum() for chunk in client.gather(y.chunks)] == [20.0] * 6


def test_results_that_are_no_chunks_say_so(two_workers: Workers) -> None:
    _, client = two_workers
    with client.as_current():
        x = da.ones((4, 6), chunks=(2, 3)).persist()

    def says(chunks: Any, comm: Any, what: str) -> Any:
        return {"numbers": [0] * len(chunks), "one": 1, "rows": [chunk.sum(axis=0) for chunk in chunks]}[what]

    with pytest.raises(ConfigError, match="not a chunk for each"):
        _ = mpi.run(says, x, "one", collect=False, client=client).chunks
    with pytest.raises(ConfigError, match="is no array"):
        mpi.run(says, x, "numbers", collect=False, client=client).array()
    with pytest.raises(ConfigError, match="take `chunks`"):
        mpi.run(says, x, "rows", collect=False, client=client).array()


def test_cores_of_the_worker_are_the_ranks(a_cluster: Make) -> None:
    _, client = a_cluster(1, nthreads=3, environ={"OMP_NUM_THREADS": "1"})
    ((threads, _),) = mpi.run(ranks.environment, some_data(client), client=client)
    assert threads == "3"


# what ranks print


def test_what_is_printed_comes_marked(two_workers: Workers, capfd: pytest.CaptureFixture[str]) -> None:
    """By Python, by C, and by what they start."""
    _, client = two_workers
    mpi.run(ranks.speaks, some_data(client), client=client)
    out, err = capfd.readouterr()
    for rank in range(2):
        lines = [line for line in out.splitlines() if line.startswith(f"[{rank}] ")]
        said = {f"[{rank}] python speaks at {rank}", f"[{rank}] C speaks at {rank}", f"[{rank}] so does a shell"}
        assert set(lines) == said
        assert f"[{rank}] and complains at {rank}" in err.splitlines()


def test_of_too_much_the_begin_and_the_end_are_shown(a_cluster: Make, capfd: pytest.CaptureFixture[str]) -> None:
    _, client = a_cluster(1)
    mpi.run(ranks.speaks_much, some_data(client), client=client)
    out = capfd.readouterr().out
    assert 2**20 < len(out) < 2**21
    assert "bytes left out" in out
    numbers = [int(line.split()[2]) for line in out.splitlines() if line.startswith("[0] line")]
    assert numbers[:3] == [0, 1, 2]
    assert numbers[-1] == 59_999


def test_a_gigabyte_of_output_is_no_burden(a_cluster: Make, capfd: pytest.CaptureFixture[str]) -> None:
    cluster, client = a_cluster(1)
    (worker,) = (psutil.Process(pid) for pid in cluster.pids.values())
    before = worker.memory_info().rss
    mpi.run(ranks.speaks_a_gigabyte, some_data(client), client=client)
    out = capfd.readouterr().out
    assert len(out) < 2**21
    left_out = re.search(r"([\d,]+) bytes left out", out)
    assert left_out
    assert int(left_out[1].replace(",", "")) > 0.99e9
    assert out.endswith("[0] the last line\n")
    assert worker.memory_info().rss < before + 100e6


# how they fail


def test_an_exception_arrives_with_rank_host_and_traceback(two_workers: Workers) -> None:
    _, client = two_workers
    error = fails(client, functools.partial(ranks.fails_with, ranks.OfTheCaller(7, "oh")))
    assert isinstance(error, RankFailed)
    assert (error.rank, error.host, error.kind) == (1, os.uname().nodename, "raised")
    assert isinstance(error.__cause__, ranks.OfTheCaller)
    assert error.__cause__.number == 7
    assert "ranks.py" in str(error)
    assert "fails_with" in str(error)
    assert "hpclab/mpi/rank.py" not in str(error)


def test_what_the_user_has_in_shared_memory_stays_there(two_workers: Workers) -> None:
    _, client = two_workers
    with tempfile.NamedTemporaryFile(dir="/dev/shm", prefix="table-") as table:
        table.write(b"7" * 4096)
        table.flush()
        assert "no column 55" in str(fails(client, ranks.reads_shared_memory_and_fails, table.name))
        assert Path(table.name).exists()


def test_a_function_that_went_by_pickle_shows_its_lines(two_workers: Workers) -> None:
    _, client = two_workers

    def diverges(chunks: Any, comm: Any) -> None:
        if comm.Get_rank() == 1:
            raise FloatingPointError  # here
        comm.Barrier()

    text = str(fails(client, diverges))
    assert re.search(rf'File "{__file__}", line \d+, in diverges\n +raise FloatingPointError  # here\n', text), text


@pytest.mark.parametrize("kind", [ranks.Unpicklable, functools.partial(ranks.Unopenable, 1, "text")])
def test_one_that_cannot_be_sent_arrives_as_text(two_workers: Workers, kind: Callable[[], Exception]) -> None:
    _, client = two_workers

    def raises(chunks: Any, comm: Any) -> None:
        ranks.fails_with(kind(), chunks, comm)

    error = fails(client, raises)
    assert error.__cause__ is None
    assert type(kind()).__name__ in str(error)


def test_one_with_a_very_long_story(two_workers: Workers) -> None:
    _, client = two_workers
    error = fails(client, ranks.raises_a_long_story)
    assert "the end" in str(error)


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (ranks.crashes, "killed by signal 11 (SIGSEGV)"),
        (ranks.is_killed, "killed by signal 9 (SIGKILL), as the system does when memory runs out"),
        (ranks.aborts, "called MPI_Abort, with 13"),
        (ranks.exits, "called sys.exit(3)"),
        (functools.partial(ranks.exits_at_once, status=0), "ended with exit status 0, before"),
        (functools.partial(ranks.exits_at_once, status=5), "ended with exit status 5, before"),
    ],
    ids=["segv", "kill", "abort", "sys.exit", "_exit 0", "_exit 5"],
)
def test_a_rank_that_ends(two_workers: Workers, function: Callable[..., Any], told: str) -> None:
    """It takes the others with it, and no worker."""
    cluster, client = two_workers
    error = fails(client, function)
    assert isinstance(error, RankFailed)
    assert error.rank == 1
    assert f"rank 1 of 2 on {os.uname().nodename}" in str(error)
    assert told in str(error)
    if function is ranks.crashes:
        assert "these are its last words" in str(error)
    assert set(client.nthreads()) == set(cluster.pids)
    cluster.wait_no_ranks()


def test_a_rank_that_never_returns(two_workers: Workers) -> None:
    cluster, client = two_workers
    error = fails(client, ranks.never_returns, timeout_s=0.5)
    assert "rank 1 of 2" in str(error)
    assert "had not ended after 0.5 s" in str(error)
    assert "deep_inside" in str(error)
    cluster.wait_no_ranks()


def test_a_deadlock(two_workers: Workers, capfd: pytest.CaptureFixture[str]) -> None:
    """The other rank has returned, and waits for the end; it is ended without having crashed of that."""
    cluster, client = two_workers
    error = fails(client, ranks.is_deadlocked, timeout_s=0.5)
    assert "is_deadlocked" in str(error)
    cluster.wait_no_ranks()
    assert "Fatal" not in capfd.readouterr().err


def test_a_function_that_cannot_be_sent(two_workers: Workers) -> None:
    _, client = two_workers
    lock = threading.Lock()
    for function in (lambda chunks, comm: lock, "no function"):
        with pytest.raises(ConfigError):
            mpi.run(function, some_data(client), client=client)


def test_options_that_there_are_none_of(two_workers: Workers) -> None:
    _, client = two_workers
    with pytest.raises(TypeError, match="timeout"):
        mpi.run(ranks.total, some_data(client), client=client, timeout=3)
    with pytest.raises(TypeError):
        mpi.run(ranks.total, client=client)


def test_results_that_cannot_be_sent(two_workers: Workers) -> None:
    _, client = two_workers
    error = fails(client, ranks.returns_a_generator)
    assert "rank 1" in str(error)
    assert "returned a generator, which cannot be pickled" in str(error)


def test_results_of_a_class_that_the_workers_cannot_import(two_workers: Workers) -> None:
    _, client = two_workers
    error = fails(client, ranks.returns_a_thing)
    assert "cannot open: ModuleNotFoundError: No module named" in str(error)


def test_more_data_than_memory_is_refused_before_any_of_it_is_copied(a_cluster: Make) -> None:
    cluster, client = a_cluster(1, memory_limit=400 * 2**20)
    with client.as_current():
        x = da.ones(30 * 2**20, chunks=2**20).persist()
    with pytest.raises(RankFailed) as told:
        mpi.run(ranks.total, x, client=client)
    assert told.value.kind == "room"
    assert "240 MiB are needed" in str(told.value)
    cluster.wait_no_ranks()


def stubborn_world(cluster: Cluster, folder: Path, name: str, text: str) -> dict[str, str]:
    """The environment of a worker whose ranks find this in place of a module."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(text)
    return {"PYTHONPATH": str(folder)}


def test_mpi4py_absent_beside_one_worker(a_cluster: Make, tmp_path: Path) -> None:
    cluster, _ = a_cluster(1)
    cluster.add(environ=stubborn_world(cluster, tmp_path, "mpi4py", "raise ModuleNotFoundError('No module mpi4py')"))
    with cluster.client() as client:
        error = fails(client, ranks.total)
    assert isinstance(error, WorldFailed)
    assert "has no MPI: No module mpi4py" in str(error)
    assert "pip install" in str(error).splitlines()[-1]


def test_a_world_of_one_is_told_and_never_silently_wrong(a_cluster: Make, tmp_path: Path) -> None:
    """What an MPI library of another family does: it does not know of the others."""
    text = """if True:
        import os
        for name in ("PMI_FD", "PMI_RANK", "PMI_SIZE"):
            os.environ.pop(name, None)
        class Alone(dict):
            def __or__(self, other): return self
            def __ior__(self, other): return self
        os.environ = Alone(os.environ)
        __path__ = [p for p in __import__("sys").path if os.path.isdir(p + "/mpi4py") and p not in %r]
        __path__ = [p + "/mpi4py" for p in __path__]
        exec(open(__path__[0] + "/__init__.py").read())
    """ % [str(tmp_path)]
    _, client = a_cluster(2, environ=stubborn_world(Cluster, tmp_path, "mpi4py", text))
    error = fails(client, ranks.total)
    assert isinstance(error, WorldFailed)
    assert "found itself in a world of 1" in str(error)


# workers that are lost


def test_a_worker_killed_in_the_middle(a_cluster: Make, tmp_path: Path) -> None:
    cluster, client = a_cluster(2)
    x = some_data(client)
    failed: list[BaseException] = []

    def run() -> None:
        try:
            mpi.run(ranks.says_where_it_is_and_stays, x, str(tmp_path), client=client)
        except BaseException as error:
            failed.append(error)

    running = threading.Thread(target=run)
    running.start()
    until(lambda: len(list(tmp_path.glob("[0-9]*"))) == 2, what="both to be there")
    gone = next(iter(cluster.pids))
    cluster.kill(gone)
    running.join(SOON_S)
    assert isinstance(failed[0], WorkerLost)
    assert gone in str(failed[0])
    cluster.wait_no_ranks()


def test_retries_run_on_the_workers_that_are_left(
    a_cluster: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Dask computes again what was lost."""
    cluster, client = a_cluster(3)
    x = some_data(client)

    def kills_its_worker_once(chunks: Any, comm: Any, folder: str) -> float:
        size = comm.Get_size()
        if size == 3 and comm.Get_rank() == 1:
            status = Path(f"/proc/{os.getppid()}/status").read_text()
            os.kill(int(status.partition("PPid:")[2].split()[0]), signal.SIGKILL)
        comm.Barrier()
        return size, comm.allreduce(float(sum(chunk.sum() for chunk in chunks)))

    told = mpi.run(kills_its_worker_once, x, str(tmp_path), retries=1, client=client)
    assert told == [(2, 60.0)] * 2
    assert "trying again" in capsys.readouterr().err
    until(lambda: len(client.nthreads()) == 2, what="Dask to notice")
    for address in set(cluster.pids) - set(client.nthreads()):
        del cluster.pids[address]


def test_results_whose_worker_is_lost_say_so(a_cluster: Make) -> None:
    """Instead of being computed again, alone, for ever."""
    cluster, client = a_cluster(2)
    y = mpi.run(ranks.doubled, some_data(client), collect=False, client=client)
    ((gone,),) = client.who_has([y[1]]).values()
    cluster.kill(gone)
    until(lambda: gone not in client.nthreads(), what="Dask to notice")
    with pytest.raises(WorkerLost, match="rank 1 is gone, and its result with it"):
        y[1].result(SOON_S)
    assert y[0].result(SOON_S)


def test_data_that_is_lost_before_the_run(a_cluster: Make) -> None:
    cluster, client = a_cluster(2)
    gone = next(iter(client.nthreads()))
    futures = [client.scatter(np.ones(3), workers=[gone])]
    cluster.kill(gone)
    with pytest.raises((DataLost, WorkerLost)):
        mpi.run(ranks.total, futures, client=client)


# callers


def test_two_runs_at_once_do_not_mix(two_workers: Workers) -> None:
    """Nor do they wait for each other: on workers with one thread, each rank of one run waits for the other run."""
    cluster, client = two_workers
    x = some_data(client)
    told: dict[int, Any] = {}

    def meets(chunks: Any, comm: Any, number: int, other: int) -> Any:
        folder = Path(os.environ["TMPDIR"])
        mine, theirs = (folder / f"{n}-{comm.Get_rank()}" for n in (number, other))
        mine.touch()
        while not theirs.exists():
            time.sleep(0.01)
        total = ranks.total(chunks, comm, number)
        comm.Barrier()
        return total

    def run(number: int, other: int) -> None:
        told[number] = mpi.run(meets, x, number, other, client=client, timeout_s=SOON_S)

    threads = [threading.Thread(target=run, args=numbers) for numbers in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * SOON_S)
    for mark in cluster.temporary.glob("?-?"):
        mark.unlink()
    assert told == {n: [(rank, 2, n * 60.0) for rank in range(2)] for n in (1, 2)}


def test_workers_that_are_busy(a_cluster: Make) -> None:
    """A run takes its turn, and is not in others' way."""
    _, client = a_cluster(2)
    x = some_data(client)
    others = client.map(lambda n: (time.sleep(0.02), n)[1], range(40), pure=False)
    assert len(mpi.run(ranks.total, x, client=client)) == 2
    assert client.gather(others) == list(range(40))


def test_a_run_from_within_a_task_of_dask(a_cluster: Make) -> None:
    """Even where the task has the only thread of its worker."""
    _, client = a_cluster(2)

    def task() -> Any:
        here, own = get_client(), get_worker().address
        futures = here.scatter([np.ones(10), np.ones(20)], workers=[own])
        return mpi.run(lambda chunks, comm: (comm.Get_size(), sum(c.sum() for c in chunks)), futures)

    assert client.submit(task).result(SOON_S) == [(1, 30.0)]


CALLER = """
import sys
sys.path[:0] = {path!r}
from distributed import Client
from hpclab import mpi
from mpi import ranks
client = Client({scheduler!r})
futures = client.map(lambda n: n, range(4), pure=False)
print("begins", flush=True)
mpi.run(ranks.says_where_it_is_and_stays, futures, {folder!r})
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
def test_a_caller_who_ends_takes_the_ranks_along(two_workers: Workers, tmp_path: Path, number: signal.Signals) -> None:
    cluster, _ = two_workers
    (tmp_path / "ranks").mkdir()
    path = [str(Path(__file__).parent.parent)]
    program = CALLER.format(path=path, scheduler=cluster.scheduler, folder=str(tmp_path / "ranks"))
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as caller:
        until(lambda: len(list((tmp_path / "ranks").glob("[0-9]*"))) == 2, what="both to be there")
        assert len(cluster.ranks()) >= 2
        caller.send_signal(number)
        _, err = caller.communicate(timeout=SOON_S)
    assert caller.returncode in (-number, 1)
    if number == signal.SIGINT:
        assert b"KeyboardInterrupt" in err
    cluster.wait_no_ranks(SOON_S)


# nothing is left


def belongings(cluster: Cluster) -> dict[str, int]:
    """Of all workers: open descriptors, threads, children, sockets."""
    processes = [psutil.Process(pid) for pid in cluster.pids.values()]
    return {
        "descriptors": sum(descriptors_of(process.pid) for process in processes),
        "threads": sum(process.num_threads() for process in processes),
        "children": sum(len(process.children(recursive=True)) for process in processes),
    }


def test_ten_runs_leave_everything_as_it_was(a_cluster: Make, tmp_path: Path) -> None:
    cluster, client = a_cluster(2)
    x = some_data(client)

    def run(fails: str) -> None:
        try:
            mpi.run(ranks.marks_its_memory, x, str(tmp_path), fails, client=client)
            assert not fails
        except RankFailed:
            assert fails

    run("")
    run("raise")
    before = belongings(cluster)
    for fails in ["", "raise", "", "kill", ""] * 2:
        run(fails)
    # Dask gives threads up when their time comes
    until(lambda: all(n <= before[what] for what, n in belongings(cluster).items()), what="all to be as before")
    segments = {path for told in tmp_path.iterdir() for path in told.read_text().split()}
    assert len(list(tmp_path.iterdir())) == 24
    assert segments, "MPI has used shared memory"
    assert [path for path in segments if Path(path).exists()] == []


@pytest.mark.parametrize(
    "what",
    [
        "closes its stdout",
        "takes its signals",
        "goes elsewhere",
        "ends MPI",
        "leaves a daemon",
        "leaves a child",
        "forks and comes back twice",
        "leaves a thread",
        "asks for more ranks",
        "sends from threads",
    ],
)
def test_an_unruly_guest(two_workers: Workers, what: str) -> None:
    cluster, client = two_workers
    assert mpi.run(ranks.is_an_unruly_guest, some_data(client), what, client=client) == [0, 1]
    cluster.wait_no_ranks()


def test_many_small_chunks(a_cluster: Make) -> None:
    _, client = a_cluster(1)
    futures = client.submit(lambda: [np.full(3, n) for n in range(20_000)])
    assert mpi.run(lambda chunks, comm: sum(int(a[0]) for a in chunks[0]), [futures], client=client) == [199_990_000]


def test_chunks_that_share_memory(two_workers: Workers) -> None:
    _, client = two_workers
    first = next(iter(client.nthreads()))
    base = client.submit(lambda: np.arange(1000.0), workers=[first])
    views = client.map(lambda whole, n: whole[n:], [base] * 3, [0, 1, 2], workers=[first])

    def change(chunks: Any, comm: Any) -> Any:
        chunks[0][:] = 0
        return [float(chunk.sum()) for chunk in chunks]

    ((zero, one, two),) = mpi.run(change, views, client=client)
    assert zero == 0
    assert re.fullmatch(r"\d+\.0", str(one + two))


def test_the_scheduler_keeps_nothing_of_what_ranks_have_printed(a_cluster: Make) -> None:
    _, client = a_cluster(2)

    def kept() -> int:
        """Events of ours that whoever asks later would be told."""
        told: dict[str, int] = client.run_on_scheduler(
            lambda dask_scheduler: {name: len(topic.events) for name, topic in dask_scheduler._broker._topics.items()}
        )
        return sum(number for name, number in told.items() if name.startswith("hpclab-mpi"))

    mpi.run(ranks.speaks, some_data(client), client=client)
    assert kept() == 0
    fails(client, ranks.fails_with, ValueError("no"))
    until(lambda: kept() == 0, what="an empty topic")

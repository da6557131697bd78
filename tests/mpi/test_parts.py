"""Which chunk is on which worker: of all that Dask has, in whatever state it is, on real workers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from distributed import Client, Future, LocalCluster, futures_of, wait
from hypothesis import given
from hypothesis import strategies as st
from waiting import until

from hpclab.errors import ConfigError, DataLost
from hpclab.mpi import Parts, local_parts
from hpclab.mpi.parts import Collection, assigned, share
from mpi.cluster import Cluster


@pytest.fixture(scope="module")
def a_client() -> Iterator[Client]:
    """Of three workers, which have names as well."""
    options = {"processes": True, "dashboard_address": None, "silence_logs": 50}
    with (
        LocalCluster(n_workers=3, threads_per_worker=1, memory_limit=0, **options) as cluster,
        Client(cluster) as client,
    ):
        yield client


def values(client: Client, parts: dict[str, Parts]) -> dict[tuple[int, ...], Any]:
    """By index; seen where it was told that they are."""
    found = {}
    for address, part in parts.items():
        there = client.who_has(list(part))
        assert all(address in there[future.key] for future in part)
        found |= dict(zip(part.indices, client.gather(list(part)), strict=True))
    return found


@pytest.mark.parametrize(
    ("shape", "chunks"), [((), ()), ((7,), (3,)), ((6, 8), (3, 2)), ((4, 3, 5), (2, 3, 2)), ((5,), (5,)), ((0,), (0,))]
)
def test_arrays(a_client, shape, chunks):
    whole = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    x = da.from_array(whole, chunks=chunks)
    parts = local_parts(a_client, x)
    layout = Collection.of(a_client, x).layout
    found = values(a_client, parts)
    assert set(found) == set(np.ndindex(*x.numblocks))
    for index, chunk in found.items():
        np.testing.assert_array_equal(chunk, whole[layout.slices(index)])
    assert all(list(part.indices) == sorted(part.indices) for part in parts.values())


def test_an_array_that_is_held_already_is_not_computed_again(a_client):
    x = da.random.random((90,), chunks=10).persist(scheduler=a_client)
    found = values(a_client, local_parts(a_client, x))
    np.testing.assert_array_equal(np.concatenate([found[k,] for k in range(9)]), x.compute(scheduler=a_client))


def test_chunks_of_sizes_that_nobody_knows(a_client):
    x = da.arange(12, chunks=4)
    x = x[x > 5]
    assert sum(chunk.size for chunk in values(a_client, local_parts(a_client, x)).values()) == 6
    assert Collection.of(a_client, x).layout.shape == (None,)


FRAME = pd.DataFrame({"data": range(10), "dims": list("abcdefghij"), "chunks": 1.5})


def test_a_dataframe_whose_columns_have_names_like_ours(a_client):
    frame = dd.from_pandas(FRAME, npartitions=4)
    frame["doubled"] = frame["data"] * 2
    found = values(a_client, local_parts(a_client, frame))
    assert len(found) == 4
    together = pd.concat([found[k,] for k in range(4)])
    assert together["dims"].tolist() == FRAME["dims"].tolist()
    assert together["doubled"].tolist() == list(range(0, 20, 2))


def test_one_that_is_held_already(a_client):
    frame = dd.from_pandas(FRAME, npartitions=3)[["data"]].persist(scheduler=a_client)
    before = {future.key for future in futures_of(frame)}
    parts = local_parts(a_client, frame)
    assert {future.key for part in parts.values() for future in part} == before


def test_a_column(a_client):
    found = values(a_client, local_parts(a_client, dd.from_pandas(FRAME, npartitions=2)["data"]))
    assert pd.concat([found[0,], found[1,]]).tolist() == list(range(10))


def test_a_bag(a_client):
    bag = db.from_sequence(range(10), npartitions=4).map(lambda n: n * n)
    found = values(a_client, local_parts(a_client, bag))
    assert [n for k in range(len(found)) for n in found[k,]] == [n * n for n in range(10)]


def test_something_delayed(a_client):
    assert values(a_client, local_parts(a_client, dask.delayed(sum)([1, 2, 3]))) == {(0,): 6}


def test_futures_and_a_single_one(a_client):
    futures = a_client.map(lambda n: n + 100, range(5))
    assert values(a_client, local_parts(a_client, futures)) == {(n,): n + 100 for n in range(5)}
    assert values(a_client, local_parts(a_client, tuple(futures))) == {(n,): n + 100 for n in range(5)}
    assert values(a_client, local_parts(a_client, futures[3])) == {(0,): 103}


def test_the_same_future_twice_is_two_chunks(a_client):
    (future,) = a_client.map(lambda n: n, [7])
    assert values(a_client, local_parts(a_client, [future, future])) == {(0,): 7, (1,): 7}


class ArrayWithNames:
    """As xarray's DataArray is: a collection of Dask by way of the array that is its `data`."""

    def __init__(self, data: da.Array) -> None:
        self._data = data

    @property
    def data(self) -> da.Array:
        return self._data

    @property
    def chunks(self) -> Any:
        return self._data.chunks

    def __dask_graph__(self) -> Any:
        return self._data.__dask_graph__()

    def __dask_keys__(self) -> Any:
        return self._data.__dask_keys__()


def test_an_array_of_xarray(a_client):
    x = ArrayWithNames(da.arange(12, chunks=4))
    found = values(a_client, local_parts(a_client, x))
    assert [found[k,].tolist() for k in range(3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_each_chunk_is_told_once_however_many_hold_it(a_client):
    x = da.ones(60, chunks=10).persist(scheduler=a_client)
    wait(x)
    a_client.replicate(futures_of(x))
    parts = local_parts(a_client, x)
    assert sorted(index for part in parts.values() for index in part.indices) == [(k,) for k in range(6)]
    assert sorted(len(part) for part in parts.values()) == [2, 2, 2]


def test_where_they_are_after_they_were_moved(a_client):
    first = next(iter(a_client.nthreads()))
    futures = a_client.map(lambda n: np.full(1000, n), range(9), workers=[first])
    assert list(local_parts(a_client, futures)) == [first]
    a_client.replicate(futures)
    rest = [worker for worker in a_client.nthreads() if worker != first]
    parts = local_parts(a_client, futures, workers=rest)
    assert list(parts) == rest
    values(a_client, parts)
    assert sum(len(part) for part in parts.values()) == 9


def test_workers_that_hold_nothing_are_left_out(a_client):
    second = list(a_client.nthreads())[1]
    futures = a_client.scatter([1, 2, 3], workers=[second])
    assert list(local_parts(a_client, futures)) == [second]


def test_workers_are_named_by_address_or_name(a_client):
    told = a_client.scheduler_info(n_workers=-1)["workers"]
    (first, a), (second, b), _ = [(address, each["name"]) for address, each in told.items()]
    futures = a_client.map(lambda n: n, range(4))
    for names in ([first, second], [a, b], [str(a), second]):
        parts = local_parts(a_client, futures, workers=names)
        assert list(parts) == [first, second]
        assert sorted(index for part in parts.values() for index in part.indices) == [(k,) for k in range(4)]


@pytest.mark.parametrize("workers", [[], ["no-such-worker"], [0, 0], [0, "tcp://127.0.0.1:1"], "0,1"])
def test_workers_that_are_none(a_client, workers):
    with pytest.raises(ConfigError) as told:
        local_parts(a_client, a_client.map(lambda n: n, range(4)), workers=workers)
    assert "its workers: 0, 1, 2" in str(told.value)


def hand_over(what: str) -> Callable[[], Any]:
    return {
        "nothing": lambda: None,
        "a numpy array": lambda: np.zeros(3),
        "an empty list": lambda: [],
        "a dataframe of pandas": lambda: FRAME,
        "a list of numbers": lambda: [1, 2],
        "a word": lambda: "x",
        "a generator": lambda: (n for n in range(3)),
    }[what]


@pytest.mark.parametrize(
    "what",
    [
        "nothing",
        "a numpy array",
        "an empty list",
        "a dataframe of pandas",
        "a list of numbers",
        "a word",
        "a generator",
    ],
)
def test_what_is_no_distributed_data(a_client, what):
    with pytest.raises(ConfigError) as told:
        local_parts(a_client, hand_over(what)())
    assert str(told.value).splitlines()[-1].startswith("hand over a dask array")


def test_what_a_computation_raises_is_raised(a_client):
    def fails(n: int) -> int:
        raise LookupError(f"no {n}")

    with pytest.raises(LookupError, match="no 3"):
        local_parts(a_client, a_client.map(fails, [3]))
    with pytest.raises(ZeroDivisionError):
        local_parts(a_client, da.arange(4, chunks=2).map_blocks(lambda chunk: 1 // 0, dtype=int))


def test_futures_that_were_cancelled(a_client):
    futures = a_client.map(lambda n: n, range(3, 6), pure=False)
    a_client.cancel(futures)
    with pytest.raises(DataLost) as told:
        local_parts(a_client, futures)
    assert "cancelled" in str(told.value)


def test_the_code_that_the_first_experiment_printed_fails_today_and_ours_does_not(a_client):
    """See "Running Dask and MPI programs together", 2019: `part.key` was a text then, and is a tuple now."""

    def printed_then() -> dict[str, list[Future]]:
        key_to_part_dict = {str(part.key): part for part in futures_of(x)}
        who_has = a_client.who_has(x)
        worker_map = defaultdict(list)
        for key, workers in who_has.items():
            worker_map[next(iter(workers))].append(key_to_part_dict[key])
        return worker_map

    x = da.random.random(1000, chunks=100).persist(scheduler=a_client)
    wait(x)
    with pytest.raises(KeyError):
        printed_then()
    assert len(values(a_client, local_parts(a_client, x))) == 10


# workers that are lost


def test_chunks_that_vanish_after_a_look_are_computed_again(a_cluster):
    cluster, client = a_cluster(2)
    with client.as_current():
        x = da.arange(40, chunks=4).persist()
    collection = Collection.of(client, x)
    before = assigned(client, collection)
    assert len(before) == 2
    gone, left = before
    cluster.kill(gone)
    until(lambda: list(client.nthreads()) == [left], what="Dask to notice")
    after = assigned(client, collection)
    assert list(after) == [left]
    assert [chunk.tolist() for chunk in values(client, after).values()] == [[*range(k, k + 4)] for k in range(0, 40, 4)]


def test_data_that_nobody_can_compute_again(a_cluster: Callable[..., tuple[Cluster, Client]]):
    cluster, client = a_cluster(2)
    gone, left = client.nthreads()
    futures = [client.scatter(1, workers=[gone]), client.scatter(2, workers=[left])]
    assert set(local_parts(client, futures)) == {gone, left}
    cluster.kill(gone)
    until(lambda: list(client.nthreads()) == [left], what="Dask to notice")
    with pytest.raises(DataLost) as told:
        local_parts(client, futures)
    assert repr(futures[0].key) in str(told.value)


# a choice where there is one

some_holders = st.lists(st.sets(st.sampled_from("abcd"), min_size=1).map(sorted), max_size=12)


@given(some_holders)
def test_each_chunk_stays_where_it_is(holders):
    chosen = share(holders)
    assert len(chosen) == len(holders)
    assert all(worker in held for worker, held in zip(chosen, holders, strict=True))


@given(some_holders, st.sets(st.sampled_from("abcdef"), min_size=1).map(sorted))
def test_with_workers_it_is_moved_only_where_none_of_them_has_it(holders, workers):
    for worker, held in zip(share(holders, workers), holders, strict=True):
        assert worker in workers
        assert worker in held or not set(held) & set(workers)


@given(st.integers(0, 30), st.integers(1, 5))
def test_what_all_hold_is_shared_evenly(chunks, workers):
    everybody = "abcde"[:workers]
    chosen = share([everybody] * chunks)
    counts = [chosen.count(worker) for worker in everybody]
    assert max(counts) - min(counts) <= 1

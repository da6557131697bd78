"""The heat equation of docs/examples on real ranks, wherever the blocks of the plate are, against the serial answer."""

from __future__ import annotations

import ctypes
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import dask.array as da
import heat
import numpy as np
import pytest
from distributed import Client, LocalCluster, wait

from hpclab import mpi
from hpclab.errors import RankFailed

SOURCE = Path(heat.__file__).with_suffix(".c")
STEPS = 8
COLUMNS = 23


@pytest.fixture(scope="module")
def four_workers() -> Iterator[Client]:
    with (
        LocalCluster(n_workers=4, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=50) as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.fixture
def compiled(tmp_path: Path) -> Callable[..., str]:
    """Makes a library of heat.c."""

    def compile(compiler: str, *options: str) -> str:
        beside = shutil.which(compiler, path=str(Path(sys.executable).parent))
        if not (found := beside or shutil.which(compiler)) or not shutil.which("gcc"):
            pytest.skip(f"there is no {compiler}")
        library = str(tmp_path / "libheat.so")
        how = ["-O2", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-shared", "-fPIC"]
        subprocess.run([found, *how, *options, "-o", library, str(SOURCE)], check=True)
        return library

    return compile


def a_plate(rows: int) -> np.ndarray:
    return np.random.default_rng(rows).normal(20, 5, (rows, COLUMNS))


def laid_out(client: Client, plate: np.ndarray, sizes: Sequence[int], places: Sequence[int]) -> Any:
    """The plate as a dask array: its k-th chunk has `sizes[k]` rows, and is on worker number `places[k]`."""
    workers = sorted(client.nthreads())
    name = f"plate-{random.getrandbits(64):x}"
    bounds = np.cumsum([0, *sizes])
    graph = {
        (name, k, 0): client.submit(
            np.copy, plate[bounds[k] : bounds[k + 1]], key=(name, k, 0), workers=[workers[places[k]]]
        )
        for k in range(len(sizes))
    }
    wait(list(graph.values()))
    return da.Array(graph, name, chunks=(tuple(sizes), (COLUMNS,)), dtype=plate.dtype)


@pytest.mark.parametrize(
    ("sizes", "places"),
    [
        ([41], [3]),
        ([1, 17, 2, 21], [0, 0, 0, 0]),
        ([20, 21], [0, 1]),
        ([5, 11, 3, 1, 8, 13], [0, 1, 0, 1, 0, 1]),
        ([7, 1, 19, 14], [0, 1, 2, 3]),
        ([3, 8, 1, 1, 2, 9, 1, 16], [3, 0, 3, 1, 2, 0, 0, 2]),
        ([1] * 9, [2, 1, 0, 3, 0, 1, 3, 2, 0]),
    ],
    ids=lambda values: ",".join(map(str, values)),
)
def test_blocks_anywhere_give_the_serial_answer_to_the_last_bit(
    four_workers: Client, sizes: list[int], places: list[int]
) -> None:
    plate = a_plate(sum(sizes))
    x = laid_out(four_workers, plate, sizes, places)
    held = {worker: parts.indices for worker, parts in mpi.local_parts(four_workers, x).items()}
    assert len(held) == len(set(places))
    results = mpi.run(heat.diffuse, x, STEPS, collect=False)
    assert len(results) == len(set(places))
    warm = results.array()
    assert warm.chunks == x.chunks
    np.testing.assert_array_equal(warm.compute(), heat.serial(plate, STEPS))


@pytest.mark.parametrize("seed", range(3))
def test_blocks_at_random_give_the_serial_answer(four_workers: Client, seed: int) -> None:
    rng = random.Random(seed)
    sizes = [rng.randint(1, 9) for _ in range(rng.randint(2, 12))]
    places = [rng.randrange(4) for _ in sizes]
    plate = a_plate(sum(sizes))
    x = laid_out(four_workers, plate, sizes, places)
    warm = mpi.run(heat.diffuse, x, STEPS, collect=False).array()
    np.testing.assert_array_equal(warm.compute(), heat.serial(plate, STEPS))


def test_one_step_is_what_the_equation_says() -> None:
    plate = np.zeros((5, 5))
    plate[2, 2] = 100
    expected = np.zeros((5, 5))
    expected[[1, 3, 2, 2], [2, 2, 1, 3]] = 25
    np.testing.assert_array_equal(heat.serial(plate, 1), expected)


def test_whole_numbers_and_columns_in_fortrans_order_will_do(four_workers: Client) -> None:
    plate = np.asfortranarray(a_plate(20).astype(int))
    x = laid_out(four_workers, plate, [9, 11], [0, 1])
    warm = mpi.run(heat.diffuse, x, STEPS, collect=False).array()
    expected = heat.serial(plate.astype(float), STEPS)
    np.testing.assert_array_equal(warm.compute(), expected)


def cut_across(client: Client) -> Any:
    return client.persist(da.ones((8, 8), chunks=(4, 4)))


def with_an_empty_block(client: Client) -> Any:
    return laid_out(client, a_plate(7), [4, 0, 3], [0, 1, 0])


@pytest.mark.parametrize("plate", [cut_across, with_an_empty_block])
def test_other_chunks_are_refused(four_workers: Client, plate: Callable[[Client], Any]) -> None:
    with pytest.raises(RankFailed, match="blocks of whole rows, and none may be empty") as raised:
        mpi.run(heat.diffuse, plate(four_workers), STEPS)
    assert isinstance(raised.value.__cause__, ValueError)


def test_the_step_in_c_gives_the_same_bits(four_workers: Client, compiled: Callable[..., str]) -> None:
    plate = a_plate(31)
    x = laid_out(four_workers, plate, [5, 1, 14, 11], [0, 1, 0, 2])
    warm = mpi.run(heat.diffuse_in_c, x, STEPS, compiled("gcc"), collect=False).array()
    np.testing.assert_array_equal(warm.compute(), heat.serial(plate, STEPS))


def hottest_in_c(chunks: Any, comm: Any, library: str) -> float:
    """By a C function that speaks MPI itself."""
    function = ctypes.CDLL(library).heat_hottest
    function.argtypes, function.restype = [ctypes.c_void_p, ctypes.c_long, ctypes.c_int], ctypes.c_double
    rows = np.concatenate(chunks)
    return float(function(rows.ctypes.data, rows.size, comm.py2f()))


def test_a_library_that_speaks_mpi_gets_the_communicator(four_workers: Client, compiled: Callable[..., str]) -> None:
    plate = a_plate(30)
    x = laid_out(four_workers, plate, [5, 6, 19], [0, 1, 2])
    assert mpi.run(hottest_in_c, x, compiled("mpicc", "-DWITH_MPI")) == [plate.max()] * 3

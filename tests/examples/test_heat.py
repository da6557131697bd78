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
from hpclab.mpi.chunks import Chunks, Layout

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
        ([1, 17, 2, 21], [2, 2, 2, 2]),
        ([5, 11, 3, 1, 8, 13], [0, 1, 0, 1, 0, 1]),
        ([3, 8, 1, 1, 2, 9, 1, 16], [3, 0, 3, 1, 2, 0, 0, 2]),
    ],
    ids=["1 worker", "2 workers", "4 workers"],
)
def test_from_dask_to_dask_it_is_the_serial_answer_to_the_last_bit(
    four_workers: Client, sizes: list[int], places: list[int]
) -> None:
    plate = a_plate(sum(sizes))
    x = laid_out(four_workers, plate, sizes, places)
    assert len(mpi.local_parts(four_workers, x)) == len(set(places))
    results = mpi.run(heat.diffuse, x, STEPS, collect=False)
    assert len(results) == len(set(places))
    warm = results.array()
    assert warm.chunks == x.chunks
    np.testing.assert_array_equal(warm.compute(), heat.serial(plate, STEPS))


def chunks_of(plate: np.ndarray, sizes: Sequence[int], mine: Sequence[int]) -> Chunks:
    """As a rank gets them that has the chunks of these numbers."""
    blocks = np.split(plate, np.cumsum(sizes)[:-1])
    return Chunks([blocks[k] for k in mine], [(k, 0) for k in mine], Layout.of((sizes, (plate.shape[1],))))


def differences(_: Chunks, comm: Any, layouts: Sequence[tuple[list[int], list[int]]]) -> list[Any]:
    """Of these layouts those for which this rank has something else than the serial answer."""
    wrong: list[Any] = []
    for sizes, places in layouts:
        plate = a_plate(sum(sizes))
        if len(sizes) % 2:
            plate = np.asfortranarray(plate.astype(int))
        mine = [k for k, place in enumerate(places) if place == comm.rank]
        found = heat.diffuse(chunks_of(plate, sizes, mine), comm, STEPS)
        right = chunks_of(heat.serial(plate.astype(float), STEPS), sizes, mine)
        if [block.tolist() for block in found] != [block.tolist() for block in right]:
            wrong.append((comm.rank, sizes, places))
    return wrong


def test_blocks_may_be_anywhere(four_workers: Client) -> None:
    rng = random.Random()
    layouts = [([41], [3]), ([20, 21], [1, 0]), ([1] * 9, [2, 1, 0, 3, 0, 1, 3, 2, 0]), ([2] * 8, [0, 1, 2, 3] * 2)]
    for _ in range(30):
        sizes = [rng.randint(1, 9) for _ in range(rng.randint(1, 12))]
        layouts.append((sizes, [rng.randrange(4) for _ in sizes]))
    anywhere = laid_out(four_workers, a_plate(4), [1] * 4, range(4))
    assert mpi.run(differences, anywhere, layouts) == [[]] * 4


def test_one_step_is_what_the_equation_says() -> None:
    plate = np.zeros((5, 5))
    plate[2, 2] = 100
    expected = np.zeros((5, 5))
    expected[[1, 3, 2, 2], [2, 2, 1, 3]] = 25
    np.testing.assert_array_equal(heat.serial(plate, 1), expected)


@pytest.mark.parametrize(
    "chunks",
    [Chunks([np.ones((4, 4))], [(1, 0)], Layout.of(((4, 4), (4, 4)))), chunks_of(a_plate(7), [4, 0, 3], [0, 1])],
    ids=["cut across", "with an empty block"],
)
def test_other_chunks_are_refused(chunks: Chunks) -> None:
    """At once: no other rank need be there."""
    with pytest.raises(ValueError, match="blocks of whole rows, and none may be empty"):
        heat.diffuse(chunks, None, STEPS)


def test_the_step_in_c_gives_the_same_bits(four_workers: Client, compiled: Callable[..., str]) -> None:
    plate = a_plate(31)
    x = laid_out(four_workers, plate, [5, 1, 14, 11], [0, 1, 0, 1])
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
    x = laid_out(four_workers, plate, [11, 19], [0, 1])
    assert mpi.run(hottest_in_c, x, compiled("mpicc", "-DWITH_MPI")) == [plate.max()] * 2

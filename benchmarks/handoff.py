"""A dask array into an MPI Allreduce and back, four ways: by the disk, by mpi.run, within the workers, and one memcpy.

All in one dask-mpi program of two workers, a rank each, so that they do the same work on the same data in turns. The
function looks at a little of each chunk only: what is measured is the way there and back.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import table

GIB = 2**30
CHUNKS = 16
"""Of any size, for what takes a task of Dask per chunk is not what is measured here."""
LOOK_AT = 1000
SETTLE_S = 1.0
"""Until the memory of the last turn is given back."""
WORKERS = 2
DISK_TARGET, MEMCPY_TARGET, START_TARGET_S = 0.1, 2.0, 0.5
"""The second: at most twice memcpy's time is at least half of its rate."""
BY_HAND = Path(__file__).with_name("by_hand") / "allreduce_npy.py"
ROOM = 3
"""Times the array must fit into memory: itself, its copy, and what is read back."""


def allreduce(chunks: Any, comm: Any) -> Any:
    import numpy as np

    part, whole = np.zeros(LOOK_AT), np.zeros(LOOK_AT)
    for chunk in chunks:
        part += chunk[:LOOK_AT]
    comm.Allreduce(part, whole)
    for chunk in chunks:
        chunk[:LOOK_AT] = whole
    return list(chunks)


def nothing(chunks: Any, comm: Any) -> None:
    comm.Barrier()


def timed(function: Callable[[], Any]) -> float:
    began = time.perf_counter()
    kept = function()
    seconds = time.perf_counter() - began
    del kept
    return seconds


# within the program


def inside(sizes_gib: Sequence[float], runs: int) -> None:
    """The client's rank; the others are Dask's. Prints a line of JSON for each turn."""
    import dask

    import hpclab

    # neither spills nor gives up: all that is measured shall be in memory
    dask.config.set({f"distributed.worker.memory.{what}": False for what in ("target", "spill", "pause", "terminate")})
    client = hpclab.initialize(nthreads=1)
    import dask.array as da
    from distributed import wait

    from hpclab import mpi

    with client:
        tiny = da.random.random(WORKERS * LOOK_AT, chunks=LOOK_AT).persist(workers=None)
        for size_gib in sizes_gib:
            chunk = int(size_gib * GIB) // CHUNKS // 8
            x = da.random.random(CHUNKS * chunk, chunks=chunk).persist()
            wait(x)
            client.rebalance(x)
            for _ in range(runs):
                ways = {
                    "disk": lambda x=x: by_disk(client, x),
                    "run": lambda x=x: back(mpi.run(allreduce, x, collect=False)),
                    "within": lambda x=x: back(mpi.run(allreduce, x, collect=False, in_process=True)),
                    "memcpy": lambda x=x: copied(client, x, fresh=True),
                    "memcpy warm": lambda x=x: copied(client, x, fresh=False),
                    "start": lambda: back(mpi.run(allreduce, tiny, collect=False)),
                    "world": lambda: mpi.run(nothing, tiny),
                }
                seconds = {}
                for way, do in ways.items():
                    seconds[way] = timed(do)
                    time.sleep(SETTLE_S)
                print(json.dumps({"size": size_gib, **seconds}), flush=True)
            del x


def back(results: Any) -> Any:
    """As a dask array again, on the workers."""
    from distributed import wait

    y = results.array().persist()
    wait(y)
    return y


def by_disk(client: Any, x: Any) -> Any:
    import dask.array as da
    import numpy as np
    from distributed import futures_of, wait

    folder = tempfile.mkdtemp(prefix="handoff-")
    try:
        chunks = sorted(futures_of(x), key=lambda future: future.key)
        wait([client.submit(np.save, f"{folder}/in-{k:05}.npy", chunk) for k, chunk in enumerate(chunks)])
        mpiexec = str(Path(sys.executable).with_name("mpiexec"))
        program = [sys.executable, str(BY_HAND), folder, str(LOOK_AT)]
        subprocess.run([mpiexec, "-n", str(WORKERS), *program], env=_clean(), check=True)
        loaded = [client.submit(np.load, f"{folder}/out-{k:05}.npy", pure=False) for k in range(len(chunks))]
        y = da.concatenate([da.from_delayed(_delayed(one), x.chunksize, float) for one in loaded]).persist()
        wait(y)
        return y
    finally:
        shutil.rmtree(folder)


def _delayed(future: Any) -> Any:
    from dask.delayed import delayed

    return delayed(future)


def _clean() -> dict[str, str]:
    import os

    from hpclab.launchers import without_mpi

    return without_mpi(dict(os.environ))


def copied(client: Any, x: Any, *, fresh: bool) -> Any:
    """The same bytes, each by the worker that has them: into new memory, or into memory that is there already."""
    from distributed import wait

    from hpclab import mpi

    parts = mpi.local_parts(client, x)
    futures = [client.submit(_copy, list(part), fresh, workers=[w], pure=False) for w, part in parts.items()]
    wait(futures)
    return futures


def _copy(chunks: list[Any], fresh: bool) -> Any:
    import numpy as np

    if fresh:
        return [chunk.copy() for chunk in chunks]
    there = np.zeros_like(chunks[0])
    for chunk in chunks:
        np.copyto(there, chunk)
    return None


# seen from outside


def main() -> None:
    import psutil

    given = table.arguments("A dask array into MPI and back.", runs=3)
    room = psutil.virtual_memory().available
    sizes = [size for size in (1.0, 4.0) if size * GIB * ROOM < room]
    mpiexec = str(Path(sys.executable).with_name("mpiexec"))
    program = [sys.executable, "-m", "benchmarks.handoff", "--inside", str(given.runs), *map(str, sizes)]
    done = subprocess.run([mpiexec, "-n", str(WORKERS + 2), *program], capture_output=True, text=True, check=False)
    turns = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"size"')]
    if len(turns) < given.runs * len(sizes):
        sys.exit(f"the program ended early:\n{done.stderr[-3000:]}")
    rows: list[table.Comparison | table.Measurement] = []
    for size in sizes:
        of_size = [turn for turn in turns if turn["size"] == size]

        def seconds(way: str, of_size: list[dict[str, float]] = of_size) -> tuple[float, ...]:
            return tuple(turn[way] for turn in of_size)

        path = tuple(turn["run"] - turn["start"] for turn in of_size)
        rows += [
            _compared(f"{size:g} GiB: run / disk", seconds("disk"), seconds("run"), DISK_TARGET),
            _compared(f"{size:g} GiB: path / memcpy", seconds("memcpy"), path, MEMCPY_TARGET),
            _compared(f"{size:g} GiB: path / warm memcpy", seconds("memcpy warm"), path),
            _compared(f"{size:g} GiB: in_process / disk", seconds("disk"), seconds("within")),
        ]
    started = table.Measurement(
        what="a run that does nothing", unit="s", values=tuple(turn["world"] for turn in turns), target=START_TARGET_S
    )
    heads = ("", "that", "this", "ratio", "least", "most", "target")
    table.show("A dask array into an MPI Allreduce and back: this / that", heads, rows)
    table.show("The world's start", ("what", "median", "least", "most", "target"), [started])
    table.write(given.json, "handoff", [*rows, started])


def _compared(
    what: str, before: tuple[float, ...], ours: tuple[float, ...], target: float | None = None
) -> table.Comparison:
    return table.Comparison(what=what, unit="s", before=before, ours=ours, target=target)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        inside([float(size) for size in sys.argv[3:]], int(sys.argv[2]))
    else:
        main()

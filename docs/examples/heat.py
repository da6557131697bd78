"""The heat equation on a plate: the data are a dask array, the neighbours' rows come by MPI.

    warm = mpi.run(heat.diffuse, plate, steps, collect=False).array()

The chunks of `plate` are blocks of whole rows. Whoever has them, and how many of them, they may be anywhere.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

RATE = 0.25
"""How much of the difference to its neighbours a point gives away in one step; at most 0.25."""

Step = Callable[[np.ndarray], np.ndarray]


def stepped(rows: np.ndarray) -> np.ndarray:
    """One step. The outermost rows and columns stay as they are."""
    new = rows.copy()
    around = rows[:-2, 1:-1] + rows[2:, 1:-1] + rows[1:-1, :-2] + rows[1:-1, 2:]
    new[1:-1, 1:-1] += RATE * (around - 4 * rows[1:-1, 1:-1])
    return new


def serial(plate: np.ndarray, steps: int) -> np.ndarray:
    """The answer without Dask and MPI."""
    for _ in range(steps):
        plate = stepped(plate)
    return plate


def diffuse(chunks: Any, comm: Any, steps: int, step: Step = stepped) -> list[np.ndarray]:
    """The same on every rank of `comm`, for its chunks of the plate."""
    if chunks.numblocks[1] > 1 or not all(len(chunk) for chunk in chunks):
        raise ValueError("the chunks must be blocks of whole rows, and none may be empty: plate.rechunk({1: -1})")
    numbers = [row for row, _ in chunks.indices]
    # which rank has which chunk: the same everywhere
    owner = {number: rank for rank, theirs in enumerate(comm.allgather(numbers)) for number in theirs}
    # each chunk with a row more at each side where it has a neighbour
    halos = [(int(number > 0), int(number < len(owner) - 1)) for number in numbers]
    blocks = {
        number: np.pad(np.array(chunk, dtype=float, order="C"), (halo, (0, 0)))
        for number, halo, chunk in zip(numbers, halos, chunks, strict=True)
    }
    for _ in range(steps):
        exchange(blocks, owner, comm)
        blocks = {number: step(block) for number, block in blocks.items()}
    return [block[above : len(block) - below] for block, (above, below) in zip(blocks.values(), halos, strict=True)]


def exchange(blocks: dict[int, np.ndarray], owner: dict[int, int], comm: Any) -> None:
    """Chunks that are neighbours give each other the rows at their common edge.

    All ranks go through the edges in one order, so that none waits for ever. It is every second edge first, then the
    others, so that those of different ranks are done at the same time.
    """
    last = len(owner) - 1
    for upper in (*range(0, last, 2), *range(1, last, 2)):
        lower = upper + 1
        if upper in blocks and lower in blocks:
            blocks[upper][-1], blocks[lower][0] = blocks[lower][1], blocks[upper][-2]
        elif upper in blocks:
            comm.Sendrecv(blocks[upper][-2], dest=owner[lower], recvbuf=blocks[upper][-1], source=owner[lower])
        elif lower in blocks:
            comm.Sendrecv(blocks[lower][1], dest=owner[upper], recvbuf=blocks[lower][0], source=owner[upper])


# with a library in C: gcc -O2 -ffp-contract=off -shared -fPIC -o libheat.so heat.c


def diffuse_in_c(chunks: Any, comm: Any, steps: int, library: str) -> list[np.ndarray]:
    """The same, each step by `heat.c`; `library` is the path of what the compiler made of it."""
    heat_step = ctypes.CDLL(library).heat_step
    heat_step.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long, ctypes.c_long, ctypes.c_double]

    def step(rows: np.ndarray) -> np.ndarray:
        new = rows.copy()
        heat_step(rows.ctypes.data, new.ctypes.data, *rows.shape, RATE)
        return new

    return diffuse(chunks, comm, steps, step)

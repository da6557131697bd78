"""The chunks of a Dask collection that one rank of an MPI program gets: a list, which knows where each belongs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

Index = tuple[int, ...]
"""The place of a chunk among the chunks of its collection: `(i, j)` in an array, `(i,)` in all else."""


@dataclass(frozen=True)
class Layout:
    """How a Dask array is cut into chunks. Sizes that Dask does not know are None."""

    boundaries: tuple[tuple[int | None, ...], ...]
    """Of each axis: where its chunks begin, and where the last one ends."""

    @staticmethod
    def of(chunks: Iterable[Iterable[float]]) -> Layout:
        """From Dask's `array.chunks`, where a size that is not known is nan."""
        boundaries: list[tuple[int | None, ...]] = []
        for sizes in chunks:
            along: list[int | None] = [0]
            for size in sizes:
                known = along[-1] is not None and size == size  # nan differs from itself
                along.append(int(along[-1] + size) if known and along[-1] is not None else None)
            boundaries.append(tuple(along))
        return Layout(tuple(boundaries))

    @property
    def shape(self) -> tuple[int | None, ...]:
        return tuple(along[-1] for along in self.boundaries)

    @property
    def numblocks(self) -> tuple[int, ...]:
        return tuple(len(along) - 1 for along in self.boundaries)

    def slices(self, index: Index) -> tuple[slice, ...]:
        """Where the chunk of this index lies in the whole array; None as a bound: not known."""
        bounds = [list(pairwise(along))[number] for along, number in zip(self.boundaries, index, strict=True)]
        return tuple(slice(begin, end) for begin, end in bounds)


class Chunks(list[Any]):
    """The chunks of one rank in the collection's order: arrays, dataframes, lists, whatever the collection consists of.

    They are the rank's own: to change them changes nothing in Dask, but for `in_process=True`, where they are Dask's.

    * `indices[k]`: the index of the k-th of them among all chunks of the collection, such as `(0, 3)`
    * `shape`: of the whole array, `numblocks`: into how many chunks it is cut along each axis; of other collections and
      futures their shape is `(None,)`
    * `slices[k]`: where in the whole array the k-th lies
    """

    def __init__(self, items: Iterable[Any], indices: Iterable[Index], layout: Layout) -> None:
        super().__init__(items)
        self.indices = tuple(indices)
        self.shape, self.numblocks = layout.shape, layout.numblocks
        self.slices = tuple(layout.slices(index) for index in self.indices)

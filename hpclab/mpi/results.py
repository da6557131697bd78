"""What a run has left on the workers: a future per rank, and ways back to collections of Dask."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from distributed import Client, Future

from hpclab.errors import ConfigError
from hpclab.mpi.parts import Collection, Parts


class Results(list[Future]):
    """The futures of what the ranks have returned, in the order of the ranks.

    `chunks` and `array()` are for functions that return one chunk for each that they got, in the same order: a list, or
    the chunk itself where it was one.
    """

    def __init__(
        self, client: Client, futures: Sequence[Future], parts: Sequence[Parts], collection: Collection
    ) -> None:
        super().__init__(futures)
        self._client, self._parts, self._collection = client, tuple(parts), collection

    @property
    def chunks(self) -> list[Future]:
        """The futures of the returned chunks, in the order of the collection that was handed over."""
        futures, wrong = {}, []
        counts = self._client.gather(
            [self._client.submit(_count, future, len(part)) for future, part in zip(self, self._parts, strict=True)]
        )
        for rank, (future, part, count) in enumerate(zip(self, self._parts, counts, strict=True)):
            if count not in (-1, len(part)):
                wrong.append(f"rank {rank} returned {count} for {len(part)}")
                continue
            for number, index in enumerate(part.indices):
                futures[index] = future if count == -1 else self._client.submit(operator.getitem, future, number)
        if wrong:
            raise ConfigError(
                f"these results are not a chunk for each that the ranks got: {'; '.join(wrong)}\n"
                "let the function return a list of as many, in the same order"
            )
        return [futures[index] for index in self._collection.indices]

    def array(self) -> Any:
        """The dask array of the returned chunks, each where the one was that it was made of."""
        import dask.array as da
        from dask.highlevelgraph import HighLevelGraph

        if len(self._collection.layout.numblocks) != len(self._collection.indices[0]):
            raise ConfigError("what was handed over was no array\ntake `chunks`, which are futures")
        chunks = self.chunks
        described = self._client.gather([self._client.submit(_described, chunk) for chunk in chunks])
        if wrong := [index for index, told in zip(self._collection.indices, described, strict=True) if told is None]:
            raise ConfigError(f"what was returned for chunk {wrong[0]} is no array\ntake `chunks`, which are futures")
        by_index = dict(zip(self._collection.indices, described, strict=True))
        dimensions = len(self._collection.layout.numblocks)
        if wrong := [index for index, (shape, _) in by_index.items() if len(shape) != dimensions]:
            raise ConfigError(
                f"what was returned for chunk {wrong[0]} has {len(by_index[wrong[0]][0])} axes, where the chunk has "
                f"{dimensions}\ntake `chunks`, which are futures"
            )
        sizes = []
        for axis in range(dimensions):
            number = self._collection.layout.numblocks[axis]
            along = [tuple(n if k == axis else 0 for k in range(dimensions)) for n in range(number)]
            sizes.append(tuple(by_index[index][0][axis] for index in along))
        name = f"mpi-{chunks[0].key if not isinstance(chunks[0].key, tuple) else chunks[0].key[0]}"
        graph = {(name, *index): chunk for index, chunk in zip(self._collection.indices, chunks, strict=True)}
        return da.Array(HighLevelGraph.from_collections(name, graph), name, chunks=tuple(sizes), dtype=described[0][1])


def _count(returned: Any, expected: int) -> int:
    """How many chunks a rank has returned; -1: it is the one itself."""
    if isinstance(returned, (list, tuple)):
        return len(returned)
    return -1 if expected == 1 else 1


def _described(chunk: Any) -> tuple[tuple[int, ...], Any] | None:
    return (chunk.shape, chunk.dtype) if hasattr(chunk, "shape") and hasattr(chunk, "dtype") else None

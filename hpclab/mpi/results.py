"""What a run has left on the workers: a future per rank, and ways back to collections of Dask."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distributed import Client, Future

from hpclab.errors import ConfigError
from hpclab.mpi.chunks import Index
from hpclab.mpi.parts import Collection, Parts


class Results(list[Future]):
    """The futures of what the ranks have returned, in the order of the ranks.

    `chunks` and `array()` are for functions that return one chunk for each that they got, in the same order: a list, or
    the chunk itself where it was one.
    """

    def __init__(
        self, client: Client, futures: Sequence[Future], parts: Mapping[str, Parts], collection: Collection
    ) -> None:
        super().__init__(futures)
        self._client, self._parts, self._collection = client, parts, collection

    @property
    def chunks(self) -> list[Future]:
        """The futures of the returned chunks, in the order of the collection that was handed over."""
        return self._chunks(self._told())

    def array(self) -> Any:
        """The dask array of the returned chunks, each where the one was that it was made of."""
        import dask.array as da
        from dask.highlevelgraph import HighLevelGraph

        dimensions = len(self._collection.layout.numblocks)
        if dimensions != len(self._collection.indices[0]):
            raise ConfigError("what was handed over was no array\ntake `chunks`, which are futures")
        told = self._told()
        chunks = self._chunks(told)
        shapes: dict[Index, tuple[int, ...]] = {}
        for part, of_rank in zip(self._parts.values(), told, strict=True):
            for index, one in zip(part.indices, of_rank.shapes, strict=True):
                if one is None or len(one[0]) != dimensions:
                    what = "no array" if one is None else f"an array of {len(one[0])} axes, not {dimensions}"
                    raise ConfigError(
                        f"what was returned for chunk {index} is {what}\ntake `chunks`, which are futures"
                    )
                shapes[index], dtype = one
        sizes = []
        for axis in range(dimensions):
            number = self._collection.layout.numblocks[axis]
            along = [tuple(n if k == axis else 0 for k in range(dimensions)) for n in range(number)]
            sizes.append(tuple(shapes[index][axis] for index in along))
        name = f"mpi-{chunks[0].key if not isinstance(chunks[0].key, tuple) else chunks[0].key[0]}"
        graph = {(name, *index): chunk for index, chunk in zip(self._collection.indices, chunks, strict=True)}
        return da.Array(HighLevelGraph.from_collections(name, graph), name, chunks=tuple(sizes), dtype=dtype)

    def _told(self) -> list[_Told]:
        """What each rank has returned, as the worker sees it that has it."""
        # pinned: Dask would rather bring a rank's gibibytes to an idle worker than wait for this one
        asked = [
            self._client.submit(_tell, future, workers=[worker], pure=False)
            for future, worker in zip(self, self._parts, strict=True)
        ]
        found: list[_Told] = self._client.gather(asked)
        return found

    def _chunks(self, told: Sequence[_Told]) -> list[Future]:
        futures, wrong = {}, []
        for rank, (future, (worker, part), of_rank) in enumerate(zip(self, self._parts.items(), told, strict=True)):
            if len(of_rank.shapes) != len(part):
                wrong.append(f"rank {rank} returned {len(of_rank.shapes)} for {len(part)}")
                continue
            for number, index in enumerate(part.indices):
                futures[index] = (
                    self._client.submit(operator.getitem, future, number, workers=[worker])
                    if of_rank.is_list
                    else future
                )
        if wrong:
            raise ConfigError(
                f"these results are not a chunk for each that the ranks got: {'; '.join(wrong)}\n"
                "let the function return a list of as many, in the same order"
            )
        return [futures[index] for index in self._collection.indices]


@dataclass(frozen=True)
class _Told:
    is_list: bool
    """Else it is the one chunk itself."""
    shapes: list[tuple[tuple[int, ...], Any] | None]
    """Shape and dtype of each chunk; None: it is no array."""


def _tell(returned: Any) -> _Told:
    is_list = isinstance(returned, (list, tuple))
    chunks = returned if is_list else [returned]
    return _Told(
        is_list,
        [(c.shape, c.dtype) if hasattr(c, "shape") and hasattr(c, "dtype") else None for c in chunks],
    )

"""Which chunk of a collection is on which Dask worker: `local_parts`."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dask.base import is_dask_collection
from distributed import CancelledError, Client, Future, futures_of, wait

from hpclab.errors import ConfigError, DataLost
from hpclab.mpi.chunks import Index, Layout

LOOKS = 5
"""How often chunks may vanish between the look and the next, each time computed again by Dask."""
NEXT = "hand over a dask array, dataframe or bag, or a list of futures"


class Parts(list[Future]):
    """Futures of the chunks that are on one worker, in the collection's order; `indices[k]` is that of the k-th."""

    def __init__(self, futures: Iterable[Future], indices: Iterable[Index]) -> None:
        super().__init__(futures)
        self.indices = tuple(indices)


@dataclass(frozen=True)
class Collection:
    """The futures of all chunks of a collection, in its order, and the place of each."""

    futures: tuple[Future, ...]
    indices: tuple[Index, ...]
    layout: Layout

    @staticmethod
    def of(client: Client, given: Any) -> Collection:
        """Of a dask collection, which is begun to be computed where it is not yet; or of futures.

        Raises ConfigError of anything else, and of nothing.
        """
        if isinstance(given, Future):
            given = [given]
        # xarray's DataArray; not the column of a dataframe, which may have any name
        if hasattr(type(given), "data") and is_dask_collection(given.data):
            given = given.data
        if is_dask_collection(given):
            futures, indices = _of_collection(client, given)
        elif isinstance(given, (list, tuple)) and all(isinstance(future, Future) for future in given):
            futures, indices = tuple(given), ()
        else:
            raise ConfigError(f"{type(given).__name__} is not distributed data, which an MPI program could get\n{NEXT}")
        if not futures:
            raise ConfigError(f"there is nothing to hand over: this {type(given).__name__} has no chunks\n{NEXT}")
        chunks = getattr(given, "chunks", None)
        if isinstance(chunks, tuple):
            return Collection(futures, tuple(index[: len(chunks)] for index in indices), Layout.of(chunks))
        numbers = tuple((number,) for number in range(len(futures)))
        return Collection(futures, numbers, Layout.of(((math.nan,) * len(futures),)))


def _of_collection(client: Client, given: Any) -> tuple[tuple[Future, ...], tuple[Index, ...]]:
    found = _held(given) or _held(client.persist(given))
    if found is None:
        raise ConfigError(f"Dask computes this {type(given).__name__} in one piece, not in chunks\n{NEXT}")
    return tuple(future for _, future in found), tuple(index for index, _ in found)


def _held(given: Any) -> list[tuple[Index, Future]] | None:
    """Each chunk's future, with its place; None: not all of them are there."""
    known: dict[Any, Future] = {future.key: future for future in futures_of(given)}
    if not known:
        return None
    graph = given.__dask_graph__()
    found = []
    for index, key in _numbered(given.__dask_keys__()):
        while key not in known:
            # a dataframe gives what it has computed another name, an alias
            key = getattr(graph.get(key), "target", None)
            if key is None:
                return None
        found.append((index, known[key]))
    return found


def _numbered(keys: Any, index: Index = ()) -> Iterator[tuple[Index, Any]]:
    """Dask's nested lists of keys, each with its place."""
    for number, key in enumerate(keys):
        if isinstance(key, list):
            yield from _numbered(key, (*index, number))
        else:
            yield (*index, number), key


def local_parts(client: Client, collection: Any, *, workers: Sequence[str] | None = None) -> dict[str, Parts]:
    """Where the chunks of a collection are: the address of a worker -> futures of the chunks that it holds.

    Each chunk is at one worker, also where several hold a copy. Workers stand in the order of their first chunk; those
    that hold nothing are left out. What is not computed yet is computed first. With `workers` (addresses or names)
    exactly these are told of, and what others hold is given to them, for Dask to bring it there.

    Raises ConfigError of what is no distributed data, DataLost of data that is gone for good, and what a computation of
    a chunk has raised.
    """
    return assigned(client, Collection.of(client, collection), workers)


def assigned(client: Client, collection: Collection, workers: Sequence[str] | None = None) -> dict[str, Parts]:
    """The same for a collection whose futures are known."""
    wanted = _addresses(client, workers) if workers is not None else None
    holders = share(_holders(client, collection), wanted)
    order = wanted if wanted is not None else list(dict.fromkeys(holders))
    numbers = {worker: [k for k, holder in enumerate(holders) if holder == worker] for worker in order}
    return {
        worker: Parts([collection.futures[k] for k in found], [collection.indices[k] for k in found])
        for worker, found in numbers.items()
    }


def _holders(client: Client, collection: Collection) -> list[tuple[str, ...]]:
    """The addresses of the workers that hold each chunk."""
    futures = list(collection.futures)
    for _ in range(LOOKS):
        with client.as_current(), contextlib.suppress(CancelledError):
            wait(futures)
        for future in futures:
            if future.status == "error":
                future.result()  # raises
            if future.status != "finished":
                raise DataLost(_lost(future))
        found = client.who_has(futures)
        # older Dasks name keys by their text
        holders = [tuple(found.get(future.key) or found.get(str(future.key)) or ()) for future in futures]
        if all(holders):
            return holders
    raise DataLost(_lost(futures[holders.index(())]))


def _lost(future: Future) -> str:
    return (
        f"the chunk {future.key!r} is on no worker any more ({future.status})\n"
        "make the collection again, and hand it over while you hold it"
    )


def _addresses(client: Client, workers: Sequence[str]) -> list[str]:
    """Of workers named by address or name."""
    there: Mapping[str, Any] = client.scheduler_info(n_workers=-1)["workers"]
    names = {str(told["name"]): address for address, told in there.items()}
    found = [worker if worker in there else names.get(str(worker), "") for worker in workers]
    if not found or "" in found or len(set(found)) < len(found):
        known = ", ".join(sorted(names)) or "none"
        raise ConfigError(f"{list(workers)} are not different Dask workers of this cluster\nits workers: {known}")
    return found


def share(holders: Sequence[Sequence[str]], workers: Sequence[str] | None = None) -> list[str]:
    """One worker for each chunk, of those that hold it; with `workers` only of these, and any of them where none does.

    Where there is a choice, the one that has the fewest so far.
    """
    allowed = None if workers is None else set(workers)
    having = [[w for w in held if allowed is None or w in allowed] for held in holders]
    counts = dict.fromkeys(workers or [], 0)
    for held in having:
        if len(held) == 1:
            counts[held[0]] = counts.get(held[0], 0) + 1
    chosen = []
    for held in having:
        candidates = held or list(workers or [])
        worker = candidates[0] if len(held) == 1 else min(candidates, key=lambda w: counts.get(w, 0))
        if len(held) != 1:
            counts[worker] = counts.get(worker, 0) + 1
        chosen.append(worker)
    return chosen

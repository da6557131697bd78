"""Ranks of one run wait for each other: each brings something to the worker of rank 0, and gets what all have brought.

It goes over Dask's own connections between workers, encrypted as all else of the session; no port is opened for it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from distributed import Worker
from distributed.protocol.pickle import dumps


@dataclass
class _Round:
    brought: dict[int, Any] = field(default_factory=dict)
    passed: int = 0
    is_full: asyncio.Event = field(default_factory=asyncio.Event)


# at the worker of rank 0
_rounds: dict[tuple[str, int], _Round] = {}
_over: deque[str] = deque(maxlen=1000)


class Fence:
    """One rank's side of it. What is brought must be msgpack's: numbers, texts, lists, dicts."""

    def __init__(self, worker: Worker, head: str, *, run: str, rank: int, size: int) -> None:
        """`head`: the address of rank 0's worker."""
        self._worker, self._head = worker, head
        self._who = {"run": run, "rank": rank, "size": size}
        self._round = 0

    async def wait(self, brought: Any) -> list[Any]:
        """What all have brought, in their order. On the worker's event loop. Raises OSError when rank 0's is gone."""
        self._round += 1
        what = {**self._who, "number": self._round, "brought": brought}
        if self._worker.address == self._head:
            return await arrive_at_fence(**what)
        found: list[Any] = await run_at(self._worker, self._head, arrive_at_fence, **what)
        return found

    def leave(self) -> None:
        """When a rank has ended; with rank 0 nobody waits here any more."""
        if self._worker.address == self._head:
            self._worker.loop.add_callback(_end, self._who["run"])


async def run_at(worker: Worker, address: str, function: Callable[..., Coroutine[Any, Any, Any]], **what: Any) -> Any:
    """Call a function on another worker's event loop, from our worker's. Raises OSError when that worker is gone."""
    answer = await worker.rpc(address).run(function=dumps(function), kwargs=dumps(what))
    if answer["status"] != "OK":
        raise ConnectionError(answer.get("exception_text", f"{address} does not answer"))
    return answer["result"]


async def arrive_at_fence(run: str, number: int, rank: int, size: int, brought: Any) -> list[Any]:
    """At the worker of rank 0, on its event loop."""
    if run in _over:
        raise ConnectionError("rank 0 has ended")
    this = _rounds.setdefault((run, number), _Round())
    this.brought[rank] = brought
    if len(this.brought) == size:
        this.is_full.set()
    await this.is_full.wait()
    if len(this.brought) < size:
        raise ConnectionError("rank 0 has ended")
    this.passed += 1
    if this.passed == size:
        _rounds.pop((run, number), None)
    return [this.brought[rank] for rank in range(size)]


def _end(run: str) -> None:
    _over.append(run)
    for key in [key for key in _rounds if key[0] == run]:
        _rounds.pop(key).is_full.set()

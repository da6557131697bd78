"""Work in threads: beside an event loop, and several in turns. None of them keeps the interpreter from its end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

S = TypeVar("S")
T = TypeVar("T")


async def in_thread(work: Callable[[], T]) -> T:
    """As asyncio.to_thread, whose threads are waited for at the end: a batch system may take minutes to answer."""
    done: Future[T] = Future()
    # who waits may go away; what has begun goes on
    done.set_running_or_notify_cancel()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, name="hpclab", daemon=True).start()
    return await asyncio.wrap_future(done)


class InTurns(Generic[S]):
    """Something for several threads, which take turns with it."""

    def __init__(self, shared: S) -> None:
        self._shared = shared
        self._lock = threading.Lock()

    def __call__(self, what: Callable[[S], T]) -> T:
        with self._lock:
            return what(self._shared)

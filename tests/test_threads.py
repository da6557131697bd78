"""Work in threads: its result or its error arrives, nobody is kept from the end, and turns are taken."""

from __future__ import annotations

import asyncio
import threading

import pytest

from hpclab.errors import HpclabError
from hpclab.threads import InTurns, in_thread

WITHIN_S = 20


def test_what_a_thread_finds_arrives():
    assert asyncio.run(in_thread(lambda: threading.current_thread().daemon)) is True


@pytest.mark.parametrize("error", [HpclabError("text"), TimeoutError("text"), SystemExit("text")])
def test_an_error_in_a_thread_arrives(error):
    def fail() -> None:
        raise error

    async def told() -> None:
        with pytest.raises(type(error), match="text"):
            await in_thread(fail)

    asyncio.run(told())


def test_a_thread_keeps_nobody_waiting_at_the_end():
    """Nor does it complain when it comes too late."""
    held, ended, complaints = threading.Event(), threading.Event(), []

    def work() -> None:
        held.wait(WITHIN_S)
        ended.set()

    async def leave() -> None:
        waits = asyncio.ensure_future(in_thread(work))
        await asyncio.sleep(0)
        assert not waits.done()

    before = set(threading.enumerate())
    asyncio.run(leave())  # comes back though nobody lets it go
    threads = set(threading.enumerate()) - before
    assert not ended.is_set()
    previous, threading.excepthook = threading.excepthook, complaints.append
    try:
        held.set()
        for thread in threads:
            thread.join(WITHIN_S)
    finally:
        threading.excepthook = previous
    assert ended.is_set()
    assert complaints == []


def test_threads_take_turns():
    begun, second_begun, order = threading.Event(), threading.Event(), []
    turns = InTurns("what they share")

    def first(shared: str) -> None:
        begun.set()
        # the other would come in now, if it could
        second_begun.wait(0.05)
        order.append(f"first has {shared}")

    def second(shared: str) -> None:
        second_begun.set()
        order.append(f"second has {shared}")

    one = threading.Thread(target=turns, args=(first,))
    one.start()
    assert begun.wait(WITHIN_S)
    turns(second)
    one.join(WITHIN_S)
    assert order == ["first has what they share", "second has what they share"]

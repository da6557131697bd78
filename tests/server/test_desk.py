"""Requests of several tabs meet at the desk: one look for all, and nothing is done twice."""

from __future__ import annotations

import asyncio
import threading

import pytest

from hpclab.errors import NoSuchSession, NotRunning, TookTooLong
from hpclab.server import desk as module
from hpclab.server.desk import Desk
from hpclab.threads import in_thread


class Slow:
    """A call of the core that takes until it is let go, and counts."""

    def __init__(self, answer: object = None) -> None:
        self.begun = 0
        self.go = threading.Event()
        self.answer = answer

    def __call__(self, *_: object) -> object:
        self.begun += 1
        self.go.wait(20)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def a_desk(monkeypatch, tmp_path):
    """Of a user with no sessions."""
    for name, value in {"HPCLAB_HOME": str(tmp_path), "HPCLAB_SESSION": ""}.items():
        monkeypatch.setenv(name, value)
    return Desk(root_dir=str(tmp_path))


async def told_after(slow: Slow, *asked) -> list[object]:
    """All are asked for before the first is answered."""
    tasks = [asyncio.ensure_future(each) for each in asked]
    for _ in range(10):
        await asyncio.sleep(0)
    slow.go.set()
    return await asyncio.gather(*tasks, return_exceptions=True)


def test_tabs_that_ask_at_once_share_one_look(a_desk, monkeypatch):
    look = Slow({"session": 1})
    monkeypatch.setattr(a_desk, "_with_eye", lambda _: in_thread(look))
    told = asyncio.run(told_after(look, *(a_desk.answer() for _ in range(20))))
    assert told == [{"session": 1}] * 20
    assert look.begun == 1


def test_a_look_is_fresh_for_a_moment_only(a_desk, monkeypatch):
    look = Slow({})
    look.go.set()
    clock = [100.0]
    monkeypatch.setattr(a_desk, "_with_eye", lambda _: in_thread(look))
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])

    async def looks() -> None:
        await a_desk.answer()
        await a_desk.answer()
        assert look.begun == 1
        clock[0] += module.FRESH_S + 0.1
        await a_desk.answer()
        assert look.begun == 2

    asyncio.run(looks())


def test_after_a_change_nobody_is_told_what_was_seen_before(a_desk, monkeypatch):
    look = Slow({})
    monkeypatch.setattr(a_desk, "_with_eye", lambda _: in_thread(look))

    async def change_meanwhile() -> None:
        first = asyncio.ensure_future(a_desk.answer())
        await asyncio.sleep(0)
        with pytest.raises(NoSuchSession):
            await a_desk.scale(1)
        second = asyncio.ensure_future(a_desk.answer())
        look.go.set()
        await asyncio.gather(first, second)
        assert look.begun == 2

    asyncio.run(change_meanwhile())


def test_all_who_share_a_look_are_told_what_was_wrong(a_desk, monkeypatch):
    look = Slow(TookTooLong("it hangs\nwait"))
    monkeypatch.setattr(a_desk, "_with_eye", lambda _: in_thread(look))
    told = asyncio.run(told_after(look, a_desk.answer(), a_desk.answer()))
    assert [type(error) for error in told] == [TookTooLong, TookTooLong]
    assert look.begun == 1


@pytest.mark.parametrize("ask", [lambda desk: desk.scale(3), lambda desk: desk.retire("7")], ids=["scale", "retire"])
def test_a_double_click_is_one(a_desk, monkeypatch, ask):
    change = Slow({"text": "done"})
    monkeypatch.setattr(a_desk, "_changed", lambda _: in_thread(change))
    told = asyncio.run(told_after(change, ask(a_desk), ask(a_desk)))
    assert told == [{"text": "done"}] * 2
    assert change.begun == 1


def test_who_has_changed_their_mind_is_not_given_both(a_desk, monkeypatch):
    """Two looks at how many there are, both before anything was submitted, would submit twice."""
    change = Slow({"text": "done"})
    monkeypatch.setattr(a_desk, "_changed", lambda _: in_thread(change))

    async def both() -> None:
        first, second = (asyncio.ensure_future(a_desk.scale(workers)) for workers in (3, 5))
        for _ in range(100):
            await asyncio.sleep(0)
        assert change.begun == 1
        change.go.set()
        await asyncio.gather(first, second)
        assert change.begun == 2

    asyncio.run(both())


def test_who_goes_away_does_not_end_what_the_other_waits_for(a_desk, monkeypatch):
    change = Slow({"text": "done"})
    monkeypatch.setattr(a_desk, "_changed", lambda _: in_thread(change))

    async def one_goes() -> object:
        first, second = (asyncio.ensure_future(a_desk.scale(3)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        change.go.set()
        return await second

    assert asyncio.run(one_goes()) == {"text": "done"}


def test_once_it_is_done_the_same_may_be_asked_for_again(a_desk, monkeypatch):
    change = Slow({})
    change.go.set()
    monkeypatch.setattr(a_desk, "_changed", lambda _: in_thread(change))

    async def twice() -> None:
        await a_desk.scale(3)
        await a_desk.scale(3)

    asyncio.run(twice())
    assert change.begun == 2


class Stubborn:
    """A session whose jobs do not go."""

    name = "calm-otter"

    def __init__(self, error: Exception) -> None:
        self.error = error

    def stop(self) -> None:
        raise self.error


def test_what_goes_wrong_after_the_answer_is_shown_as_trouble(a_desk, capsys):
    a_desk._stop(Stubborn(NotRunning("not gone: 17\nsay it again")))
    assert a_desk.trouble == "calm-otter was told to stop, but: not gone: 17\nsay it again"
    told = asyncio.run(a_desk.answer())
    assert told["trouble"] == a_desk.trouble
    a_desk._stop(Stubborn(KeyError("x")))
    assert "JupyterLab's log tells what" in a_desk.trouble
    assert "KeyError" in capsys.readouterr().err


def test_the_next_deed_ends_the_trouble(a_desk):
    a_desk.trouble = "much"
    with pytest.raises(NoSuchSession):
        asyncio.run(a_desk.scale(1))
    assert a_desk.trouble == ""

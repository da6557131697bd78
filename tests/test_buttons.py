"""The buttons below a card: pressed once, done once, and what went wrong is said."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable

import pytest

from hpclab import buttons
from hpclab.buttons import Button, with_buttons
from hpclab.errors import NotRunning

WITHIN_S = 10


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


class Shown:
    """A card with one button, in the hands of somebody who presses it."""

    def __init__(self, press: Callable[..., str], card: Callable[[], str] = lambda: "<b>card</b>") -> None:
        self.widget = with_buttons("session", card, [Button("Scale", (("Workers", 3),), press)])
        self.card, row, self._said = self.widget.children
        self.number, self.knob = row.children

    def press(self) -> None:
        self.knob.click()

    def said(self) -> str:
        until(lambda: self._said.value and not self.knob.disabled)
        return str(self._said.value)

    def close(self) -> None:
        self.card.close()


@pytest.fixture
def shown():
    """shown(press) is a widget that is closed in the end."""
    made = []

    def _shown(*args):
        made.append(Shown(*args))
        return made[-1]

    yield _shown
    for one in made:
        one.close()


def test_it_is_pressed_with_its_numbers(shown):
    here = shown(lambda workers: f"scaled to {workers}")
    here.number.value = 5
    here.press()
    assert here.said() == "<pre>scaled to 5</pre>"


@pytest.mark.parametrize("number", [-1, 10**9])
def test_a_number_out_of_all_bounds_is_brought_back(shown, number):
    here = shown(str)
    here.number.value = number
    assert here.number.value in (0, 10000)


def test_pressed_again_while_it_works_it_does_so_once(shown):
    go_on, pressed = threading.Event(), []

    def press(workers: int) -> str:
        pressed.append(workers)
        go_on.wait(WITHIN_S)
        return "done"

    here = shown(press)
    for _ in range(3):
        here.press()
    assert here.knob.disabled
    go_on.set()
    assert here.said() == "<pre>done</pre>"
    assert pressed == [3]
    here.press()
    until(lambda: pressed == [3, 3])


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (NotRunning("it has ended: <b>\nstart another"), "hpclab: it has ended: &lt;b&gt;\nstart another"),
        (ZeroDivisionError("<i>"), "ZeroDivisionError(&#x27;&lt;i&gt;&#x27;)"),
    ],
)
def test_what_went_wrong_is_said_and_the_button_can_be_pressed_again(shown, error, said):
    def press(_: int) -> str:
        raise error

    here = shown(press)
    here.press()
    assert here.said() == f"<pre>{said}</pre>"
    assert not here.knob.disabled


def test_the_card_looks_again_when_something_was_done(shown):
    looks = iter(f"look {n}" for n in range(99))
    here = shown(lambda _: "done", lambda: next(looks))
    assert here.card.value == "look 0"
    here.press()
    until(lambda: here.card.value == "look 1")


def test_the_card_looks_again_by_itself_until_it_is_closed_or_gone(monkeypatch, shown):
    monkeypatch.setattr(buttons, "LOOK_EVERY_S", (0.01, 0.02))
    looks = [0]

    def card() -> str:
        looks[0] += 1
        if looks[0] > 5:
            raise ReferenceError
        return str(looks[0])

    def threads() -> int:
        return sum(thread.name == "hpclab card" for thread in threading.enumerate())

    here = shown(str, card)
    until(lambda: looks[0] == 6)
    assert here.card.value == "5"
    other = shown(str)
    other.close()
    until(lambda: not threads())


def test_a_cell_that_is_run_many_times_has_one_card_that_looks_again(monkeypatch, shown):
    monkeypatch.setattr(buttons, "LOOK_EVERY_S", (0.01, 0.01))
    looks = [0] * 5

    def card(n: int) -> str:
        looks[n] += 1
        return str(looks[n])

    cards = [shown(lambda _: "done", lambda n=n: card(n)) for n in range(5)]
    until(lambda: sum(thread.name == "hpclab card" for thread in threading.enumerate()) == 1)
    before = list(looks)
    until(lambda: looks[4] > before[4] + 3)
    assert looks[:4] == before[:4]
    cards[0].press()  # so it is that one
    until(lambda: looks[0] > before[0] + 3)


@pytest.mark.parametrize("ipywidgets", [None, type("Old", (), {"Widget": object})])
def test_without_ipywidgets_or_with_an_old_one_there_are_none(monkeypatch, ipywidgets):
    monkeypatch.setitem(sys.modules, "ipywidgets", ipywidgets)
    assert with_buttons("session", lambda: "", []) is None

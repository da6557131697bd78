"""Buttons below a session's card, where ipywidgets is installed; the card looks again by itself, ever less often."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from typing import Any

from hpclab.errors import HpclabError
from hpclab.growth import MOST_WORKERS

LOOK_EVERY_S = (5.0, 60.0)
"""At first, and in the end: each look may be a question to the batch system."""

_watched: dict[str, threading.Event] = {}
"""Of all cards of a kind one alone looks again; this ends it."""


@dataclass(frozen=True)
class Button:
    label: str
    fields: tuple[tuple[str, int], ...]
    """The whole numbers that it is pressed with: what each is called, and its value at first."""
    press: Callable[..., str]
    """Gives back what was done, in a sentence. Runs in a thread."""


def with_buttons(kind: str, card: Callable[[], str], buttons: Sequence[Button]) -> Any | None:
    """A widget of the card's HTML and the buttons; None where there is no ipywidgets that can say how it is shown.

    Of its kind the one looks again that was shown or pressed last: people run a cell many times.
    """
    try:
        import ipywidgets
    except ImportError:
        return None
    if not hasattr(ipywidgets.Widget, "_repr_mimebundle_"):  # before ipywidgets 8
        return None
    shown, said = ipywidgets.HTML(card()), ipywidgets.HTML()

    def watch() -> None:
        _watched.get(kind, threading.Event()).set()
        _watched[kind] = ended = threading.Event()
        threading.Thread(target=_look_again, args=(card, shown, ended), name="hpclab card", daemon=True).start()

    def pressed() -> None:
        with suppress(ReferenceError):  # what it shows is gone
            shown.value = card()
            watch()

    rows = [_row(ipywidgets, button, said, pressed) for button in buttons]
    watch()
    return ipywidgets.VBox([shown, *rows, said])


def _row(ipywidgets: Any, button: Button, said: Any, pressed: Callable[[], None]) -> Any:
    narrow = ipywidgets.Layout(width="170px")
    numbers = [
        ipywidgets.BoundedIntText(value, min=0, max=MOST_WORKERS, description=what) for what, value in button.fields
    ]
    for number in numbers:
        number.layout = narrow
    knob = ipywidgets.Button(description=button.label)

    def carry_out() -> None:
        try:
            said.value = f"<pre>{escape(button.press(*(number.value for number in numbers)))}</pre>"
        except HpclabError as error:
            said.value = f"<pre>hpclab: {escape(str(error))}</pre>"
        except Exception as error:
            said.value = f"<pre>{escape(repr(error))}</pre>"
        finally:
            knob.disabled = False
            pressed()

    def begin(_: object) -> None:
        # pressed twice it would be done twice
        if not knob.disabled:
            knob.disabled = True
            threading.Thread(target=carry_out, name=f"hpclab {button.label}", daemon=True).start()

    knob.on_click(begin)
    return ipywidgets.HBox([*numbers, knob])


def _look_again(card: Callable[[], str], shown: Any, ended: threading.Event) -> None:
    """Until the widget is closed, or nobody has the session any more."""
    pause_s, longest_s = LOOK_EVERY_S
    while not ended.wait(pause_s):
        pause_s = min(1.5 * pause_s, longest_s)
        if shown.comm is None:
            return
        try:
            shown.value = card()
        except ReferenceError:  # what it shows is gone
            return

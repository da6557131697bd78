"""A session's start as it is shown: what has happened on lines of its own, what is waited for on one that changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hpclab.follow import Phase
from hpclab.show import phase_text

if TYPE_CHECKING:
    from rich.console import Console


class Progress:
    """On a console; a step that is told twice is shown once."""

    def __init__(self, console: Console, begin: str = "submitted") -> None:
        self._console = console
        self._line = console.status(begin)
        self._told: set[str] = set()
        self._waiting = ""

    @contextmanager
    def shown(self) -> Iterator[None]:
        """In between the last line of the console is ours."""
        with self._line:
            yield

    @contextmanager
    def aside(self) -> Iterator[None]:
        """In between it is the user's, who may be asked something."""
        self._line.stop()
        try:
            yield
        finally:
            self._line.start()

    def tell(self, phase: Phase) -> None:
        from rich.markup import escape

        text = phase_text(phase)
        if phase.what != "queued":
            if phase.text not in self._told:
                self._told.add(phase.text)
                self._line.update("on its way")
                self.say(f"  {text}")
        elif self._told:
            return  # the batch system's word comes late
        elif self._console.is_terminal:
            self._line.update(escape(text))
        elif phase.text != self._waiting:
            self._waiting = phase.text
            self.say(f"  {text}")

    def say(self, text: str) -> None:
        self._console.print(text, markup=False)

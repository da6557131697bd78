"""Output that is told anew from its beginning when a connection was lost, and shown on from where it stopped."""

from __future__ import annotations

from typing import Protocol


class Sink(Protocol):
    """What a command's output goes to."""

    def write(self, data: bytes, /) -> object: ...

    def flush(self) -> object: ...


class Resumed:
    """A sink that passes on what has not passed yet."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._passed_bytes = self._known_bytes = 0

    def begin_again(self) -> None:
        """What is written from now on is all of it once more."""
        self._known_bytes = self._passed_bytes

    def write(self, data: bytes, /) -> None:
        new = data[self._known_bytes :]
        self._known_bytes -= len(data) - len(new)
        self._passed_bytes += len(new)
        self._sink.write(new)

    def flush(self) -> None:
        self._sink.flush()

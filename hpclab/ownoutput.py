"""A command's own output: what a stream brings behind the mark, and what to say where there is no mark."""

from __future__ import annotations

import io
import shlex
import threading
from collections.abc import Callable
from typing import Any

from hpclab.errors import RemoteUnfit
from hpclab.shell import printable

PIECE = 1 << 16


class OwnOutput(io.RawIOBase):
    """One stream of a command, from behind the mark on."""

    def __init__(self, receive: Callable[[int], bytes], mark: bytes, without_mark: Callable[[], None]) -> None:
        """`receive` gives b"" at the end. `without_mark` raises why there was no mark, or the stream is empty."""
        self._receive, self._mark, self._without_mark = receive, mark + b"\n", without_mark
        self._has_begun = False
        self._noise = b""
        self._ahead = b""
        self._lock = threading.Lock()  # who reads one stream may ask how the other has begun

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self.has_begun():
            self._without_mark()
            return 0
        data = self._ahead or self._receive(len(buffer))
        piece, self._ahead = data[: len(buffer)], data[len(buffer) :]
        buffer[: len(piece)] = piece
        return len(piece)

    def has_begun(self) -> bool:
        """Waits for the mark, or for the end of the stream without one."""
        with self._lock:
            while not self._has_begun and (data := self._receive(PIECE)):
                noise, mark, self._ahead = (self._noise + data).partition(self._mark)
                self._noise = noise[-PIECE:]
                self._has_begun = bool(mark)
            return self._has_begun

    def all_said(self) -> bytes:
        """To the end of the stream, on both sides of the mark, but for what was read already."""
        self.has_begun()
        while data := self._receive(PIECE):
            self._ahead = (self._ahead + data)[-PIECE:]
        return self._noise + self._ahead


def unfit(destination: str, *streams: OwnOutput) -> RemoteUnfit:
    """For a command that did not begin, whose streams have ended."""
    said = printable(b"".join(stream.all_said() for stream in streams).decode(errors="replace")).splitlines()
    lines = [f"  it said: {line}\n" for line in said if line.strip()][-5:] or ["  it said nothing\n"]
    return RemoteUnfit(
        f"{destination} runs no commands for us\n{''.join(lines)}"
        f"your login shell, its start-up files or the prologue end it: try `ssh {shlex.quote(destination)} true`"
    )

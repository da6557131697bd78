"""What ranks print, on its way to who has called for them: lines marked with the rank, and only so many of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

FORWARDED_BYTES = 2**20
"""Of each stream of a rank; of what comes after only the end is shown."""
TAIL_BYTES = 2**13
PIECE_BYTES = 2**13


@dataclass
class Output:
    """One stream of one rank."""

    forward: Callable[[str], None]
    """Called with text, one or more lines."""
    sent: int = 0
    left_out: int = 0
    """Bytes."""
    _rest: bytes = b""
    """A line that has not ended yet."""
    _tail: bytearray = field(default_factory=bytearray)

    def add(self, data: bytes) -> None:
        self._tail += data
        del self._tail[:-TAIL_BYTES]
        rest = self._rest + data
        while self.sent < FORWARDED_BYTES and (end := _end(rest)):
            self.sent += end
            self.forward(rest[:end].decode(errors="replace"))
            rest = rest[end:]
        if self.sent >= FORWARDED_BYTES:
            self.left_out += len(rest)
            rest = b""
        self._rest = rest

    def end(self) -> None:
        """It has ended: what is left to tell."""
        if self.left_out:
            tail = bytes(self._tail)[-self.left_out :]
            missing = self.left_out - len(tail)
            gap = f"\n[… {missing:,} bytes left out …]\n" if missing else ""
            self.forward(gap + tail.decode(errors="replace"))
        elif self._rest:
            self.forward(self._rest.decode(errors="replace"))
        self._rest = b""

    def last_lines(self, count: int = 12) -> str:
        return "\n".join(bytes(self._tail).decode(errors="replace").splitlines()[-count:])


def _end(data: bytes) -> int:
    """Where the next piece ends: behind a line; within one only where that is longer than a piece. 0: not yet."""
    end = data.rfind(b"\n", 0, PIECE_BYTES) + 1
    if end or len(data) <= PIECE_BYTES:
        return end
    # not within a letter
    return next((end for end in range(PIECE_BYTES, PIECE_BYTES - 4, -1) if data[end] & 0xC0 != 0x80), PIECE_BYTES)


def marked(rank: int, text: str, *, size: int) -> str:
    """Each line with its rank before it."""
    width = len(str(size - 1))
    # not at all that Unicode calls the end of a line; and progress bars return to its begin
    lines = re.split(r"\r\n?|\n", text)
    return "".join(f"[{rank:{width}}] {line}\n" for line in (lines if lines[-1] else lines[:-1]))

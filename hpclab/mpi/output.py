"""What ranks print, on its way to who has called for them: lines marked with the rank, and only so many of them."""

from __future__ import annotations

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
        if self.sent >= FORWARDED_BYTES:
            self.left_out += len(data)
            return
        data = self._rest + data
        end = data.rfind(b"\n") + 1 or (len(data) if len(data) > PIECE_BYTES else 0)
        data, self._rest = data[:end], data[end:]
        for begin in range(0, len(data), PIECE_BYTES):
            if self.sent >= FORWARDED_BYTES:
                self.left_out += len(data) - begin
                return
            piece = data[begin : begin + PIECE_BYTES]
            self.sent += len(piece)
            self.forward(piece.decode(errors="replace"))

    def end(self) -> None:
        """It has ended: what is left to tell."""
        if self._rest and not self.left_out:
            self.forward(self._rest.decode(errors="replace"))
        elif self.left_out:
            told = bytes(self._tail).decode(errors="replace")
            shown = min(len(self._tail), self.left_out)
            self.forward(f"\n[… {self.left_out - shown:,} bytes left out …]\n{told}")
        self._rest = b""

    def last_lines(self, count: int = 12) -> str:
        return "\n".join(bytes(self._tail).decode(errors="replace").splitlines()[-count:])


def marked(rank: int, text: str, *, size: int) -> str:
    """Each line with its rank before it."""
    width = len(str(size - 1))
    return "".join(f"[{rank:{width}}] {line}\n" for line in text.splitlines())

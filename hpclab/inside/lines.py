"""The lines by which the ranks of one program hold each other: from rank 0 to every other, by TLS.

MPI does not tell when a rank is gone, and its end is a meeting for which the others would wait for ever. A line tells:
its end is the end of its rank, whatever that was. A rank that has done its part says so, and waits for the word of rank
0: when nobody is missing, all leave MPI together; else everybody ends without that.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

JOIN_WITHIN_S = 60
"""How long rank 0 waits for the first word of each rank; they all have just met."""
LEAVE_WITHIN_S = 5.0
"""How long the others may take for their end when the script is over."""

DONE, OVER, TOGETHER = b"done\n", b"over\n", b"together\n"
SCRIPT = 1
"""The rank that runs the script."""


@dataclass(kw_only=True)
class Switchboard:
    """Rank 0's end of all lines."""

    ranks: int
    all_workers_lost: Callable[[], None]
    done: set[int] = field(default_factory=set)
    lost: set[int] = field(default_factory=set)
    port: int = 0
    _writers: dict[int, asyncio.StreamWriter] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def listen(self, host: str, context: ssl.SSLContext) -> None:
        self._server = await asyncio.start_server(self._hold, host, 0, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]
        asyncio.get_running_loop().call_later(JOIN_WITHIN_S, self._give_up_on_the_absent)

    @property
    def others(self) -> set[int]:
        return set(range(1, self.ranks))

    async def script_is_over(self) -> None:
        await self._until(lambda: SCRIPT in self.done | self.lost)

    async def dismiss(self) -> None:
        """The script is over: the workers end, too."""
        for rank in self._writers.keys() - {SCRIPT}:
            self._say(rank, OVER)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_WITHIN_S):
                await self._until(lambda: self.done | self.lost == self.others)

    async def leave(self) -> bool:
        """Whether all leave MPI together; then they have been told."""
        whole = self.done == self.others
        for rank in self._writers:
            if whole:
                self._say(rank, TOGETHER)
            self._writers[rank].close()
        self._server.close()
        # the words are on their way when the loop has had a turn
        await asyncio.sleep(0)
        return whole

    def _say(self, rank: int, word: bytes) -> None:
        with contextlib.suppress(OSError):
            self._writers[rank].write(word)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    async def _hold(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        keep_alive(writer.get_extra_info("socket"))
        rank = -1
        with contextlib.suppress(OSError, ValueError):
            rank = int(await reader.readline())
            self._writers[rank] = writer
            while word := await reader.readline():
                if word == DONE:
                    self.done.add(rank)
                    self._changed.set()
        self._lose({rank} - self.done)

    def _give_up_on_the_absent(self) -> None:
        self._lose(self.others - self._writers.keys())

    def _lose(self, ranks: set[int]) -> None:
        self.lost |= ranks & self.others
        self._changed.set()
        if self.others - {SCRIPT} <= self.lost:
            self.all_workers_lost()


@dataclass(frozen=True, kw_only=True)
class Line:
    """The script's end of its line. It is not read before the end, and needs no thread."""

    socket: ssl.SSLSocket

    def leave(self) -> bool:
        """The script is over. Whether all leave MPI together; blocks until they are ready for it."""
        self.socket.settimeout(LEAVE_WITHIN_S + 2)
        try:
            self.socket.sendall(DONE)
            with self.socket.makefile("rb") as words:
                return words.readline() == TOGETHER
        except OSError:
            return False


def line_of_script(host: str, port: int, context: ssl.SSLContext) -> Line:
    line = context.wrap_socket(socket.create_connection((host, port), JOIN_WITHIN_S))
    keep_alive(line)
    line.sendall(b"%d\n" % SCRIPT)
    # a child that lives longer than the script must not keep up its line
    os.register_at_fork(after_in_child=line.close)
    return Line(socket=line)


class WorkerLine:
    """A worker rank's end of its line."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def script_is_over(self) -> None:
        """Or rank 0 is gone."""
        await self._word()

    async def leave(self) -> bool:
        """This rank has done its part. Whether all leave MPI together; waits for that as long as the script runs."""
        with contextlib.suppress(OSError):
            self._writer.write(DONE)
            await self._writer.drain()
        while word := await self._word():
            if word == TOGETHER:
                return True
        return False

    async def _word(self) -> bytes:
        with contextlib.suppress(OSError):
            return await self._reader.readline()
        return b""


async def line_of_worker(rank: int, host: str, port: int, context: ssl.SSLContext) -> WorkerLine:
    reader, writer = await asyncio.open_connection(host, port, ssl=context)
    keep_alive(writer.get_extra_info("socket"))
    writer.write(b"%d\n" % rank)
    return WorkerLine(reader, writer)


def keep_alive(line: Any) -> None:
    """A node that dies closes nothing."""
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4}.items():
        if hasattr(socket, option):
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)

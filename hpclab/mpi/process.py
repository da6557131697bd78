"""A rank's process, seen from the worker beside it: its line, its guardian's, and what it prints.

The worker starts it itself, or it is launched by somebody else (`launch`) and comes to sockets in a folder of ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field

from hpclab.mpi.line import LINE, OUTPUT, Line, Message
from hpclab.mpi.output import Output
from hpclab.mpi.parcel import Parcel

END_WITHIN_S = 5
OUTPUT_WITHIN_S = 2
"""What a rank has started may hold its output open longer than that."""


@dataclass
class Process:
    line: Line
    life: Line
    """Its guardian's; closed, the rank is ended."""
    readers: list[asyncio.Task[None]] = field(default_factory=list)

    async def messages(self) -> AsyncIterator[tuple[Message, Parcel | None]]:
        """The rank's own words, until it says no more; then its guardian's, how it has ended."""
        for source in (self.line, self.life):
            await _readable(source)
            while heard := source.hear():
                yield heard
                await _readable(source)

    async def all_output(self) -> None:
        """Read what it has printed to its end."""
        _, late = await asyncio.wait(self.readers, timeout=OUTPUT_WITHIN_S)
        for reader in late:
            reader.cancel()

    def read(self, streams: Mapping[asyncio.StreamReader, Output]) -> None:
        self.readers += [asyncio.create_task(_read(stream, output)) for stream, output in streams.items()]


@contextlib.asynccontextmanager
async def started(
    environ: Mapping[str, str], outputs: list[Output]
) -> AsyncIterator[tuple[Process, socket.socket, int]]:
    """A rank of our own; with the server's end of PMI, and the number of the rank's. In the end it is gone."""
    kinds = (socket.SOCK_SEQPACKET, socket.SOCK_SEQPACKET, socket.SOCK_STREAM)
    pairs = [socket.socketpair(socket.AF_UNIX, kind) for kind in kinds]
    (line, life, pmi), theirs = zip(*pairs, strict=True)
    fds = [end.fileno() for end in theirs]
    child = await asyncio.create_subprocess_exec(
        *[sys.executable, "-P", "-m", "hpclab.mpi.rank", *map(str, fds)],
        pass_fds=fds,
        env=dict(environ),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    for end in theirs:
        end.close()
    assert child.stdout
    assert child.stderr
    process = Process(Line(line), Line(life))
    process.read(dict(zip((child.stdout, child.stderr), outputs, strict=True)))
    try:
        yield process, pmi, fds[2]
    finally:
        life.close()
        try:
            await asyncio.wait_for(child.wait(), END_WITHIN_S)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
        await process.all_output()
        line.close()
        pmi.close()


@dataclass(frozen=True)
class Reception:
    """Where a rank that somebody else starts finds us."""

    folder: str
    line: socket.socket
    output: socket.socket

    @contextlib.asynccontextmanager
    async def arrived(self, outputs: list[Output]) -> AsyncIterator[Process]:
        """The rank, when it has come. In the end it is ended."""
        loop = asyncio.get_running_loop()
        line, life = [(await loop.sock_accept(self.line))[0] for _ in range(2)]
        streams = [(await loop.sock_accept(self.output))[0] for _ in range(2)]
        connections = [await asyncio.open_connection(sock=stream) for stream in streams]
        # nobody else comes, and if we are killed it is gone
        shutil.rmtree(self.folder, ignore_errors=True)
        for end in (line, life):
            end.setblocking(True)
        process = Process(Line(line), Line(life))
        process.read({reader: output for (reader, _), output in zip(connections, outputs, strict=True)})
        try:
            yield process
        finally:
            # its guardian hears that there is nothing more to say, ends the rank, and closes the line
            life.shutdown(socket.SHUT_WR)
            with contextlib.suppress(TimeoutError, OSError):
                async with asyncio.timeout(END_WITHIN_S):
                    while await _next(process.life):
                        pass
            await process.all_output()
            for _, writer in connections:
                writer.close()
            for end in (line, life):
                end.close()


@contextlib.contextmanager
def reception() -> Iterator[Reception]:
    """In a folder that is ours alone."""
    folder = tempfile.mkdtemp(prefix="hpclab-", dir=None if len(tempfile.gettempdir()) < 70 else "/tmp")
    try:
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line,
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as output,
        ):
            for end, name in ((line, LINE), (output, OUTPUT)):
                end.bind(f"{folder}/{name}")
                end.listen()
                end.setblocking(False)
            yield Reception(folder, line, output)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _next(source: Line) -> tuple[Message, Parcel | None] | None:
    await _readable(source)
    return source.hear()


async def _readable(end: Line) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(end, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(end)


async def _read(stream: asyncio.StreamReader, output: Output) -> None:
    try:
        while data := await stream.read(2**18):
            output.add(data)
    except ConnectionError:
        pass
    finally:
        output.end()

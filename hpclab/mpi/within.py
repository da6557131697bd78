"""A rank that is the Dask worker itself, which is a rank of a dask-mpi program: the Dask task `sit_within`.

No data is copied, and no world is made: the ranks get a communicator of their own within dask-mpi's. Nor is anything
protected: the function runs in a thread of the worker, which nobody can end.
"""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Any

from distributed import Worker, get_worker, secede

from hpclab.errors import WorldFailed
from hpclab.mpi.chunks import Chunks, Index, Layout
from hpclab.mpi.fence import Fence
from hpclab.mpi.output import Output
from hpclab.mpi.seat import LOOK_EVERY_S, NotWanted, Seat, is_wanted, lost, tell

WORD_WITHIN_S = 10
HOW = "in_process needs workers that are ranks of one dask-mpi program; without it, the ranks run beside any workers"


def sit_within(
    seat: Seat, function: bytes, chunks: list[Any], indices: tuple[Index, ...], layout: Layout, args: list[Any]
) -> Any:
    """The Dask task of one rank: its result. Raises RankFailed, WorldFailed or WorkerLost."""
    worker = get_worker()
    if worker.address != seat.worker:
        raise lost(seat.rank, seat.worker)
    key = worker.get_current_task()
    secede()
    tell(worker, seat, "sits", host=socket.gethostname())
    fence = Fence(worker, seat.head, run=seat.run, rank=seat.rank, size=seat.size)
    try:
        comm = _communicator(worker, key, seat, fence)
        tell(worker, seat, "begun")
        with _printing(worker, seat):
            result = _called(seat, comm, function, Chunks(chunks, indices, layout), args)
        comm.Free()
        return result
    except NotWanted:
        return None
    finally:
        fence.leave()
        tell(worker, seat, "left")


def _called(seat: Seat, comm: Any, function: bytes, chunks: Chunks, args: Sequence[Any]) -> Any:
    try:
        return pickle.loads(function)(chunks, comm, *args)
    except BaseException as error:
        # where the MPI library can, this ends what the others wait for
        with contextlib.suppress(Exception):
            comm.Revoke()
        if isinstance(error, SystemExit):
            raise seat.failed("exit", f"called sys.exit({'' if error.code is None else repr(error.code)})") from error
        cause = b""
        with contextlib.suppress(Exception):
            cause = pickle.dumps(error)
        frames = error.__traceback__.tb_next if error.__traceback__ else None
        raise seat.raised("".join(traceback.format_exception(type(error), error, frames)), cause) from error


def _communicator(worker: Worker, key: Any, seat: Seat, fence: Fence) -> Any:
    """Of the ranks of this run, within the world that dask-mpi was started in; raises WorldFailed."""
    MPI = _mpi(seat)
    world = MPI.COMM_WORLD
    ranks = [told["rank"] for told in _gathered(worker, key, fence, {"rank": world.Get_rank()})]
    if len(set(ranks)) < len(ranks):
        raise WorldFailed(f"the workers are not ranks of one MPI world: their ranks are {ranks}\n{HOW}")
    # several runs at once must not take each other's words
    tag = int(seat.run, 16) % 2**15
    _hear_each_other(seat, world, ranks, tag)
    return world.Create_group(world.Get_group().Incl(ranks), tag)


def _mpi(seat: Seat) -> Any:
    MPI = sys.modules.get("mpi4py.MPI")
    if MPI is None or not MPI.Is_initialized() or MPI.COMM_WORLD.Get_size() == 1:
        raise WorldFailed(
            f"the worker of rank {seat.rank} on {socket.gethostname()} is no rank of an MPI program\n{HOW}"
        )
    if MPI.Query_thread() < MPI.THREAD_MULTIPLE:
        raise WorldFailed(
            f"this MPI library lets only one thread of a process use it, but Dask's workers have many\n{HOW}"
        )
    return MPI


def _gathered(worker: Worker, key: Any, fence: Fence, brought: Any) -> list[Any]:
    waiting: Future[list[Any]] = asyncio.run_coroutine_threadsafe(fence.wait(brought), worker.loop.asyncio_loop)
    while True:
        try:
            return waiting.result(LOOK_EVERY_S)
        except TimeoutError:
            if waiting.done():
                raise
        if not is_wanted(worker, key):
            waiting.cancel()
            raise NotWanted


def _hear_each_other(seat: Seat, world: Any, ranks: Sequence[int], tag: int) -> None:
    """Two dask-mpi programs number their ranks alike; only whoever hears the other is of the same world."""
    if seat.rank == 0:
        for rank in ranks[1:]:
            world.isend(seat.run, rank, tag).Wait()
        return
    deadline = time.monotonic() + WORD_WITHIN_S
    while not world.Iprobe(ranks[0], tag):
        if time.monotonic() > deadline:
            raise WorldFailed(f"rank {seat.rank} does not hear rank 0: they are not of one MPI world\n{HOW}")
        time.sleep(0.001)
    world.recv(source=ranks[0], tag=tag)


class _PerThread:
    """A stream of Python's for all threads, but for those whose output goes elsewhere."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.outputs: dict[int, Output] = {}

    def write(self, text: str) -> int:
        output = self.outputs.get(threading.get_ident())
        if output is None:
            return int(self._stream.write(text))
        output.add(text.encode(errors="replace"))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def _printing(worker: Worker, seat: Seat) -> Iterator[None]:
    """What this thread prints by Python goes to the caller."""
    streams = {}
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, _PerThread):
            stream = _PerThread(stream)
            setattr(sys, name, stream)
        output = Output(lambda text, name=name: tell(worker, seat, "output", stream=name, text=text))  # type: ignore[misc]
        streams[name] = stream
        stream.outputs[threading.get_ident()] = output
    try:
        yield
    finally:
        for stream in streams.values():
            stream.outputs.pop(threading.get_ident()).end()

"""What a Dask worker does for the rank beside it: the Dask task `sit`, which ends when the rank has, with its result.

The task gives its thread back to the worker at once: whatever else is computed there, and however many runs there are,
all ranks of a run begin, and none waits for another that waits for it. All is in an event loop of its own, in that
thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import psutil
from distributed import Worker, get_worker, secede
from distributed.core import Status

from hpclab.errors import HpclabError, RankFailed, WorkerLost, WorldFailed
from hpclab.launchers import ONE_NODE
from hpclab.mpi.chunks import Index, Layout
from hpclab.mpi.fence import Fence, run_at
from hpclab.mpi.launch import Berth, aborted, end_daemons, find_mpiexec, launched, mpi_environment, run_daemon
from hpclab.mpi.line import Message
from hpclab.mpi.output import Output
from hpclab.mpi.parcel import Opened, Parcel, pack
from hpclab.mpi.pmi import Abort, Barrier, Conversation
from hpclab.mpi.process import Process, Reception, reception, started
from hpclab.units import format_memory

LOOK_EVERY_S = 0.2
"""How often it is seen whether the task is still wanted."""
WORLD_WITHIN_S = 60
"""How long MPI_Init may take once all ranks are there."""
STACK_WITHIN_S = 0.3
LONGEST_TEXT = 8000
"""Of an error: Dask makes another error of one that tells more."""
LAUNCHER_WAITS_S = 1.0
RANK_0_TELLS_WITHIN_S = 15
OPEN_MPI = "Open MPI"
_LAUNCH = object()
"""The rank has to be launched by its MPI library's own launcher."""
_found: dict[str, tuple[str, str]] = {}
"""What an earlier rank beside this worker has found: its MPI library, and where that is."""
T = TypeVar("T")


class NotWanted(Exception):
    """The caller has given the run up, or the worker leaves."""


@dataclass(frozen=True, kw_only=True)
class Seat:
    """One rank of one run."""

    run: str
    rank: int
    size: int
    worker: str
    """The address of the Dask worker beside which it runs."""
    head: str
    """That of rank 0's."""
    topic: str
    """Under which the caller hears of it."""
    timeout_s: float | None
    path: tuple[str, ...]
    """Where the caller's Python looks for modules."""

    def failed(self, kind: str, text: str, host: str = "", *, cause: bytes = b"") -> RankFailed:
        host = host or socket.gethostname()
        who = f"rank {self.rank} of {self.size} on {host}"
        if len(text) > LONGEST_TEXT:
            text = f"{text[: LONGEST_TEXT // 4]}\n[…]\n{text[-LONGEST_TEXT * 3 // 4 :]}"
        return RankFailed(f"{who} {text}", rank=self.rank, host=host, kind=kind, cause=cause)

    def raised(self, trace: str, cause: bytes) -> RankFailed:
        """By the function."""
        return self.failed("raised", "raised\n" + indented(trace), cause=cause)


@dataclass(frozen=True)
class Work:
    """What a rank computes."""

    function: bytes
    chunks: Sequence[Any]
    indices: tuple[Index, ...]
    layout: Layout
    args: tuple[Any, ...]


def sit(
    seat: Seat, function: bytes, chunks: list[Any], indices: tuple[Index, ...], layout: Layout, args: list[Any]
) -> Any:
    """The Dask task of one rank: its result. Raises RankFailed, WorldFailed or WorkerLost."""
    worker = get_worker()
    if worker.address != seat.worker:
        raise lost(seat.rank, seat.worker)
    key = worker.get_current_task()
    secede()
    try:
        return asyncio.run(_Held(worker, key, seat, Work(function, chunks, indices, layout, tuple(args))).hold())
    except HpclabError as error:
        # ours explains nothing, and the worker logs it
        raise error.with_traceback(None) from None


def indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.rstrip().splitlines())


def lost(rank: int, worker: str) -> WorkerLost:
    return WorkerLost(
        f"rank {rank} is gone, and its result with it: its Dask worker {worker} has left\n"
        "say it again, or say `retries=` for more runs on the workers that are left",
        rank=rank,
    )


@dataclass
class _Held:
    """A rank that is held in its seat."""

    worker: Worker
    key: Any
    seat: Seat
    work: Work
    process: Process = field(init=False)
    pmi_fd: int = -1
    """The number of the rank's end of PMI."""
    given: Parcel | None = None
    """What it has been given to compute."""
    conversation: Conversation | None = None
    pid: int = 0
    stack: int = -1
    """Where the rank writes the Python stack of its threads when it gets SIGUSR1."""
    library: str = ""
    library_path: str = ""
    has_met: bool = False
    world_environ: dict[str, str] = field(default_factory=dict)
    """What the rank needs to join the world."""
    launcher_said: str = ""
    """The last of it; to rank 0 alone."""
    is_up: bool = False
    result: Parcel | None = None

    def __post_init__(self) -> None:
        self.host = socket.gethostname()
        who = {"run": self.seat.run, "rank": self.seat.rank, "size": self.seat.size}
        self.fence = Fence(self.worker, self.seat.head, **who)  # type: ignore[arg-type]
        self.outputs = [Output(self._forwarder(stream)) for stream in ("stdout", "stderr")]

    def tell(self, what: str, **details: Any) -> None:
        """The caller hears of it."""
        tell(self.worker, self.seat, what, **details)

    def _forwarder(self, stream: str) -> Callable[[str], None]:
        return lambda text: self.tell("output", stream=stream, text=text)

    # from the first word to the last

    async def hold(self) -> Any:
        self.tell("sits", host=self.host)
        packing = asyncio.ensure_future(asyncio.to_thread(self.pack))
        try:
            self.library, self.library_path = _found.get("library", ("", ""))
            result = _LAUNCH
            if _family(self.library) != OPEN_MPI:
                async with started(self.environment(), self.outputs) as (self.process, pmi, self.pmi_fd):
                    result = await _beside(self.play(packing), self.wanted(), self.serve_pmi(pmi))
            if result is _LAUNCH:
                result = await _beside(self.launch(packing), self.wanted())
            return result
        except NotWanted:
            return None
        finally:
            # a copy that has begun cannot be interrupted
            await asyncio.gather(packing, return_exceptions=True)
            for parcel in (self.given, self.result):
                if parcel:
                    parcel.close()
            if self.stack >= 0:
                os.close(self.stack)
            self.fence.leave()
            self.tell("left")

    async def launch(self, packing: asyncio.Future[None]) -> Any:
        """By the MPI library's own launcher, which rank 0's seat runs for all."""
        if not self.has_met:
            await self.meet()
        with reception() as here:
            own = Berth(self.host, self.worker.address, sys.executable, here.folder)
            berths = [Berth(**told) for told in await self.fenced(vars(own))]
            if self.seat.rank:
                try:
                    return await self.arrives(here, packing)
                finally:
                    await self.on_loop(end_daemons(self.seat.run))
            async with launched(find_mpiexec(self.library_path), berths, self.run_there) as mpiexec:
                return await _beside(self.arrives_first(here, packing), self.alive(mpiexec, berths))

    async def arrives_first(self, here: Reception, packing: asyncio.Future[None]) -> Any:
        """Rank 0, which leaves the launcher the time to say why it has ended it."""
        try:
            return await self.arrives(here, packing)
        except RankFailed as error:
            if error.kind in ("told", "lost", "exited"):
                await asyncio.sleep(2 * LAUNCHER_WAITS_S)
            raise

    async def alive(self, mpiexec: asyncio.subprocess.Process, berths: Sequence[Berth]) -> None:
        """As long as the launcher is; raises RankFailed when it tells of MPI_Abort, WorldFailed of other errors."""
        assert mpiexec.stdout
        said = b""
        while data := await mpiexec.stdout.read(2**16):
            said = (said + data)[-4000:]
            self.launcher_said = said.decode(errors="replace").strip()
        if status := await mpiexec.wait():
            if found := aborted(self.launcher_said):
                rank, code = found
                raise replace(self.seat, rank=rank).failed("abort", f"called MPI_Abort, with {code}", berths[rank].host)
            # who has failed first tells it better, if anybody does
            await asyncio.sleep(LAUNCHER_WAITS_S)
            raise WorldFailed(f"the MPI launcher ended with exit status {status}\n{indented(self.launcher_said)}")

    async def arrives(self, here: Reception, packing: asyncio.Future[None]) -> Any:
        # rank 0 tells it better, for it knows what the launcher says
        within_s = WORLD_WITHIN_S + (RANK_0_TELLS_WITHIN_S if self.seat.rank else 0)
        try:
            async with asyncio.timeout(within_s) as limit, here.arrived(self.outputs) as self.process:
                limit.reschedule(None)
                return await self.play(packing)
        except TimeoutError:
            evidence = f"\n{indented(self.launcher_said)}" if self.launcher_said else ""
            raise WorldFailed(
                f"rank {self.seat.rank} of {self.seat.size} on {self.host} was not launched within {WORLD_WITHIN_S} s"
                f"{evidence}\n"
                "the launcher's daemons may not reach each other by the network that it has chosen"
            ) from None

    async def run_there(self, address: str, command: str) -> tuple[int, str]:
        return await self.on_loop(run_at(self.worker, address, run_daemon, run=self.seat.run, command=command))

    def pack(self) -> None:
        """The work into shared memory."""
        import numpy as np

        # what is cut out of a larger array would otherwise be copied twice
        chunks = [
            np.ascontiguousarray(chunk) if type(chunk) is np.ndarray and not chunk.flags.forc else chunk
            for chunk in self.work.chunks
        ]
        work = (self.work.function, (chunks, self.work.indices, self.work.layout), self.work.args)
        try:
            self.given = pack(work, check=self.check_room)
        except (RankFailed, MemoryError):
            raise
        except Exception as error:
            raise self.seat.failed("unpacked", f"cannot get its chunks or arguments: {_words(error)}") from error

    def check_room(self, needed_bytes: int) -> None:
        """Raises where the batch system would soon end the job for its memory, or the node has none."""
        free_bytes = psutil.virtual_memory().available
        if limit_bytes := self.worker.memory_manager.memory_limit:
            free_bytes = min(free_bytes, limit_bytes - psutil.Process().memory_info().rss)
        if needed_bytes > free_bytes:
            raise self.seat.failed(
                "room",
                f"has no room for its chunks, which it gets a copy of: {format_memory(needed_bytes)} are needed, "
                f"{format_memory(max(0, free_bytes))} are free at {self.worker.address}\n"
                "spread the data over more workers, or over ones with more memory (`hpclab add-worker`); or say "
                "`in_process=True`, which copies nothing",
            )

    def environment(self) -> dict[str, str]:
        """The worker's, but for the MPI launcher's variables; the cores of the worker are the rank's."""
        threads = str(self.worker.state.nthreads)
        own = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)
        return {**mpi_environment(os.environ), **own}

    # what the rank says, and what is said to it

    async def play(self, packing: asyncio.Future[None]) -> Any:
        """Its result."""
        try:
            async with asyncio.timeout(None) as limit:
                async for message, parcel in self.process.messages():
                    match message["what"]:
                        case "hello":
                            assert parcel
                            if self.stack >= 0:
                                os.close(self.stack)
                            self.pid, self.stack = message["pid"], parcel.fd
                        case "library":
                            self.library, self.library_path = message["text"], message["path"]
                            _found["library"] = self.library, self.library_path
                            if not self.has_met and await self.meet() == OPEN_MPI:
                                return _LAUNCH
                            limit.reschedule(asyncio.get_running_loop().time() + WORLD_WITHIN_S)
                            self.process.line.say("world", environ=self.world_environ)
                        case "up":
                            limit.reschedule(None)
                            self.check_world(message["size"])
                            await packing
                            self.process.line.say("work", self.given, path=list(self.seat.path))
                            self.tell("begun")
                            if self.seat.timeout_s is not None:
                                limit.reschedule(asyncio.get_running_loop().time() + self.seat.timeout_s)
                        case "failed":
                            raise await self.told(message, parcel)
                        case "result":
                            self.result = parcel
                            self.tell("done")
                        case "ended" if message["code"] == 0 and self.result:
                            return await asyncio.to_thread(self.opened_result)
                        case "ended":
                            raise await self.how_it_ended(message["code"], told=message["told"])
        except TimeoutError:
            raise await self.too_slow() from None
        raise self.seat.failed("lost", "is gone, and nobody knows why")

    def opened_result(self) -> Any:
        assert self.result
        try:
            return Opened(self.result, self.given).value
        except Exception as error:
            raise self.seat.failed(
                "result",
                f"returned what its Dask worker cannot open: {_words(error)}\n"
                "let the function return arrays and numbers, or things of modules that are installed for the workers",
            ) from error

    async def wanted(self) -> None:
        """Until the task is not wanted any more, or its worker leaves."""
        while is_wanted(self.worker, self.key):
            await asyncio.sleep(LOOK_EVERY_S)
        raise NotWanted

    async def meet(self) -> str:
        """Wait for all ranks, and see that they can become one world; the family of their MPI library."""
        told = await self.fenced({"node": _node(self.host), "host": self.host, "library": self.library})
        self.has_met = True
        families = {_family(rank["library"]) for rank in told}
        if len(families) > 1:
            libraries = {rank["library"].splitlines()[0].strip(): rank["host"] for rank in told}
            found = "\n".join(f"  {library} on {host}" for library, host in libraries.items())
            raise WorldFailed(
                f"the ranks have different MPI libraries, which do not talk to each other\n{found}\n"
                "give all workers the same environment (`modules`, `conda`, `venv`), and start them anew"
            )
        if families == {OPEN_MPI}:
            return OPEN_MPI
        nodes = [rank["node"] for rank in told]
        self.conversation = Conversation(
            rank=self.seat.rank, size=self.seat.size, name=f"hpclab-{self.seat.run}", hosts=nodes
        )
        environ = {"PMI_FD": self.pmi_fd, "PMI_RANK": self.seat.rank, "PMI_SIZE": self.seat.size}
        self.world_environ = {name: str(value) for name, value in environ.items()}
        if len(set(nodes)) == 1:
            self.world_environ |= ONE_NODE
        return families.pop()

    async def fenced(self, brought: Any) -> list[Any]:
        """What all ranks have brought."""
        try:
            return await self.on_loop(self.fence.wait(brought))
        except OSError as error:
            raise self.seat.failed("alone", f"has lost rank 0, by whom all find each other: {error}") from error

    async def on_loop(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """On the worker's own event loop, where its connections are."""
        waiting = asyncio.run_coroutine_threadsafe(coroutine, self.worker.loop.asyncio_loop)
        return await asyncio.wrap_future(waiting)

    async def serve_pmi(self, end: socket.socket) -> None:
        """PMI's server for this rank, until the rank has ended."""
        # a copy of it is closed here: a rank that is to be ended shall not crash before, since nobody answers it
        reader, writer = await asyncio.open_connection(sock=end.dup())
        with contextlib.suppress(ConnectionError), contextlib.closing(writer):
            while line := await reader.readline():
                assert self.conversation is not None
                answer = self.conversation.answer(line.decode())
                if isinstance(answer, Barrier):
                    answer = self.conversation.passed(await self.fenced(dict(answer.puts)))
                if isinstance(answer, Abort):
                    # MPICH does not end by itself: it leaves that to whoever has started it
                    raise self.seat.failed("abort", f"called MPI_Abort, with {answer.exit_status}")
                writer.write(answer.encode())
                await writer.drain()

    def check_world(self, size: int) -> None:
        """Raises WorldFailed of a rank that believes itself in another world than the one it was started for."""
        self.is_up = True
        if size != self.seat.size:
            raise WorldFailed(
                f"{self.seat.size} ranks were started, but rank {self.seat.rank} on {self.host} found itself in a "
                f"world of {size}\nits MPI library does not find the others by PMI-1: {self.library.splitlines()[0]}\n"
                "give the workers an mpi4py for MPICH, Intel MPI or Open MPI: pip install mpi4py mpich"
            )

    # how it can fail

    async def told(self, message: Message, parcel: Parcel | None) -> Exception:
        """What the rank itself has told."""
        kind, text, cause = message["kind"], message["text"].rstrip(), b""
        if parcel:
            with contextlib.suppress(Exception):
                cause = Opened(parcel).value
            parcel.close()
        if kind == "mpi4py":
            return WorldFailed(
                f"rank {self.seat.rank} of {self.seat.size} on {self.host} has no MPI: {text}\n"
                "install it for the workers: pip install mpi4py mpich, or load your site's MPI in their prologue"
            )
        return self.seat.raised(text, cause) if kind == "raised" else self.seat.failed(kind, text, cause=cause)

    async def how_it_ended(self, code: int, *, told: bool) -> Exception:
        """Of a rank that is gone without having told why."""
        await self.process.all_output()
        said = self.outputs[1].last_lines()
        evidence = f"\n{indented(said)}" if said else ""
        how = f"was killed by signal {-code} ({_signal_name(-code)})" if code < 0 else f"ended with exit status {code}"
        if told:
            return self.seat.failed("told", f"was told to end, by the MPI launcher or somebody on its host{evidence}")
        if not self.is_up:
            return WorldFailed(
                f"rank {self.seat.rank} of {self.seat.size} on {self.host} {how} when it should join MPI's world"
                f"{evidence}"
            )
        if self.result:
            return self.seat.failed("finalize", f"{how} in MPI_Finalize, after its function had returned{evidence}")
        if code > 0:
            return self.seat.failed("exited", f"{how}, before its function had returned{evidence}")
        hint = ", as the system does when memory runs out" if code == -signal.SIGKILL else ""
        return self.seat.failed("died", f"{how}{hint}, before its function had returned{evidence}")

    async def too_slow(self) -> Exception:
        if not self.is_up:
            return WorldFailed(
                f"rank {self.seat.rank} of {self.seat.size} on {self.host} was not in MPI's world after "
                f"{WORLD_WITHIN_S} s\n"
                "the ranks' nodes may not reach each other by the network that MPI has chosen"
            )
        with contextlib.suppress(OSError):
            os.kill(self.pid, signal.SIGUSR1)
        await asyncio.sleep(STACK_WITHIN_S)
        stack = os.pread(self.stack, 20_000, 0).decode(errors="replace").splitlines()
        own = next((number for number, line in enumerate(stack) if "hpclab/mpi/rank.py" in line), len(stack))
        where = indented("\n".join(stack[:own]) or "(it did not say)")
        if self.result:
            return self.seat.failed(
                "waits", f"had its result, but waited for the others after {self.seat.timeout_s:g} s"
            )
        return self.seat.failed("hangs", f"had not ended after {self.seat.timeout_s:g} s; it was at\n{where}")


def tell(worker: Worker, seat: Seat, what: str, **details: Any) -> None:
    """To the caller."""
    worker.log_event(seat.topic, {"run": seat.run, "rank": seat.rank, "what": what, **details})


def is_wanted(worker: Worker, key: Any) -> bool:
    """The caller still waits for this task, and its worker does not leave."""
    task = worker.state.tasks.get(key)
    is_here = worker.status in (Status.running, Status.paused, Status.closing_gracefully)
    return task is not None and task.state in ("executing", "long-running") and is_here


async def _beside(main: Coroutine[Any, Any, Any], *others: Coroutine[Any, Any, None]) -> Any:
    """What the first returns; the others go on beside it, and what one of them raises ends it."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in (main, *others)]
    pending = set(tasks)
    try:
        while not tasks[0].done():
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {tasks[0]}:
                task.result()
        return tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _node(host: str) -> str:
    """Ranks with the same share memory; two jobs on one host may each have a /dev/shm of their own."""
    with contextlib.suppress(OSError):
        return f"{host} {Path('/dev/shm').stat().st_dev}"
    return host


def _family(library: str) -> str:
    """Which MPI libraries talk to each other."""
    return OPEN_MPI if OPEN_MPI in library else "MPICH"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"

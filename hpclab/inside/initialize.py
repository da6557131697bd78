"""`hpclab.initialize()`: a script that runs on many MPI ranks gets a Dask cluster of them.

    mpirun -np 5 python script.py

Rank 0 becomes the scheduler, rank 1 goes on with the script, all others become workers, and never return. It has the
roles of `dask_mpi.initialize()`; but what is not said comes from the batch job around it, all traffic is TLS by
secrets that never leave the ranks' memory, and the program ends with the script: quietly, and with its exit status.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ctypes
import logging
import os
import re
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from ssl import SSLContext
from typing import Any, NoReturn

import dask
from distributed import Client, Nanny, Scheduler
from distributed.security import Security
from distributed.utils import import_term

from hpclab.allocation import Allocation, allocation
from hpclab.credentials import Credentials, new_credentials
from hpclab.errors import ConfigError, HpclabError, TookTooLong
from hpclab.inside import failure
from hpclab.inside.certificates import tls_in_memory
from hpclab.inside.lines import LEAVE_WITHIN_S, SCRIPT, Line, Switchboard, line_of_script, line_of_worker
from hpclab.inside.network import Way, own_addresses, way_among
from hpclab.inside.patience import Patience
from hpclab.inside.scratch import private_folder
from hpclab.inside.worker import REMOVED
from hpclab.launchers import ONE_NODE
from hpclab.segments import unname
from hpclab.units import counted, format_duration, whole_number

LOOPBACK = "127.0.0.1"
WAIT_S = 600.0
EXIT_FUNCTIONS_WITHIN_S = 2
# `client.restart()`: the scheduler says it and hangs up, and a worker may hear the second first
COMES_BACK_AFTER = (REMOVED, "worker-handle-scheduler-connection-broken")
SILENT = logging.CRITICAL + 1
ENDED_BY_SIGTERM = 128 + signal.SIGTERM

_client: Client | None = None


def initialize(
    interface: str | None = None,
    nthreads: int | None = None,
    local_directory: str | None = None,
    memory_limit: int | float | str | None = None,
    dashboard_address: str | int | None = None,
    worker_class: str | type = "hpclab.inside.worker.Worker",
    worker_options: Mapping[str, Any] | None = None,
    comm: Any = None,
    n_workers: int | None = None,
    timeout_s: float = WAIT_S,
) -> Client:
    """A connected client, on rank 1; the other ranks serve it, and end when the script has ended.

    What is not given comes from the batch job: a worker's threads and memory (`nthreads`, `memory_limit`), the folder
    for what it spills (`local_directory`). Waits until all workers are there, or `n_workers` of them. The scheduler
    listens on the loopback address if all ranks are on one node, else on all networks, or on that of `interface`.
    There is a dashboard only at a `dashboard_address` (a port), on the loopback address.

    In a program that `hpclab run --launch file` has started, it connects to the scheduler that is there already.
    """
    global _client
    if _client is None or _client.status == "closed":
        if "HPCLAB_PROGRAM_WORKERS" in os.environ:
            _client = _joined(os.environ["HPCLAB_PROGRAM_WORKERS"], n_workers, timeout_s)
        elif _client is not None:
            _client = Client()
        else:
            mine = allocation(os.environ)
            program = Program(
                comm=_world(comm, mine),
                allocation=mine,
                interface=interface or "",
                dashboard_address=dashboard_address,
                worker_class=worker_class,
                worker_options={
                    "nthreads": nthreads or mine.cores_per_task or 1,
                    "memory_limit": _memory_limit(memory_limit, mine),
                    **(worker_options or {}),
                },
                local_directory=local_directory or mine.scratch,
                n_workers=n_workers,
                timeout_s=timeout_s,
            )
            _client = program.begin()
    return _client


def _joined(workers: str, n_workers: int | None, timeout_s: float) -> Client:
    """Somebody else has started the scheduler and the workers; Dask's own settings lead to them."""
    client = Client()
    _wait_for_workers(client, n_workers if n_workers is not None else int(workers), timeout_s)
    return client


def _memory_limit(given: int | float | str | None, allocation: Allocation) -> int | float | str:
    if given is not None:
        return given
    return allocation.memory_per_task_bytes or "auto"


def _world(comm: Any, allocation: Allocation) -> Any:
    """A communicator of our own among the ranks. Where it is too small, the first rank says so, and the others end."""
    # MPI's end is ours, for with a rank missing it would be waited for without end
    we_finalize = "mpi4py.MPI" not in sys.modules
    # what is wrong is told once, also where each rank believes itself alone
    first = not allocation.launched_rank
    try:
        import mpi4py

        if we_finalize:
            mpi4py.rc.finalize = False
        with _without_a_network_of_mpi(needless=allocation.on_one_node):
            from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        if first:
            raise ConfigError(
                f"mpi4py finds no MPI library: {error}\n"
                f"load your site's MPI module, or install one: {sys.executable} -m pip install mpi4py mpich"
            ) from error
        os._exit(1)
    if we_finalize:
        atexit.register(_leave_mpi)
    world = comm if comm is not None else MPI.COMM_WORLD
    size = world.Get_size()
    if size < 3:
        if first and world.Get_rank() == 0:
            launched = allocation.launched_ranks or 1
            raise ConfigError(_too_few(size, launched if comm is None else size, MPI.Get_library_version()))
        _exit(1)
    return world.Dup()


@contextlib.contextmanager
def _without_a_network_of_mpi(*, needless: bool) -> Iterator[None]:
    """While MPI begins. Ranks of one node need no port that others could knock at."""
    if not needless or "UCX_TLS" in os.environ:
        yield
        return
    os.environ |= ONE_NODE
    try:
        yield
    finally:
        del os.environ["UCX_TLS"]


def _too_few(size: int, launched: int, library: str) -> str:
    if launched > size:
        name = library.splitlines()[0].strip("\0 ")
        return (
            f"{launched} MPI ranks were started, but they found themselves in worlds of {size}: the launcher and the "
            f"MPI library of mpi4py ({name}) do not belong together\n"
            "start the program by the mpirun of that library, or load its module; with srun, "
            "try --mpi=pmi2 (MPICH, Intel MPI) or --mpi=pmix (Open MPI)"
        )
    return (
        f"{counted(size, 'MPI rank')} cannot be a Dask cluster: it takes one for the scheduler, one for the script and "
        "at least one for a worker\n"
        f"start it on three or more: mpirun -np 3 python {Path(sys.argv[0]).name or 'script.py'}"
    )


@dataclass(frozen=True, kw_only=True)
class Meeting:
    """What rank 0 tells the others before anything else."""

    credentials: Credentials
    addresses: list[str]
    """Of the scheduler, the fastest network first."""
    line_port: int


@dataclass(frozen=True, kw_only=True)
class Program:
    """What this rank knows of the program that it is one of."""

    comm: Any
    allocation: Allocation
    interface: str
    dashboard_address: str | int | None
    worker_class: str | type
    worker_options: dict[str, Any]
    local_directory: str
    n_workers: int | None
    timeout_s: float

    @property
    def rank(self) -> int:
        return int(self.comm.Get_rank())

    @property
    def workers(self) -> int:
        return int(self.comm.Get_size()) - 2

    def begin(self) -> Client:
        hosts = self._agree()
        _quieter(logging.WARNING)
        if self.rank == 0:
            asyncio.run(self._schedule(one_node=len(hosts) == 1))
        met = self._hear()
        if met is None:
            _exit(1)
        dask.config.set(tls_in_memory(met.credentials))
        if self.rank == SCRIPT:
            return self._go_on(met)
        asyncio.run(self._work(met))
        raise AssertionError("unreachable")

    def _agree(self) -> set[str]:
        """The nodes. What is wrong with the arguments is told by one rank: the script's, if it has found it, too."""
        error = None
        try:
            if self.n_workers is not None:
                whole_number(self.n_workers, what="n_workers", least=0, most=self.workers)
            _dashboard_port(self.dashboard_address)
            self._worker_type()
        except (HpclabError, ImportError, AttributeError) as found:
            error = found
        self._meet()
        told = self.comm.allgather((socket.gethostname(), error is not None))
        unname()
        if any(failed for _, failed in told):
            found_by = [rank for rank, (_, failed) in enumerate(told) if failed]
            if error and self.rank == (SCRIPT if SCRIPT in found_by else found_by[0]):
                raise error
            _exit(1)
        return {host for host, _ in told}

    def _meet(self) -> None:
        """Wait for all ranks; not by MPI's own waiting, which takes a core that others need for their imports."""
        there = self.comm.Ibarrier()
        while not there.Test():
            time.sleep(0.01)

    def _hear(self, met: Meeting | None = None) -> Meeting | None:
        """What rank 0 says; None: that it cannot begin."""
        self._meet()
        said: Meeting | None = self.comm.bcast(met)
        return said

    def _worker_type(self) -> Callable[..., Any]:
        found: Callable[..., Any] = (
            import_term(self.worker_class) if isinstance(self.worker_class, str) else self.worker_class
        )
        return found

    async def _schedule(self, *, one_node: bool) -> NoReturn:
        """Rank 0, for as long as the script runs, whatever becomes of Dask's scheduler meanwhile."""
        with contextlib.ExitStack() as stack:
            try:
                scratch = stack.enter_context(private_folder(self.local_directory))
                dask.config.set({"temporary-directory": scratch})
                scheduler, lines, met = await self._open(one_node=one_node)
            except BaseException:
                # the others wait for a word; the error is this rank's to tell
                self._hear(None)
                raise
            self._hear(met)
            with self._ending_all():
                told = await _told_to_end_before(lines.script_is_over())
                if not told:
                    _quieter(SILENT)
                    await lines.dismiss()
                    await scheduler.close()
        if told:
            _exit(ENDED_BY_SIGTERM, together=False)
        _exit(0, together=await lines.leave())

    async def _open(self, *, one_node: bool) -> tuple[Scheduler, Switchboard, Meeting]:
        credentials = new_credentials("program")
        dask.config.set(tls_in_memory(credentials))
        port = _dashboard_port(self.dashboard_address)
        if port is None:
            dask.config.set({"distributed.scheduler.http.routes": []})
        ips = [LOOPBACK] if one_node and not self.interface else own_addresses(self.interface)
        # of several networks nobody knows yet which one leads to whom
        host = ips[0] if len(ips) == 1 else None
        scheduler = await Scheduler(
            host=host,
            port=0,
            protocol="tls",
            dashboard=port is not None,
            dashboard_address=f"{LOOPBACK}:{port or 0}",
        )

        def nobody_works() -> None:
            # what waits for a worker would wait for ever
            scheduler.no_workers_timeout = 1

        lines = Switchboard(ranks=self.workers + 2, all_workers_lost=nobody_works)
        await lines.listen(host or "0.0.0.0", Security().get_listen_args("scheduler")["ssl_context"])
        addresses = [f"tls://{ip}:{scheduler.port}" for ip in ips] or [scheduler.address]
        return scheduler, lines, Meeting(credentials=credentials, addresses=addresses, line_port=lines.port)

    async def _work(self, met: Meeting) -> NoReturn:
        """A worker rank, for as long as the script runs, whatever becomes of its worker meanwhile."""
        with self._ending_all():
            way, context = self._way(met)
            line = await line_of_worker(self.rank, _host(way), met.line_port, context)
            with private_folder(self.local_directory) as scratch:
                worker = asyncio.ensure_future(self._be_worker(way, scratch))
                over = asyncio.ensure_future(line.script_is_over())
                told = await _told_to_end_before(asyncio.wait([worker, over], return_when=asyncio.FIRST_COMPLETED))
                if told or over.done():
                    _quieter(SILENT)
                    worker.cancel()
                    await asyncio.wait([worker], timeout=LEAVE_WITHIN_S)
                else:
                    over.cancel()
                    await asyncio.wait([over])
                    # an error of its start; what happens to it later, Dask tells itself
                    worker.result()
            if told:
                _exit(ENDED_BY_SIGTERM, together=False)
            _exit(0, together=await line.leave())

    async def _be_worker(self, way: Way, scratch: str) -> None:
        options = {
            "name": self.rank,
            "host": way.host,
            "protocol": "tls",
            "local_directory": scratch,
            "dashboard_address": f"{LOOPBACK}:0",
            **self.worker_options,
        }
        worker = await self._worker_type()(way.address, **options)
        while True:
            try:
                await worker.finished()
            finally:
                # tasks that still run end with this process
                how = {} if isinstance(worker, Nanny) else {"executor_wait": False}
                with contextlib.suppress(OSError, TimeoutError):
                    await worker.close(timeout=2, **how)
            if getattr(worker, "close_reason", "") not in COMES_BACK_AFTER:
                return
            try:
                worker = await self._worker_type()(way.address, **options)
            except (OSError, TimeoutError, RuntimeError):
                # the scheduler was closed by the script
                return

    def _go_on(self, met: Meeting) -> Client:
        """Rank 1: the script."""
        way, context = self._way(met)
        line = line_of_script(_host(way), met.line_port, context)
        atexit.register(_end_script, line)
        dask.config.set({"scheduler-address": way.address})
        client = Client(way.address)
        _wait_for_workers(client, self.workers if self.n_workers is None else self.n_workers, self.timeout_s)
        return client

    def _way(self, met: Meeting) -> tuple[Way, SSLContext]:
        def context() -> SSLContext:
            made: SSLContext = Security().get_connection_args("worker")["ssl_context"]
            return made

        return way_among(met.addresses, context), context()

    @contextlib.contextmanager
    def _ending_all(self) -> Iterator[None]:
        """An error in a rank that is not the script's ends the program, for the script would wait in vain."""
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            _flush()
            failure.tell(error)
            self.comm.Abort(1)


def _wait_for_workers(client: Client, n_workers: int, timeout_s: float) -> None:
    if n_workers == 0:
        return
    try:
        client.wait_for_workers(n_workers, timeout=timeout_s)
    except TimeoutError as error:
        there = len(client.scheduler_info(n_workers=-1)["workers"])
        raise TookTooLong(
            f"{there} of {counted(n_workers, 'Dask worker')} joined within {format_duration(timeout_s)}\n"
            "look for errors of the other ranks above; or do not wait for all of them: initialize(n_workers=…), or "
            "wait longer: initialize(timeout_s=…)"
        ) from error


def _dashboard_port(given: str | int | None) -> int | None:
    """Of `8787`, `":8787"` or `"localhost:8787"`; there is no other place for it."""
    if given is None:
        return None
    host, _, port = str(given).rpartition(":")
    if host not in ("", "localhost", LOOPBACK) or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise ConfigError(
            f"the dashboard cannot be at {given!r}: nobody is asked for a password there, so that it listens on the "
            "loopback address alone\ngive it a port, such as dashboard_address=8787"
        )
    return int(port)


def _host(way: Way) -> str:
    return way.address.rpartition("://")[2].rpartition(":")[0]


async def _told_to_end_before(event: Awaitable[Any]) -> bool:
    """Whether SIGTERM has come first. Ctrl-C is for the script to hear, and to end or to go on."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    # `hpclab run` leaves the script a while with its workers
    if not isinstance(signal.getsignal(signal.SIGTERM), Patience):
        loop.add_signal_handler(signal.SIGTERM, told.set)
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    waiting = [asyncio.ensure_future(event), asyncio.ensure_future(told.wait())]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for each in waiting:
        each.cancel()
    return told.is_set()


def _quieter(level: int) -> None:
    """Dask tells nothing of lower levels any more: who comes and goes at first, broken connections at the end.

    What the user has set stays as it is until the end.
    """
    if level < SILENT:
        if dask.config.get("logging", None) or dask.config.get("distributed.logging", None):
            return
        # for the processes of nannies, which read it when they import Dask
        os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", logging.getLevelName(level).lower())
    for name in ["distributed", "tornado", "asyncio", *logging.root.manager.loggerDict]:
        if name.split(".")[0] in ("distributed", "tornado", "asyncio"):
            logger = logging.getLogger(name)
            if logger.level < level and (logger.level or "." not in name):
                logger.setLevel(level)


# how a rank ends


def _end_script(line: Line) -> None:
    """Rank 1, when Python ends, for whatever reason: its exit status is the script's, and is known already."""
    _quieter(SILENT)
    for client in list(Client._instances):
        with contextlib.suppress(Exception):
            client.close(timeout=2)
    _flush()
    if not line.leave():
        # with a rank missing, MPI would wait for it without end
        atexit.unregister(_leave_mpi)
        import mpi4py

        if mpi4py.rc.finalize is not False:
            # the script had imported MPI before us, which now cannot be kept from waiting by anything else
            os._exit(1)


def _exit(status: int, *, together: bool = True) -> NoReturn:
    """The end of a rank that is not the script's. Nothing of the script is run there, but for its atexit functions."""
    atexit.unregister(_leave_mpi)
    # one of Dask's waits for the tasks that still run
    last = threading.Thread(target=atexit._run_exitfuncs, daemon=True)
    last.start()
    last.join(EXIT_FUNCTIONS_WITHIN_S)
    _flush()
    if together:
        _leave_mpi()
        # C's own exit, where MPICH says to its launcher that this was a good end; it keeps Python's lock, so that no
        # other thread runs into what is gone already
        ctypes.PyDLL(None).exit(status)
    os._exit(status)


def _leave_mpi() -> None:
    from mpi4py import MPI

    if not MPI.Is_finalized():
        MPI.Finalize()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()

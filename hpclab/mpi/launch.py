"""An MPI launcher that reaches other hosts through Dask: for Open MPI, whose ranks do not find each other by PMI-1.

mpiexec runs beside rank 0's worker. For each other host it calls a remote shell, in whose place stands `agent`, which
gives the command to us; and we have it run by a Dask worker of that host. So it needs no ssh between nodes, and no port
of ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpclab.errors import WorldFailed
from hpclab.launchers import ONE_NODE, family, without_mpi

BATCH_VARIABLES = ("SLURM_", "PBS_", "LSB_", "JOB_ID", "PE_HOSTFILE")
"""By which a launcher would take the job's nodes for its own."""
KEPT = ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_MCA_btl", "OMPI_MCA_pml", "OMPI_MCA_mtl", "I_MPI_ROOT", "I_MPI_FABRICS")
"""What users set for their MPI library, and no launcher for its ranks."""
END_WITHIN_S = 3


@dataclass(frozen=True)
class Berth:
    """Where one rank is launched."""

    host: str
    address: str
    """Of its Dask worker."""
    python: str
    folder: str
    """Of its reception."""


def mpi_environment(base: Mapping[str, str]) -> dict[str, str]:
    """A worker's environment for MPI programs that are no part of the one that the worker may be of."""
    kept = {name: value for name, value in base.items() if name.startswith(KEPT)}
    env = {**without_mpi(dict(base)), **kept}
    # what a main job on one node has, whose workers may be in a larger world now
    return dict(env.items() - ONE_NODE.items())


def mpiexec_argv(mpiexec: str, version: str, berths: Sequence[Berth], *, agent: str) -> list[str]:
    """Rank by rank, each on its host; `agent` is the command in place of ssh. Raises WorldFailed."""
    contexts: list[str] = []
    for berth in berths:
        program = [berth.python, "-P", "-m", "hpclab.mpi.rank", berth.folder]
        contexts += [*([":"] if contexts else []), "-n", "1", "--host", berth.host, *program]
    match family(version):
        case "prrte":
            how = ["--prtemca", "plm", "ssh", "--prtemca", "plm_ssh_agent", agent]
            how += ["--prtemca", "plm_ssh_no_tree_spawn", "1", "--map-by", ":OVERSUBSCRIBE", "--bind-to", "none"]
        case "openmpi":
            how = ["--mca", "plm", "rsh", "--mca", "plm_rsh_agent", agent, "--mca", "plm_rsh_no_tree_spawn", "1"]
            how += ["--oversubscribe", "--bind-to", "none"]
        case _:
            raise WorldFailed(
                f"{mpiexec} is not Open MPI's launcher, which the workers' MPI library needs\n"
                "load your site's Open MPI for the workers (`modules`, `prologue`), or: pip install mpi4py mpich"
            )
    return [mpiexec, *how, *contexts]


def find_mpiexec(library: str) -> str:
    """The launcher that belongs to a library, by the library's path; else the first on PATH. Raises WorldFailed."""
    prefix = Path(library).parent.parent
    beside = [prefix / "bin/mpiexec", prefix / "bin/mpirun", prefix.parent / "bin/mpiexec"] if library else []
    beside += [Path(sys.executable).with_name("mpiexec")]
    names = ("mpiexec.openmpi", "mpirun", "mpiexec")
    found = [str(path) for path in beside if path.exists()] + [path for name in names if (path := shutil.which(name))]
    for path in found:
        if family(_version(path)) in ("prrte", "openmpi"):
            return path
    raise WorldFailed(
        f"Open MPI's ranks need its mpiexec: none is near {library or 'the library'} nor on the workers' PATH\n"
        "load your site's Open MPI for the workers (`modules`, `prologue`), or: pip install mpi4py mpich"
    )


def _version(mpiexec: str) -> str:
    try:
        done = subprocess.run([mpiexec, "--version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr


def aborted(said: str) -> tuple[int, int] | None:
    """Which rank has called MPI_Abort, and with what, in the launcher's words."""
    found = re.search(
        r"MPI_ABORT was invoked on rank (\d+) in .*?error ?code:? (-?\d+)", said, re.DOTALL | re.IGNORECASE
    )
    return (int(found[1]), int(found[2])) if found else None


@contextlib.asynccontextmanager
async def launched(
    mpiexec: str, berths: Sequence[Berth], run_there: Callable[[str, str], Awaitable[tuple[int, str]]]
) -> AsyncIterator[asyncio.subprocess.Process]:
    """mpiexec, from our end of its remote shell; `run_there(address, command)` runs a command beside a Dask worker."""
    addresses = {berth.host: berth.address for berth in reversed(berths)}
    folder = tempfile.mkdtemp(prefix="hpclab-", dir=None if len(tempfile.gettempdir()) < 70 else "/tmp")

    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One agent, as long as its command runs."""
        task = asyncio.current_task()
        assert task
        serving.add(task)
        task.add_done_callback(serving.discard)
        with contextlib.closing(writer):
            asked = json.loads(await reader.readline())
            try:
                status, said = await run_there(addresses[asked["host"]], asked["command"])
            except OSError as error:
                status, said = 255, str(error)
            writer.write(json.dumps({"exit_status": status, "said": said}).encode() + b"\n")

    server = await asyncio.start_unix_server(serve, f"{folder}/agent", limit=2**20)
    env = {name: value for name, value in mpi_environment(os.environ).items() if not name.startswith(BATCH_VARIABLES)}
    agent = f"{sys.executable} -P -m hpclab.mpi.agent {folder}/agent"
    try:
        argv = mpiexec_argv(mpiexec, await asyncio.to_thread(_version, mpiexec), berths, agent=agent)
        async with _beside_us(argv, env, folder=folder) as process:
            try:
                yield process
            finally:
                await ended(process)
    finally:
        server.close()
        for task in serving:
            task.cancel()  # agents that the launcher has left behind hear that nobody is here any more
        await asyncio.gather(*serving, return_exceptions=True)
        shutil.rmtree(folder, ignore_errors=True)


# who reads hears nothing but the end of a pipe, of which we alone have the other end
_KILLED_AFTER_US = """
exec 3<&0 </dev/null
{ trap '' HUP INT TERM; read -r end; rm -rf "$TMPDIR"; kill -9 0; } <&3 >/dev/null 2>&1 &
exec 3<&-
exec "$@"
"""


@contextlib.asynccontextmanager
async def _beside_us(
    argv: Sequence[str], env: Mapping[str, str], *, folder: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process, and its group, that is killed when we are gone, whatever has ended us, or when we let go of it.

    So is the folder for its temporary files, which is its own.
    """
    theirs, ours = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            *["/bin/sh", "-c", _KILLED_AFTER_US, "sh", *argv],
            env={**env, "TMPDIR": folder},
            stdin=theirs,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        yield process
    finally:
        os.close(ours)
        os.close(theirs)


async def ended(process: asyncio.subprocess.Process) -> None:
    """By itself, as it does when all ranks have; else by force."""
    for number in (0, signal.SIGTERM, signal.SIGKILL):
        if number and process.returncode is None:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, number)
        with contextlib.suppress(TimeoutError):
            await _gone(process)
            return


async def _gone(process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(END_WITHIN_S):
        while process.returncode is None:
            await asyncio.sleep(0.02)


_daemons: dict[str, set[asyncio.subprocess.Process]] = {}
"""By run: what runs beside this worker for its launcher, on the worker's event loop."""
_over: deque[str] = deque(maxlen=1000)
"""Runs whose rank beside this worker has ended."""


async def run_daemon(run: str, command: str) -> tuple[int, str]:
    """At another worker, on its event loop: what a remote shell would do. Exit status, and the end of what it said."""
    if run in _over:
        return 255, "its rank has ended already"
    folder = tempfile.mkdtemp(prefix="hpclab-")
    # what makes itself a daemon nobody could end
    argv = ["/bin/sh", "-c", command.replace(" --daemonize", "")]
    try:
        async with _beside_us(argv, mpi_environment(os.environ), folder=folder) as process:
            _daemons.setdefault(run, set()).add(process)
            try:
                said, _ = await process.communicate()
                return process.returncode or 0, said[-4000:].decode(errors="replace")
            finally:
                _daemons[run].discard(process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def end_daemons(run: str) -> None:
    """On the worker's event loop, when its rank has ended."""
    _over.append(run)
    for process in list(_daemons.get(run, ())):
        await ended(process)
    _daemons.pop(run, None)

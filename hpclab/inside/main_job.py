"""The supervisor of the main job: `python -m hpclab.inside.main_job SESSION_FOLDER …`, run by start-dask.sh.

It starts JupyterLab's process and dask-mpi side by side, announces `connection.json` once JupyterLab answers, and
then waits for whichever ends first; with that it ends the rest, and itself with an exit status that says why.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from asyncio.subprocess import Process
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpclab.connection import Connection
from hpclab.folder import SessionFolder
from hpclab.inside.environ import rank_environment
from hpclab.inside.plan import LOOPBACK, Plan, dask_mpi_argv, interface_name
from hpclab.inside.report import announce, report, withdraw
from hpclab.job import JobExit
from hpclab.launchers import launcher_argv

WIND_DOWN_S = 5
NEEDED = {"distributed": "distributed", "dask_mpi": "dask-mpi", "mpi4py": "mpi4py", "jupyterlab": "jupyterlab"}


class Ended(Exception):
    """Why the job ends."""

    def __init__(self, how: JobExit, reason: str = "") -> None:
        super().__init__(reason or how.meaning)
        self.how = how


@dataclass
class Supervisor:
    """One main job, from its first process to its last."""

    plan: Plan
    root_dir: str
    mpiexec: str
    start_timeout_s: int
    hellos: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What the scheduler and JupyterLab said when they came up."""
    ended: asyncio.Future[tuple[JobExit, str]] = field(default_factory=asyncio.Future)
    processes: list[Process] = field(default_factory=list)
    lines: list[asyncio.StreamWriter] = field(default_factory=list)
    """Held by the scheduler; when we close it, it ends in good order, and the ranks with it."""

    def report(self, what: str, **details: Any) -> None:
        report(self.plan.folder, self.plan.job_id, what, **details)

    def end(self, how: JobExit, reason: str = "") -> None:
        if not self.ended.done():
            self.ended.set_result((how, reason or how.meaning))

    async def run(self) -> JobExit:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
            loop.add_signal_handler(number, self.end, JobExit.TERMINATED)
        with _folder_for_sockets() as private:
            line = f"{private}/supervisor"
            server = await asyncio.start_unix_server(self.greet, line)
            try:
                await self.start(line, f"{private}/jupyter")
                loop.call_later(self.start_timeout_s, self.too_late)
                watch = asyncio.create_task(self.watch_folder())
                how, reason = await self.ended
                self.report("ending", reason=reason)
                watch.cancel()
            except Ended as error:
                how = error.how
                self.report("failed", reason=str(error))
            finally:
                await self.wind_down()
                server.close()
        return how

    async def start(self, line: str, jupyter_line: str) -> None:
        folder = self.plan.folder
        for stale in (folder.over, folder.scheduler, folder.connection, folder.roster):
            withdraw(stale)
        # first on PATH, so that `hpclab` and `python` in JupyterLab's terminals are the job's own
        bin_folder = str(Path(sys.executable).parent)
        env = {
            **os.environ,
            "PATH": f"{bin_folder}:{os.environ.get('PATH', os.defpath)}",
            "HPCLAB_FOLDER": folder.path,
            "HPCLAB_SUPERVISOR": line,
            "HPCLAB_JUPYTER": jupyter_line,
        }
        self.report("environment", **_environment())
        if not Path(self.root_dir).is_dir():
            raise Ended(JobExit.ENVIRONMENT, f"there is no folder {self.root_dir} for JupyterLab on this node")
        loopback = self.plan.interface in LOOPBACK
        ip = "127.0.0.1" if loopback else "0.0.0.0"
        jupyter = [sys.executable, "-P", "-m", "hpclab.inside.jupyter", folder.path]
        await self.spawn([*jupyter, "--root-dir", self.root_dir, "--ip", ip], env, "jupyter")
        mpiexec = _find_mpiexec(self.mpiexec)
        program = dask_mpi_argv(self.plan, sys.executable)
        argv = launcher_argv(mpiexec, _version_of(mpiexec), ranks=self.plan.ranks, program=program)
        self.report("mpi", ranks=self.plan.ranks, launcher=mpiexec[0])
        await self.spawn(argv, rank_environment(env, folder, one_node=loopback), "scheduler")

    async def spawn(self, argv: list[str], env: dict[str, str], who: str) -> None:
        """A child in its own process group; its end is the job's end."""
        process = await asyncio.create_subprocess_exec(*argv, env=env, stdin=subprocess.DEVNULL, start_new_session=True)
        self.processes.append(process)
        waiting = asyncio.ensure_future(process.wait())
        waiting.add_done_callback(lambda done: self.lost(who, done.result()))

    def lost(self, who: str, exit_status: int | None = None) -> None:
        """A process or its line is gone."""
        if who == "jupyter" and who in self.hellos and exit_status == 0:
            self.end(JobExit.OK, "JupyterLab was shut down")
        never, died = {
            "scheduler": (JobExit.SCHEDULER_NEVER_UP, JobExit.SCHEDULER_DIED),
            "jupyter": (JobExit.JUPYTER_NEVER_UP, JobExit.JUPYTER_DIED),
        }[who]
        how = died if who in self.hellos else never
        ended = {None: "", 0: " and its program ended"}.get(exit_status, f" (its program ended with {exit_status})")
        self.end(how, how.meaning + ended)

    def too_late(self) -> None:
        for who in ("scheduler", "jupyter"):
            if who not in self.hellos:
                self.lost(who)

    async def watch_folder(self) -> None:
        """Whoever removes the session's folder can neither find nor stop it any more, so it ends."""
        missed = 0
        while missed < 3:
            await asyncio.sleep(5)
            missed = 0 if Path(self.plan.folder.session).exists() else missed + 1
        self.end(JobExit.OK, "the session's folder was removed")

    async def greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A hello from the scheduler or JupyterLab when it is up; the scheduler's line ends with it."""
        try:
            hello = json.loads(await reader.readline())
        except ValueError:
            return
        who = hello.pop("who")
        self.hellos[who] = hello
        self.report(who, **hello)
        if len(self.hellos) == 2:
            self.announce()
        if who == "scheduler":
            self.lines.append(writer)
            with contextlib.suppress(OSError):
                await reader.read()
            self.lost(who)
        writer.close()

    def announce(self) -> None:
        scheduler, jupyter = self.hellos["scheduler"], self.hellos["jupyter"]
        node = socket.gethostname()
        loopback = self.plan.interface in LOOPBACK
        connection = Connection(
            session=self.plan.folder.name,
            job_id=self.plan.job_id,
            node=node,
            scheduler_address=scheduler["address"],
            jupyter_host="127.0.0.1" if loopback else node,
            jupyter_port=jupyter["port"],
            dashboard_host="127.0.0.1" if loopback else node,
            dashboard_port=scheduler["dashboard_port"],
            time=time.time(),
        )
        announce(self.plan.folder.connection, connection.to_text())

    async def wind_down(self) -> None:
        """Nobody finds us any more; then JupyterLab closes its notebooks, and the scheduler its workers."""
        folder = self.plan.folder
        for announced in (folder.connection, folder.scheduler, folder.roster):
            withdraw(announced)
        for line in self.lines:
            line.close()
        for process in self.processes:
            _signal(process, signal.SIGTERM)
        for process in self.processes:
            try:
                await asyncio.wait_for(process.wait(), WIND_DOWN_S)
            except TimeoutError:
                _signal(process, signal.SIGKILL)
                await process.wait()


def _signal(process: Process, number: signal.Signals) -> None:
    """To a child and all of its process group, unless it has just ended."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)


@contextlib.contextmanager
def _folder_for_sockets() -> Iterator[str]:
    """The job's scratch folder; where its path is too long for a socket's, one in /tmp."""
    scratch = os.environ["HPCLAB_SCRATCH"]
    if len(scratch) < 90:
        yield scratch
    else:
        with tempfile.TemporaryDirectory(prefix="hpclab-", dir="/tmp") as private:
            yield private


def _environment() -> dict[str, str]:
    """What this environment has; raises Ended when it lacks something."""
    missing = [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise Ended(
            JobExit.ENVIRONMENT,
            f"{', '.join(missing)} missing from the job's Python {sys.executable}; "
            f"install it there: {sys.executable} -m pip install 'hpclab[cluster]'",
        )
    versions = {package: importlib.metadata.version(package) for package in NEEDED.values()}
    return {
        "python": sys.version.split()[0],
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }


def _find_mpiexec(wanted: str) -> list[str]:
    """The configured launcher, else the one of the MPI beside this Python, else the site's."""
    if wanted != "auto":
        argv = wanted.split()
        found = shutil.which(argv[0])
        if found is None:
            raise Ended(JobExit.NO_LAUNCHER, f"the MPI launcher {argv[0]!r} is not there; set `mpiexec` in your config")
        return [found, *argv[1:]]
    beside = Path(sys.executable).with_name("mpiexec")
    found = str(beside) if beside.exists() else shutil.which("mpiexec") or shutil.which("mpirun")
    if found is None:
        raise Ended(
            JobExit.NO_LAUNCHER,
            "no mpiexec beside the job's Python nor on PATH; load your site's MPI in `prologue`, or install one: "
            f"{sys.executable} -m pip install mpich",
        )
    return [found]


def _version_of(mpiexec: list[str]) -> str:
    try:
        done = subprocess.run([*mpiexec, "--version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Ended(JobExit.NO_LAUNCHER, f"the MPI launcher does not say its version: {error}") from error
    return done.stdout + done.stderr


def _parse() -> Supervisor:
    parser = argparse.ArgumentParser(prog="python -m hpclab.inside.main_job")
    parser.add_argument("folder", type=SessionFolder)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--nthreads", type=int, required=True)
    parser.add_argument("--memory", type=int, required=True, help="bytes per worker")
    parser.add_argument("--death-timeout", type=int, required=True)
    parser.add_argument("--start-timeout", type=int, required=True)
    parser.add_argument("--interface", default="")
    parser.add_argument("--mpiexec", default="auto")
    parser.add_argument("--root-dir", required=True)
    given = parser.parse_args()
    plan = Plan(
        folder=given.folder,
        job_id=os.environ["HPCLAB_JOB_ID"],
        workers=given.workers,
        nthreads=given.nthreads,
        memory_bytes=given.memory,
        death_timeout_s=given.death_timeout,
        interface=interface_name(given.interface, [name for _, name in socket.if_nameindex()]),
    )
    return Supervisor(
        plan=plan,
        root_dir=str(Path(given.root_dir).expanduser()),
        mpiexec=given.mpiexec,
        start_timeout_s=given.start_timeout,
    )


async def _main() -> JobExit:
    return await _parse().run()


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(asyncio.run(_main()))

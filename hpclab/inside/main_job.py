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

from hpclab.connection import LOOPBACK, Connection
from hpclab.credentials import new_token
from hpclab.errors import ConfigError
from hpclab.folder import SessionFolder
from hpclab.inside.environ import rank_environment
from hpclab.inside.output import passed_on
from hpclab.inside.plan import Plan, dask_mpi_argv, interface_name
from hpclab.inside.report import announce, report, withdraw
from hpclab.inside.reverse import Reverse, forget
from hpclab.job import JobExit
from hpclab.launchers import het_srun_argv, launcher_argv, without_mpi
from hpclab.units import counted, format_duration
from hpclab.versions import SAME_ENVIRONMENT, from_words, in_words, mismatch, versions_here

WIND_DOWN_S = 5
FILES_WITHIN_S = 2
"""A file system that hangs does not keep us from ending what we have started."""
SIGNAL_MAY_COME_S = 0.3
PULSE_EVERY_S = 2
WARN_BEFORE_END_S = (600, 120)
NEEDED = {
    "distributed": "distributed",
    "dask_mpi": "dask-mpi",
    "mpi4py": "mpi4py",
    "jupyterlab": "jupyterlab",
    "psutil": "psutil",
}


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
    nodes: int
    keep: int
    expected: dict[str, str]
    """The versions of the login node's environment; empty: they do not matter."""
    end_time: float
    hellos: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What the scheduler and JupyterLab said when they came up."""
    ended: asyncio.Future[tuple[JobExit, str]] = field(default_factory=asyncio.Future)
    processes: list[Process] = field(default_factory=list)
    loss: str = ""
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    lines: list[asyncio.StreamWriter] = field(default_factory=list)
    """Held by the scheduler; when we close it, it ends in good order, and the ranks with it."""

    def report(self, what: str, **details: Any) -> None:
        report(self.plan.folder, self.plan.job_id, what, **details)

    def end(self, how: JobExit, reason: str = "") -> None:
        if not self.ended.done():
            self.ended.set_result((how, reason or how.meaning))

    async def run(self) -> JobExit:
        loop = asyncio.get_running_loop()
        # USR2 is how Grid Engine and LSF begin to end a job, USR1 how the former announces that it will suspend it
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
            loop.add_signal_handler(number, self.end, JobExit.TERMINATED)
        loop.add_signal_handler(signal.SIGUSR1, lambda: None)
        with _folder_for_sockets() as private:
            line = f"{private}/supervisor"
            server = await asyncio.start_unix_server(self.greet, line)
            try:
                await self.start(line, f"{private}/jupyter")
                loop.call_later(self.start_timeout_s, self.too_late)
                watch = asyncio.create_task(self.watch_folder())
                pulse = asyncio.create_task(self.show_pulse())
                for left_s in WARN_BEFORE_END_S:
                    if self.end_time - left_s > time.time():
                        loop.call_later(self.end_time - left_s - time.time(), self.warn, left_s)
                how, reason = await self.ended
                self.report("ending", reason=reason)
                watch.cancel()
                pulse.cancel()
            except Ended as error:
                how = error.how
                self.report("failed", reason=str(error))
            except OSError as error:
                how = JobExit.ENVIRONMENT
                self.report("failed", reason=f"{error.strerror}: {error.filename or ''}")
            finally:
                await self.wind_down()
                server.close()
        return how

    async def start(self, line: str, jupyter_line: str) -> None:
        folder = self.plan.folder
        over = Path(folder.over)
        if over.exists() and over.read_text(errors="replace").startswith("stopped"):
            # a stop that could not reach the batch system
            raise Ended(JobExit.SESSION_OVER, "the session was stopped before this job began")
        for stale in (folder.over, folder.scheduler, folder.addresses, folder.connection, folder.roster, folder.pulse):
            withdraw(stale)
        forget(folder)
        # of a job that is started again, somebody on its former node may have been sent the old one
        announce(folder.token, f"{new_token()}\n")
        # first on PATH, so that `hpclab` and `python` in JupyterLab's terminals are the job's own
        bin_folder = str(Path(sys.executable).parent)
        env = {
            **os.environ,
            "PATH": f"{bin_folder}:{os.environ.get('PATH', os.defpath)}",
            "HPCLAB_FOLDER": folder.path,
            "HPCLAB_SUPERVISOR": line,
            "HPCLAB_JUPYTER": jupyter_line,
            "HPCLAB_INTERFACE": self.plan.interface,
        }
        found = _environment()
        # only now that psutil is certain to be there
        from hpclab.inside.network import networks, own_addresses

        self.report("environment", **found, network=networks())
        self.check_versions()
        try:
            own_addresses(self.plan.interface)
        except ConfigError as error:
            raise Ended(JobExit.ENVIRONMENT, str(error).replace("\n", "; ")) from error
        if not Path(self.root_dir).is_dir():
            raise Ended(JobExit.ENVIRONMENT, f"there is no folder {self.root_dir} for JupyterLab on this node")
        ip = LOOPBACK if self.plan.on_loopback else "0.0.0.0"
        jupyter = [sys.executable, "-P", "-m", "hpclab.inside.jupyter", folder.path]
        await self.spawn([*jupyter, "--root-dir", self.root_dir, "--ip", ip], env, "jupyter")
        mpiexec = _find_mpiexec(self.mpiexec)
        program = dask_mpi_argv(self.plan, sys.executable)
        version = _version_of(mpiexec)
        if components := int(env.get("SLURM_HET_SIZE", "0")):
            argv = het_srun_argv(_find_srun(), version, components=components, program=program)
        else:
            argv = launcher_argv(mpiexec, version, ranks=self.plan.ranks, program=program)
        self.report("mpi", ranks=self.plan.ranks, launcher=argv[0], nodes=counted(self.nodes, "node"))
        await self.spawn(argv, rank_environment(env, folder, one_node=self.nodes == 1), "scheduler")
        if self.keep:
            await self.keep_workers(env)

    def check_versions(self) -> None:
        ours = versions_here()
        if different := mismatch(ours, self.expected):
            raise Ended(
                JobExit.WRONG_VERSIONS,
                f"the job's Python {sys.executable} has {in_words(ours, different)}, but the login node's environment "
                f"{in_words(self.expected, different)}; {SAME_ENVIRONMENT}",
            )

    async def keep_workers(self, env: dict[str, str]) -> None:
        """`hpclab keep`, for as long as the session lives. When it cannot go on, it says so, and that is all."""
        argv = [sys.executable, "-P", "-m", "hpclab", "keep", str(self.keep), "--session", self.plan.folder.name]
        home = str(Path(self.plan.folder.path).parent.parent)
        process = await asyncio.create_subprocess_exec(
            *argv,
            env={**without_mpi(env), "HPCLAB_HOME": home},
            stdin=subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        self.processes.append(process)
        self.report("keeper", count=self.keep)
        self.tasks.append(asyncio.create_task(self.watch_keeper(process)))

    async def watch_keeper(self, process: Process) -> None:
        assert process.stderr is not None
        said = (await process.stderr.read()).decode(errors="replace")
        if await process.wait() not in (0, -signal.SIGTERM):
            first = said.strip().removeprefix("hpclab: ").splitlines() or ["it ended"]
            self.report("kept", reason=f"{first[0]}; on a login node, say: hpclab keep {self.keep}")

    def warn(self, left_s: float) -> None:
        self.report("closing", left=format_duration(left_s))

    async def show_pulse(self) -> None:
        """A node that dies tells nobody; but its pulse stops."""
        while True:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(announce, self.plan.folder.pulse, f"{time.time():.0f}\n")
            await asyncio.sleep(PULSE_EVERY_S)

    async def spawn(self, argv: list[str], env: dict[str, str], who: str) -> None:
        """A child in its own process group; its end is the job's end."""
        with passed_on() as output:
            process = await asyncio.create_subprocess_exec(
                *argv, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        self.processes.append(process)
        waiting = asyncio.ensure_future(process.wait())
        waiting.add_done_callback(lambda done: self.lost(who, done.result()))

    def lost(self, who: str, exit_status: int | None = None) -> None:
        """A process or its line is gone. What goes after the first one goes because of it."""
        if self.loss:
            return
        self.loss = who
        if who == "jupyter" and who in self.hellos and exit_status == 0:
            self.end(JobExit.OK, "JupyterLab was shut down")
            return
        never, died = {
            "scheduler": (JobExit.SCHEDULER_NEVER_UP, JobExit.SCHEDULER_DIED),
            "jupyter": (JobExit.JUPYTER_NEVER_UP, JobExit.JUPYTER_DIED),
        }[who]
        how = died if who in self.hellos else never
        ended = {None: "", 0: " and its program ended"}.get(exit_status, f" (its program ended with {exit_status})")
        # who ends a job may signal all of its processes, and some are faster than we
        asyncio.get_running_loop().call_later(SIGNAL_MAY_COME_S, self.end, how, how.meaning + ended)

    def too_late(self) -> None:
        for who in ("scheduler", "jupyter"):
            if who not in self.hellos:
                self.lost(who)

    async def watch_folder(self) -> None:
        """The session can be stopped while the batch system does not answer.

        Whoever removes its folder can neither find nor stop it any more, so it ends then, too.
        """
        missed = 0
        while missed < 3:
            await asyncio.sleep(5)
            # in a thread, for a file system that hangs must not keep us from hearing a signal
            is_there = await asyncio.to_thread(Path(self.plan.folder.session).exists)
            missed = 0 if is_there else missed + 1
            with contextlib.suppress(OSError):
                self.end(JobExit.OK, (await asyncio.to_thread(Path(self.plan.folder.over).read_text)).strip())
        self.end(JobExit.OK, "the session's folder was removed")

    async def greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A hello from the scheduler or JupyterLab when it is up; the scheduler's line ends with it."""
        try:
            hello = json.loads(await reader.readline())
        except ValueError:
            return
        who = hello.pop("who")
        if who == "world":
            self.end(JobExit.WRONG_WORLD, self.wrong_world(**hello))
            writer.close()
            return
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

    def wrong_world(self, size: int, library: str) -> str:
        """Every rank believes itself in a smaller world than was asked for, mostly alone."""
        return (
            f"{self.plan.ranks} MPI ranks were started, but they found themselves in worlds of {size}: the launcher "
            f"and the MPI library of mpi4py ({library}) do not belong together; set `mpiexec` to the launcher of that "
            "library, or load its module"
        )

    def announce(self) -> None:
        scheduler, jupyter = self.hellos["scheduler"], self.hellos["jupyter"]
        node = socket.gethostname()
        host = LOOPBACK if self.plan.on_loopback else node
        connection = Connection(
            session=self.plan.folder.name,
            job_id=self.plan.job_id,
            node=node,
            scheduler_address=scheduler["address"],
            jupyter_host=host,
            jupyter_port=jupyter["port"],
            dashboard_host=host,
            dashboard_port=scheduler["dashboard_port"],
            time=time.time(),
        )
        try:
            announce(self.plan.folder.connection, connection.to_text())
        except OSError as error:
            self.end(JobExit.ENVIRONMENT, f"{self.plan.folder.connection} cannot be written: {error.strerror}")
        reverse = Reverse(self.plan.folder, connection, self.processes)
        self.tasks.append(asyncio.create_task(reverse.watch()))

    def withdraw_all(self) -> None:
        folder = self.plan.folder
        for announced in (folder.connection, folder.scheduler, folder.addresses, folder.roster, folder.pulse):
            withdraw(announced)
        forget(folder)

    async def wind_down(self) -> None:
        """Nobody finds us any more; then JupyterLab closes its notebooks, and the scheduler its workers."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.to_thread(self.withdraw_all), FILES_WITHIN_S)
        for task in self.tasks:
            task.cancel()
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


def _find_srun() -> str:
    """Over the components of a heterogeneous job there is no other launcher."""
    found = shutil.which("srun")
    if found is None:
        raise Ended(JobExit.NO_LAUNCHER, "this is a heterogeneous Slurm job, and there is no srun on the node's PATH")
    return found


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
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--keep", type=int, default=0)
    parser.add_argument("--bind", default="network")
    parser.add_argument("--expect-versions", type=from_words, default={})
    given = parser.parse_args()
    plan = Plan(
        folder=given.folder,
        job_id=os.environ["HPCLAB_JOB_ID"],
        workers=given.workers,
        nthreads=given.nthreads,
        memory_bytes=given.memory,
        death_timeout_s=given.death_timeout,
        interface=interface_name(given.interface, [name for _, name in socket.if_nameindex()]),
        node=socket.gethostname(),
        bind=given.bind,
    )
    return Supervisor(
        plan=plan,
        root_dir=str(Path(given.root_dir).expanduser()),
        mpiexec=given.mpiexec,
        start_timeout_s=given.start_timeout,
        nodes=given.nodes,
        keep=given.keep,
        expected=given.expect_versions,
        end_time=float(os.environ["HPCLAB_JOB_END_TIME"]),
    )


async def _main() -> None:
    how = await _parse().run()
    sys.stdout.flush()
    # not by way of asyncio's own end, which waits for threads that a file system holds
    os._exit(how)


if __name__ == "__main__":
    os.umask(0o077)
    asyncio.run(_main())

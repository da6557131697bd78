"""What all supervisors of a main job have in common: they start what the job is for, and wait for its first end.

With that they end the rest, and themselves with an exit status that says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from asyncio.subprocess import Process
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from hpclab.folder import SessionFolder
from hpclab.inside.output import passed_on
from hpclab.inside.report import announce, report, withdraw
from hpclab.job import JobExit
from hpclab.launchers import het_srun_argv, launcher_argv
from hpclab.units import counted
from hpclab.versions import SAME_ENVIRONMENT, in_words, mismatch, versions_here

FILES_WITHIN_S = 2
"""A file system that hangs does not keep us from ending what we have started."""
SIGNAL_MAY_COME_S = 0.3
PULSE_EVERY_S = 2


class Ended(Exception):
    """Why the job ends."""

    def __init__(self, how: JobExit, reason: str = "") -> None:
        super().__init__(reason or how.meaning)
        self.how = how


@dataclass(kw_only=True)
class Supervisor:
    """One main job, from its first process to its last."""

    folder: SessionFolder
    job_id: str
    mpiexec: str
    start_timeout_s: int
    nodes: int
    expected: dict[str, str]
    """The versions of the login node's environment; empty: they do not matter."""
    end_time: float
    ended: asyncio.Future[tuple[int, str]] = field(default_factory=asyncio.Future)
    processes: list[Process] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    lines: list[asyncio.StreamWriter] = field(default_factory=list)
    """Held by the scheduler; when we close it, it ends in good order, and the workers with it."""

    # what each kind of main job does in its own way

    async def start(self, private: str) -> None:
        """Start everything; `private` is a folder for unix sockets, with ours, `supervisor`, in it already."""
        raise NotImplementedError

    async def greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Somebody whom we have started says hello at our socket."""
        raise NotImplementedError

    def too_late(self) -> None:
        """The time for the start is over."""
        raise NotImplementedError

    @property
    def wind_down_s(self) -> float:
        """How long everything together may take for its end before it is killed."""
        return 5

    @property
    def announced(self) -> tuple[str, ...]:
        """The files by which others find what runs here."""
        raise NotImplementedError

    def told_to_end(self) -> None:
        self.end(JobExit.TERMINATED)

    def stopped(self, over: str) -> None:
        """The session's folder says so, before or instead of the batch system."""
        self.end(JobExit.OK, over)

    async def last_words(self) -> None:
        """It is certain that the job ends; nothing has been ended yet."""

    # what they have in common

    def report(self, what: str, **details: Any) -> None:
        report(self.folder, self.job_id, what, **details)

    def end(self, how: int, reason: str = "") -> None:
        if not self.ended.done():
            self.ended.set_result((how, reason or JobExit(how).meaning))

    async def run(self) -> int:
        """The job's exit status."""
        loop = asyncio.get_running_loop()
        # USR2 is how Grid Engine and LSF begin to end a job, USR1 how the former announces that it will suspend it
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
            loop.add_signal_handler(number, self.told_to_end)
        loop.add_signal_handler(signal.SIGUSR1, lambda: None)
        how: int
        with _folder_for_sockets() as private:
            server = await asyncio.start_unix_server(self.greet, f"{private}/supervisor")
            try:
                self.begin_anew()
                await self.start(private)
                loop.call_later(self.start_timeout_s, self.too_late)
                watch = asyncio.create_task(self.watch_folder())
                pulse = asyncio.create_task(self.show_pulse())
                how, reason = await self.ended
                self.report("ending", reason=reason)
                watch.cancel()
                pulse.cancel()
                await self.last_words()
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

    def begin_anew(self) -> None:
        """The job may have been started before, or stopped before it began."""
        over = Path(self.folder.over)
        if over.exists() and over.read_text(errors="replace").startswith("stopped"):
            # a stop that could not reach the batch system
            raise Ended(JobExit.SESSION_OVER, "the session was stopped before this job began")
        for stale in (self.folder.over, *self.announced):
            withdraw(stale)

    def check_versions(self) -> None:
        ours = versions_here()
        if different := mismatch(ours, self.expected):
            raise Ended(
                JobExit.WRONG_VERSIONS,
                f"the job's Python {sys.executable} has {in_words(ours, different)}, but the login node's environment "
                f"{in_words(self.expected, different)}; {SAME_ENVIRONMENT}",
            )

    def launch_argv(self, ranks: int, program: Sequence[str], env: Mapping[str, str]) -> list[str]:
        """By the site's launcher, on all that the job has."""
        mpiexec = _find_mpiexec(self.mpiexec)
        version = _version_of(mpiexec)
        if components := int(env.get("SLURM_HET_SIZE", "0")):
            argv = het_srun_argv(_find_srun(), version, components=components, program=program)
        else:
            argv = launcher_argv(mpiexec, version, ranks=ranks, program=program)
        self.report("mpi", ranks=ranks, launcher=argv[0], nodes=counted(self.nodes, "node"))
        return argv

    async def show_pulse(self) -> None:
        """A node that dies tells nobody; but its pulse stops."""
        while True:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(announce, self.folder.pulse, f"{time.time():.0f}\n")
            await asyncio.sleep(PULSE_EVERY_S)

    async def spawn(self, argv: list[str], env: Mapping[str, str], on_end: Callable[[int], None]) -> Process:
        """A child in its own process group."""
        with passed_on() as output:
            process = await asyncio.create_subprocess_exec(
                *argv, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        self.take(process, on_end)
        return process

    def take(self, process: Process, on_end: Callable[[int], None]) -> None:
        """A child that ends with us."""
        self.processes.append(process)
        waiting = asyncio.ensure_future(process.wait())
        waiting.add_done_callback(lambda done: on_end(done.result()))

    async def watch_folder(self) -> None:
        """The session can be stopped while the batch system does not answer.

        Whoever removes its folder can neither find nor stop it any more, so it ends then, too.
        """
        missed = 0
        while missed < 3:
            await asyncio.sleep(5)
            # in a thread, for a file system that hangs must not keep us from hearing a signal
            is_there = await asyncio.to_thread(Path(self.folder.session).exists)
            missed = 0 if is_there else missed + 1
            with contextlib.suppress(OSError):
                self.stopped((await asyncio.to_thread(Path(self.folder.over).read_text)).strip())
        self.end(JobExit.OK, "the session's folder was removed")

    def wrong_world(self, ranks: int, size: int, library: str) -> str:
        """Every rank believes itself in a smaller world than was asked for, mostly alone."""
        return (
            f"{ranks} MPI ranks were started, but they found themselves in worlds of {size}: the launcher "
            f"and the MPI library of mpi4py ({library}) do not belong together; set `mpiexec` to the launcher of that "
            "library, or load its module"
        )

    def withdraw_all(self) -> None:
        for announced in self.announced:
            withdraw(announced)

    async def wind_down(self) -> None:
        """Nobody finds us any more; then everything is asked to end, and made to."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.to_thread(self.withdraw_all), FILES_WITHIN_S)
        for task in self.tasks:
            task.cancel()
        for line in self.lines:
            line.close()
        for process in self.processes:
            signal_group(process, signal.SIGTERM)
        ends = [asyncio.ensure_future(process.wait()) for process in self.processes]
        if ends:
            await asyncio.wait(ends, timeout=self.wind_down_s)
        for process in self.processes:
            signal_group(process, signal.SIGKILL)
        await asyncio.gather(*ends)


def supervise(made: Callable[[], Supervisor]) -> NoReturn:
    """A supervisor's whole process."""

    async def run() -> NoReturn:
        how = await made().run()
        sys.stdout.flush()
        # not by way of asyncio's own end, which waits for threads that a file system holds
        os._exit(how)

    os.umask(0o077)
    asyncio.run(run())
    raise AssertionError  # for `os._exit` does not come back


def environment(needed: Mapping[str, str]) -> dict[str, str]:
    """What this environment has of the packages `needed`, by module; raises Ended when it lacks something."""
    missing = [package for module, package in needed.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise Ended(
            JobExit.ENVIRONMENT,
            f"{', '.join(missing)} missing from the job's Python {sys.executable}; "
            f"install it there: {sys.executable} -m pip install 'hpclab[cluster]'",
        )
    versions = {package: importlib.metadata.version(package) for package in needed.values()}
    return {
        "python": sys.version.split()[0],
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }


def own_python_first(env: Mapping[str, str]) -> dict[str, str]:
    """First on PATH, so that `hpclab` and `python` in whatever is started are the job's own."""
    return {**env, "PATH": f"{Path(sys.executable).parent}:{env.get('PATH', os.defpath)}"}


def signal_group(process: Process, number: signal.Signals) -> None:
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

"""The supervisor of a run: `python -m hpclab.inside.program SESSION_FOLDER …`, run by run.sh.

It starts the script with a Dask scheduler and workers, as MPI ranks of the script (`--launch mpi`) or beside it
(`file`), and ends with the script's exit status. What the script prints stands in files of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from asyncio.subprocess import Process
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hpclab.errors import ConfigError
from hpclab.inside import command_line
from hpclab.inside.environ import worker_environment
from hpclab.inside.program_plan import (
    SCRIPT_RANK,
    ProgramPlan,
    ranks_argv,
    scheduler_argv,
    script_argv,
    script_variables,
    workers_argv,
)
from hpclab.inside.supervisor import (
    SIGNAL_MAY_COME_S,
    Ended,
    Supervisor,
    environment,
    own_python_first,
    signal_group,
    supervise,
)
from hpclab.job import JobExit, Program
from hpclab.launchers import ONE_NODE

SCRIPT_GRACE_S = 5.5
"""How long a script that was told to end may take; batch systems kill 10 s and more after they have told, and all that
comes after it takes up to 4 s."""
CANCEL_COMES_WITHIN_S = 10
"""After it was written down that a run was stopped; a batch system that does not answer never tells its jobs."""
KILLED = 128
"""An exit status from here on is a signal's, as shells have it."""
LOOK_EVERY_S = 0.3
END_IS_TOLD_S = 3
"""How the script's rank ended may be known so much later than that others did, by way of a shared file system."""
NEEDED = {
    "file": {"distributed": "distributed", "psutil": "psutil"},
    "mpi": {"distributed": "distributed", "mpi4py": "mpi4py", "psutil": "psutil"},
}


@dataclass(kw_only=True)
class ProgramSupervisor(Supervisor):
    """One run, whichever way it is launched."""

    plan: ProgramPlan
    script_status: int | None = None
    """None: the script has not ended."""
    is_told: bool = False
    """By the batch system, to end."""
    was_shut_down: bool = False
    """The scheduler, by the script, which may go on without."""
    canary: Process | None = None
    """It does nothing; if it dies of a signal that we hear, then the batch system sends it to all processes."""

    @property
    def name(self) -> str:
        return self.plan.program.name

    @property
    def wind_down_s(self) -> float:
        """Who was told to end has had a while already, and is killed soon by the batch system."""
        return 2 if self.is_told else super().wind_down_s

    @property
    def announced(self) -> tuple[str, ...]:
        folder = self.folder
        ranks = [folder.rank_end(rank) for rank in (0, SCRIPT_RANK)]
        return (folder.scheduler, folder.addresses, folder.roster, folder.pulse, folder.rank_failure, *ranks)

    async def start(self, private: str) -> None:
        found = environment(NEEDED[self.plan.launch])
        # only now that psutil is certain to be there
        from hpclab.inside.network import networks, own_addresses

        self.report("environment", **found, network=networks())
        self.check_versions()
        try:
            own_addresses(self.plan.interface)
        except ConfigError as error:
            raise Ended(JobExit.ENVIRONMENT, str(error).replace("\n", "; ")) from error
        self.check_script()
        for path in (self.folder.stdout, self.folder.stderr):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        # its input ends with us
        self.canary = await asyncio.create_subprocess_exec("cat", stdin=subprocess.PIPE, start_new_session=True)
        self.take(self.canary, lambda _: None)
        await self.start_parts({**own_python_first(os.environ), "HPCLAB_SUPERVISOR": f"{private}/supervisor"})

    def check_script(self) -> None:
        """It is where it was when it was submitted."""
        program = self.plan.program
        try:
            with open(program.path, "rb"):
                pass
            os.chdir(program.folder)
        except OSError as error:
            raise Ended(
                JobExit.ENVIRONMENT,
                f"{error.filename} cannot be used on {socket.gethostname()}: {error.strerror}; "
                "a run needs a folder that the compute nodes see as well",
            ) from error

    async def start_parts(self, env: dict[str, str]) -> None:
        raise NotImplementedError

    def pass_on_signal(self) -> None:
        """The script is to end."""
        raise NotImplementedError

    def told_to_end(self) -> None:
        """The script hears it, from us if from nobody else, and has a while; then the job ends, whatever it does."""
        if not self.is_told:
            self.is_told = True
            loop = asyncio.get_running_loop()
            loop.call_later(SIGNAL_MAY_COME_S, self.pass_on_once)
            loop.call_later(SCRIPT_GRACE_S, self.end_as_told)

    def stopped(self, over: str) -> None:
        """Whoever stops a run writes that down first, and cancels its job then, which the script is to hear once."""
        asyncio.get_running_loop().call_later(CANCEL_COMES_WITHIN_S, self.told_to_end)

    def pass_on_once(self) -> None:
        """What saves its results when it hears the signal must not hear it again meanwhile."""
        if self.canary is None or self.canary.returncode is None:
            self.pass_on_signal()

    def end_as_told(self) -> None:
        ended = "" if self.script_status is None else f"; {ended_in_words(self.name, self.script_status)}"
        self.end(JobExit.TERMINATED, JobExit.TERMINATED.meaning + ended)

    def script_ended(self, exit_status: int) -> None:
        if self.script_status is None:
            self.script_status = exit_status
            self.report("script_ended", script=self.name, exit_status=exit_status)
            # who ends a job may signal all of its processes, and some are faster than we
            asyncio.get_running_loop().call_later(SIGNAL_MAY_COME_S, self.end_with_script)

    def end_with_script(self) -> None:
        if self.is_told:
            self.end_as_told()
        elif self.script_status is not None:
            self.end(self.script_status, ended_in_words(self.name, self.script_status))

    def end_without_script(self, how: JobExit, reason: str) -> None:
        """Something is gone that the script needs; unless it has ended, too, and that is still to be told."""

        def certain() -> None:
            if self.script_status is None and not self.is_told and not self.was_shut_down:
                self.end(how, reason)

        asyncio.get_running_loop().call_later(END_IS_TOLD_S, certain)

    async def greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            hello = json.loads(await reader.readline())
        except ValueError:
            return
        if hello.pop("who") == "world":
            self.end(JobExit.WRONG_WORLD, self.wrong_world(self.plan.tasks, **hello))
        else:
            self.report("scheduler", **hello)
            self.lines.append(writer)
            await self.scheduler_up(hello["address"])
            with contextlib.suppress(OSError):
                await reader.read()
            self.end_without_script(JobExit.SCHEDULER_DIED, JobExit.SCHEDULER_DIED.meaning)
        writer.close()

    async def scheduler_up(self, address: str) -> None:
        """Only a scheduler beside the script says so here."""


@dataclass(kw_only=True)
class RanksSupervisor(ProgramSupervisor):
    """`--launch mpi`: the script's ranks are all there is."""

    launcher: Process | None = None

    async def start_parts(self, env: dict[str, str]) -> None:
        shared_memory = ONE_NODE if self.nodes == 1 else {}
        argv = self.launch_argv(self.plan.tasks, ranks_argv(self.plan, sys.executable), env)
        self.launcher = await self.spawn(argv, {**env, **shared_memory}, self.launcher_ended)
        self.tasks.append(asyncio.create_task(self.watch_ranks()))

    def pass_on_signal(self) -> None:
        """To the launcher alone, which passes it on to the ranks, wherever they are."""
        if self.launcher and self.launcher.returncode is None:
            self.launcher.send_signal(signal.SIGTERM)

    async def watch_ranks(self) -> None:
        scheduler_is_told = failure_is_told = False
        said_at = 0.0
        while self.script_status is None:
            script, scheduler = await asyncio.to_thread(self.rank_ends)
            why = await asyncio.to_thread(self.rank_failure)
            now = time.monotonic()
            said_at = said_at or now if script.exit_status is not None else 0.0
            if script.exit_status is not None and (script.is_gone or now - said_at > END_IS_TOLD_S):
                self.script_ended(script.exit_status)
            elif why and not failure_is_told:
                failure_is_told = True
                self.end_without_script(JobExit.RANK_FAILED, why)
            # with 0 it was shut down by the script, which may go on without
            elif scheduler.is_gone and scheduler.exit_status and not scheduler_is_told:
                scheduler_is_told = True
                how = ended_in_words("its MPI rank", scheduler.exit_status)
                self.end_without_script(JobExit.SCHEDULER_DIED, f"{JobExit.SCHEDULER_DIED.meaning} ({how})")
            await asyncio.sleep(LOOK_EVERY_S)

    def rank_ends(self) -> tuple[RankEnd, RankEnd]:
        """Of script and scheduler."""
        return rank_end(self.folder.rank_end(SCRIPT_RANK)), rank_end(self.folder.rank_end(0))

    def rank_failure(self) -> str:
        with contextlib.suppress(OSError):
            return Path(self.folder.rank_failure).read_text(errors="replace")
        return ""

    def launcher_ended(self, exit_status: int) -> None:
        began = Path(self.folder.rank_end(SCRIPT_RANK)).exists()
        how = JobExit.SCRIPT_LOST if began else JobExit.SCRIPT_NEVER_BEGAN
        self.end_without_script(how, f"{how.meaning}: the MPI launcher ended with {exit_status}")

    def too_late(self) -> None:
        if not Path(self.folder.rank_end(SCRIPT_RANK)).exists():
            self.end(JobExit.SCRIPT_NEVER_BEGAN)

    async def last_words(self) -> None:
        """The other ranks end by themselves when the script has ended, unless it was killed."""
        if self.launcher and self.script_status is not None and self.script_status < KILLED:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.launcher.wait(), self.wind_down_s)


@dataclass(kw_only=True)
class PartsSupervisor(ProgramSupervisor):
    """`--launch file`: scheduler and script beside the workers, which have all that was asked for."""

    env: dict[str, str] | None = None
    script: Process | None = None

    async def start_parts(self, env: dict[str, str]) -> None:
        self.env = env
        plan, python = self.plan, sys.executable
        await self.spawn(scheduler_argv(plan, python), env, self.scheduler_ended)
        if self.nodes == 1:
            argv = workers_argv(plan, python, count=plan.tasks)
        else:
            argv = self.launch_argv(plan.tasks, workers_argv(plan, python, count=1), env)
        await self.spawn(argv, worker_environment(env, self.folder), self.workers_ended)

    async def scheduler_up(self, address: str) -> None:
        assert self.env is not None
        env = {**self.env, **script_variables(self.plan, address)}
        del env["HPCLAB_SUPERVISOR"]
        # before it prints anything: who follows it begins to read anew then
        self.report("script", script=self.name, node=socket.gethostname())
        try:
            with open(self.folder.stdout, "ab") as out, open(self.folder.stderr, "ab") as err:
                self.script = await asyncio.create_subprocess_exec(
                    *script_argv(self.plan, sys.executable),
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    start_new_session=True,
                )
        except OSError as error:
            self.end(JobExit.SCRIPT_NEVER_BEGAN, f"{JobExit.SCRIPT_NEVER_BEGAN.meaning}: {error}")
            return
        self.take(self.script, lambda code: self.script_ended(KILLED - code if code < 0 else code))

    def pass_on_signal(self) -> None:
        if self.script and self.script.returncode is None:
            self.script.send_signal(signal.SIGTERM)

    def scheduler_ended(self, exit_status: int) -> None:
        self.was_shut_down = bool(self.lines) and exit_status == 0
        if not self.lines:
            how = JobExit.SCHEDULER_NEVER_UP
            self.end(how, f"{how.meaning} (its program ended with {exit_status})")

    def workers_ended(self, exit_status: int) -> None:
        self.end_without_script(JobExit.WORKER_FAILED, f"its Dask workers are gone: they ended with {exit_status}")

    def too_late(self) -> None:
        if not self.lines:
            self.end(JobExit.SCHEDULER_NEVER_UP)

    async def last_words(self) -> None:
        """What a script has left running is not the job's."""
        if self.script:
            signal_group(self.script, signal.SIGTERM)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.script.pid, signal.SIGTERM)


LAUNCHES: dict[str, Callable[..., ProgramSupervisor]] = {"mpi": RanksSupervisor, "file": PartsSupervisor}


def ended_in_words(name: str, exit_status: int) -> str:
    """Shells make an exit status of a signal, too."""
    if exit_status > KILLED and exit_status - KILLED in signal.valid_signals():
        return f"{name} was killed by signal {exit_status - KILLED}"
    return f"{name} ended with exit status {exit_status}"


@dataclass(frozen=True, kw_only=True)
class RankEnd:
    """How an MPI rank ended, as far as it is told."""

    exit_status: int | None = None
    is_gone: bool = False
    """Its process is gone; else it is its own last word."""


def rank_end(path: str) -> RankEnd:
    """The first word counts: after its own there is nothing but MPI's end, which does not always go well."""
    try:
        text = Path(path).read_text()
    except OSError:
        return RankEnd()
    words = text.split()
    number = int(words[0]) if words and words[0].isdecimal() else None
    return RankEnd(exit_status=number, is_gone=number is not None and text.endswith("\n"))


def _parse() -> ProgramSupervisor:
    parser = command_line.parser("python -m hpclab.inside.program")
    parser.add_argument("--launch", choices=LAUNCHES, required=True)
    parser.add_argument("--tasks", type=int, required=True)
    parser.add_argument("--gpus", type=int, default=0, help="per worker")
    parser.add_argument("--system", required=True)
    parser.add_argument("--program", type=lambda text: Program.from_dict(json.loads(text)), required=True)
    given = parser.parse_args()
    common = command_line.of_supervisor(given)
    plan = ProgramPlan(
        **command_line.of_plan(given),
        program=given.program,
        launch=given.launch,
        tasks=given.tasks,
        gpus=given.gpus,
        end_time=common["end_time"],
        system=given.system,
    )
    return LAUNCHES[given.launch](**common, plan=plan)


if __name__ == "__main__":
    supervise(_parse)
